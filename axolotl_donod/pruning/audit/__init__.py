"""The audit: corrupted clones of rows, and where rankings put them."""
