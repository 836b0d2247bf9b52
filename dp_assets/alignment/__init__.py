"""Annotation, preference pairs, SFT, reward model and RLHF on released rows."""
