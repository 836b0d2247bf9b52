"""Audit: lower bounds on epsilon from attacks, sequential tests of outputs, and what an attack could have shown."""
