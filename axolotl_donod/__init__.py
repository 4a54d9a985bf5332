"""DONOD data pruning and Alignment-Weighted DPO for Axolotl."""

__version__ = "0.1.0"
