"""Audit: lower bounds on epsilon from attacks on canaries, what an attack could have shown, and ranking figures."""
