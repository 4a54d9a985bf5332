"""A demo that needs no download but a package index: seeded data and a small model."""
