"""DONOD: scores of rows, their ranking and what is kept."""
