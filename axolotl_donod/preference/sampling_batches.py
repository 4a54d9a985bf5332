"""Batches of samples that follow from the whole list of prompts alone.

Takes queries, gives batches of rows; knows nothing of models or of what is sampled
already, so that a sample meets the same neighbours however often a run is interrupted
and however many ranks share it.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from axolotl_donod.preference.sampling_prompts import Query
from axolotl_donod.preference.sampling_store import Key


@dataclass(frozen=True)
class Row:
    """One sample to draw: the `index`-th answer to a query."""

    query: Query
    index: int

    @property
    def key(self) -> Key:
        """Under which the store knows the sample."""
        return self.query.key, self.index


def batches(
    queries: Collection[Query], samples: int, max_new_tokens: int, batch_tokens: int
) -> list[list[Row]]:
    """Put all samples of all queries into batches, longest prompts first.

    The samples of a query stand together, so that they can share its cache.

    Args:
        queries: Each once, in any order.
        samples: Per query.
        max_new_tokens: By which a row may grow.
        batch_tokens: Which a batch may grow to, padding included; a row that exceeds
            it alone is a batch of its own.
    """
    in_line = sorted(queries, key=lambda query: (-len(query.ids), query.key))
    rows = [Row(query, index) for query in in_line for index in range(samples)]
    found = []
    while rows:
        size = max(1, batch_tokens // grown(rows[:1], max_new_tokens))
        found.append(rows[:size])
        rows = rows[size:]
    return found


def grown(rows: Sequence[Row], max_new_tokens: int) -> int:
    """Tokens that rows grow to at most, padding included."""
    return len(rows) * (max(len(row.query.ids) for row in rows) + max_new_tokens)


def split(
    rows: list[Row], max_new_tokens: int, batch_tokens: int
) -> Iterator[list[Row]]:
    """Halve rows until each part fits, or is one row."""
    if len(rows) == 1 or grown(rows, max_new_tokens) <= batch_tokens:
        yield rows
        return
    half = len(rows) // 2
    for part in (rows[:half], rows[half:]):
        yield from split(part, max_new_tokens, batch_tokens)
