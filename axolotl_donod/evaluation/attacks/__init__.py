"""Attacks on prompts: what one is, and the built-in ones."""
