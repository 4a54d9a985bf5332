"""Scores of rows from a model: states, head, panel, probes, batches."""
