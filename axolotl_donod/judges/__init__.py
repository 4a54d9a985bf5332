"""Judges of harmfulness: what they are, the built-in ones, their panel and cache."""
