"""Tokenised rows on their way to the scorer: reads, checks and batches them.

Takes rows with `input_ids` and `labels`; knows nothing of models or scores.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from axolotl_donod.errors import DataError

IGNORED_LABEL = -100

Rows = Sequence[Mapping[str, Any]]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """A row on its way through a batch; `positions` predict the trained labels."""

    index: int
    input_ids: IntArray
    positions: IntArray
    labels: IntArray


def measure(rows: Rows, n_inputs: int, n_outputs: int) -> tuple[IntArray, IntArray]:
    """Length and number of trained tokens of every row, after checking its ids."""
    lengths = np.zeros(len(rows), dtype=np.int64)
    counts = np.zeros(len(rows), dtype=np.int64)
    for index in range(len(rows)):
        row = read(rows, index)
        _check_ids(index, "input_ids", row.input_ids, n_inputs)
        _check_ids(index, "labels", row.labels, n_outputs)
        lengths[index] = row.input_ids.size
        counts[index] = row.labels.size
    return lengths, counts


def _check_ids(index: int, name: str, ids: IntArray, limit: int) -> None:
    wrong = ids[(ids < 0) | (ids >= limit)]
    if wrong.size:
        raise DataError(
            f"row {index}: {name} holds {int(wrong[0])}, but the model knows the "
            f"tokens 0 to {limit - 1} (and {IGNORED_LABEL} in labels); tokenise the "
            "rows with the tokenizer of this model"
        )


def read(rows: Rows, index: int) -> Row:
    """Check one row and find its trained labels."""
    row = rows[index]
    for name in ("input_ids", "labels"):
        if name not in row:
            raise DataError(
                f"row {index}: column {name} is missing, got {sorted(row)}; score "
                "rows that are tokenised for training"
            )
    input_ids = np.asarray(row["input_ids"], dtype=np.int64)
    labels = np.asarray(row["labels"], dtype=np.int64)
    if input_ids.ndim != 1 or input_ids.shape != labels.shape:
        raise DataError(
            f"row {index}: input_ids and labels must be lists of one length, got "
            f"shapes {input_ids.shape} and {labels.shape}; tokenise the row again"
        )
    trained = np.flatnonzero(labels[1:] != IGNORED_LABEL)
    return Row(index, input_ids, trained, labels[trained + 1])


def batches(
    lengths: IntArray, wanted: NDArray[np.bool_], batch_tokens: int
) -> Iterator[list[int]]:
    """Row numbers of each batch, longest rows first so that memory peaks at once."""
    order = np.argsort(-lengths, kind="stable")
    batch: list[int] = []
    for index in order[wanted[order]].tolist():
        width = lengths[batch[0]] if batch else 0
        if batch and width * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
