"""AW-DPO: segments, weights, loss and trainer."""
