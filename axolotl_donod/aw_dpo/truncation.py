"""A data set with its segments in, how many of them truncation removes out.

Reads lengths only; knows nothing of texts or models.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from axolotl_donod.aw_dpo.collator import ENDS_COLUMNS, REASONING_LEN_COLUMNS
from axolotl_donod.cot_messages import SIDES
from axolotl_donod.errors import DataError

LOG = logging.getLogger(__name__)

_BATCH_ROWS = 1000


def lost_segments(
    dataset: Any, max_length: int | None, names: Sequence[str]
) -> dict[str, int]:
    """Count the pairs in which truncation leaves nothing of a segment.

    Args:
        dataset: Of rows with tokens and the columns of `columns.pair_columns`.
        max_length: Tokens that are left of prompt and response; None cuts nothing.
        names: Of the segments, in order.

    Returns:
        Pairs by segment; 0 where every pair keeps it on both sides.
    """
    lost = dict.fromkeys(names, 0)
    if max_length is None:
        return lost
    lengths = ENDS_COLUMNS
    if ENDS_COLUMNS[0] not in dataset.column_names:
        lengths = REASONING_LEN_COLUMNS
    read = dataset.select_columns(
        ["prompt_ids", "chosen_ids", "rejected_ids", *lengths]
    )
    for rows in read.iter(_BATCH_ROWS):
        for index in range(len(rows["prompt_ids"])):
            row = {name: values[index] for name, values in rows.items()}
            for segment in _lost_of(row, lengths, max_length):
                lost[names[segment]] += 1
    return lost


def warn_of_lost_segments(
    lost: Mapping[str, int], rows: int, max_length: int | None, name: str
) -> None:
    """Say once how many pairs of a data set lose which segment."""
    if any(lost.values()):
        found = ", ".join(f"{count} the {segment}" for segment, count in lost.items())
        LOG.warning(
            "sequence_len: %s leaves nothing of a segment in some of the %d pairs of "
            "the %s dataset: %s; their weight goes to the other segments. Raise "
            "sequence_len to keep them",
            max_length,
            rows,
            name,
            found,
        )


def warn_of_long_prompts(
    dropped: int, rows: int, max_length: int | None, name: str
) -> None:
    """Say how many pairs are left out because the prompt alone fills `max_length`.

    Raises:
        DataError: None of the `rows` pairs is left.
    """
    if dropped and dropped == rows:
        raise DataError(
            f"the {name} dataset: in all {rows} pairs the prompt alone fills "
            f"sequence_len (max_length): {max_length}; raise it, or shorten the prompts"
        )
    if dropped:
        LOG.warning(
            "dropped %d of %d pairs of the %s dataset: their prompt alone fills "
            "sequence_len (max_length): %s; raise it to keep them",
            dropped,
            rows,
            name,
            max_length,
        )


def _lost_of(
    row: Mapping[str, Any], lengths: Sequence[str], max_length: int
) -> set[int]:
    lost = set()
    for side, column in zip(SIDES, lengths, strict=True):
        size = len(row[f"{side}_ids"])
        left = min(size, max(0, max_length - len(row["prompt_ids"])))
        ends = row[column] if isinstance(row[column], list) else [row[column]]
        bounds = [0, *ends, size]
        for segment in range(len(bounds) - 1):
            start, end = bounds[segment], bounds[segment + 1]
            # A segment beyond the last token was cut before it closed.
            if start > size or (start < end and left <= start):
                lost.add(segment)
    return lost
