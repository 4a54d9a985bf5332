"""Scores tokenised rows: takes a model and rows, gives one set of scalars per row.

It knows nothing of configuration, files or which rows will be kept.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from axolotl_donod.pruning.head import (
    OutputHead,
    check_head,
    exact_matmul,
    head_logits,
    hidden_states,
    output_head,
)
from axolotl_donod.pruning.panel import (
    Columns,
    RowScalars,
    panel_columns,
    row_scalars,
)
from axolotl_donod.pruning.rows import IntArray, Row, Rows, batches, measure, read

# Logits that exist at a time, 256 MiB in float32, unless one row needs more.
_LOGIT_ELEMENTS = 2**26


def score_rows(
    model: nn.Module,
    rows: Rows,
    *,
    batch_tokens: int,
    pad_token_id: int,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Columns:
    """Score every row with one forward pass of the model body.

    The label at position t is predicted from position t-1, so a label at position 0
    is never trained. Batching changes speed and memory, not the scalars.

    Args:
        model: A decoder-only causal language model; left as it was found.
        rows: n rows with `input_ids` and `labels` (-100: not trained).
        batch_tokens: Padded tokens per batch; a longer row is a batch alone.
        pad_token_id: Token that fills the right of shorter rows.
        device: Where inputs go; unset means beside the model's embeddings.
        progress: Show a progress bar over rows.

    Returns:
        Columns of length n in input order. Rows without trained tokens have n_tokens
        0 and NaN elsewhere; rows with non-finite logits have NaN but in n_tokens.

    Raises:
        DataError: A row lacks a column, or holds ids that the model does not know.
        ScoringError: The closed forms do not describe this model.
    """
    head = output_head(model)
    embeddings: Tensor = model.get_input_embeddings().weight  # type: ignore[operator]
    target = torch.device(device) if device is not None else embeddings.device
    lengths, counts = measure(rows, embeddings.shape[0], head.weight.shape[0])
    scores = [RowScalars.undefined(int(count)) for count in counts]
    checked = False
    bar = tqdm(total=len(rows), desc="Scoring", unit="row", disable=not progress)
    with _evaluating(model), bar:
        bar.update(int((counts == 0).sum()))
        for indices in batches(lengths, counts > 0, batch_tokens):
            batch = [read(rows, index) for index in indices]
            scored = _score_batch(model, head, batch, pad_token_id, target)
            for row, scalars in zip(batch, scored, strict=True):
                if not checked and np.isfinite(scalars.ce):
                    check_head(model, head, _tensor(row.input_ids, target))
                    checked = True
                scores[row.index] = scalars
            bar.update(len(batch))
    return panel_columns(scores)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Inference without dropout; every module gets its own mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


def _score_batch(
    model: nn.Module,
    head: OutputHead,
    batch: Sequence[Row],
    pad_token_id: int,
    device: torch.device,
) -> list[RowScalars]:
    width = max(row.input_ids.size for row in batch)
    ids = np.full((len(batch), width), pad_token_id, dtype=np.int64)
    mask = np.zeros((len(batch), width), dtype=np.int64)
    for place, row in enumerate(batch):
        ids[place, : row.input_ids.size] = row.input_ids
        mask[place, : row.input_ids.size] = 1
    states = hidden_states(model, _tensor(ids, device), _tensor(mask, device))
    limit = max(1, _LOGIT_ELEMENTS // head.weight.shape[0])
    target = head.weight.device
    scored = []
    for group in _groups([row.positions.size for row in batch], limit):
        hidden = [
            states[place, _tensor(batch[place].positions, states.device)].to(target)
            for place in group
        ]
        with exact_matmul(target):
            logits = head_logits(head, torch.cat(hidden))
            parts = torch.split(logits, [part.shape[0] for part in hidden])
            for place, own, part in zip(group, hidden, parts, strict=True):
                labels = _tensor(batch[place].labels, target)
                scored.append(row_scalars(own, part, labels, head.bias))
    return scored


def _groups(counts: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Consecutive places whose counts sum to at most limit, or a single place."""
    group: list[int] = []
    total = 0
    for place, count in enumerate(counts):
        if group and total + count > limit:
            yield group
            group, total = [], 0
        group.append(place)
        total += count
    if group:
        yield group


def _tensor(values: IntArray, device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device)
