"""States that predict trained labels: takes a model and rows, gives them row by row.

It knows nothing of heads, scores or files.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from axolotl_donod.pruning.rows import Row
from axolotl_donod.pruning.scoring.head import hidden_states


def answer_states(
    model: nn.Module, rows: Sequence[Row], pad_token_id: int, device: torch.device
) -> list[Tensor]:
    """Run the body on rows together.

    Args:
        model: A decoder-only causal language model.
        rows: n rows.
        pad_token_id: Token that fills the right of shorter rows.
        device: Where inputs go.

    Returns:
        n tensors (T, d), float32 or float64, on the device of the last layer.
    """
    width = max(row.input_ids.size for row in rows)
    ids = np.full((len(rows), width), pad_token_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for place, row in enumerate(rows):
        ids[place, : row.input_ids.size] = row.input_ids
        mask[place, : row.input_ids.size] = 1
    inputs = [torch.from_numpy(each).to(device) for each in (ids, mask)]
    states = hidden_states(model, *inputs)
    dtype = torch.promote_types(states.dtype, torch.float32)
    return [
        states[place, torch.from_numpy(row.positions).to(states.device)].to(dtype)
        for place, row in enumerate(rows)
    ]


def without_prompt(row: Row) -> Row:
    """Give a row's first token and its trained labels, as if it held nothing else."""
    ids = np.concatenate([row.input_ids[:1], row.labels])
    return Row(row.index, ids, np.arange(row.labels.size), row.labels)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inference without dropout; every module gets its own mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


def groups(counts: Sequence[int], limit: int) -> Iterator[slice]:
    """Slices of consecutive places whose counts sum to at most limit, or of one."""
    first, total = 0, 0
    for place, count in enumerate(counts):
        if place > first and total + count > limit:
            yield slice(first, place)
            first, total = place, 0
        total += count
    if counts:
        yield slice(first, len(counts))
