"""Evaluation: attacks, metrics, statistics, the runner and its report."""
