"""What must and may stay of each source: takes names and settings, gives counts.

It knows nothing of scores; rows come in the order in which they would be kept.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from axolotl_donod.donod_parts import SelectionConfig
from axolotl_donod.errors import ConfigError, DataError
from axolotl_donod.pruning.donod import BoolArray, IntArray


def earlier(labels: IntArray) -> IntArray:
    """Count, for each of (m,) labels, the equal ones before it."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    lengths = np.diff(starts, append=labels.size)
    counts = np.empty(labels.size, dtype=np.int64)
    counts[order] = np.arange(labels.size) - np.repeat(starts, lengths)
    return counts


@dataclass(frozen=True)
class Shares:
    """Floors and quotas of the sources of m rows in line.

    Attributes:
        names: The s known sources.
        codes: (m,) index of each row's source, s where it is unknown.
        nth: (m,) rows of the same source that stand before the row.
        counts: s + 1 numbers of rows; the last is that of unknown source.
        floors: s + 1 numbers of rows that must stay.
        quotas: s + 1 greatest shares of the kept rows.
        settings: Section `donod.selection`.
    """

    names: list[str]
    codes: IntArray
    nth: IntArray
    counts: list[int]
    floors: list[int]
    quotas: list[Fraction]
    settings: SelectionConfig

    def caps(self, rows: int) -> list[int]:
        """Rows of each source that may stay when so many stay in all."""
        return [share.numerator * rows // share.denominator for share in self.quotas]

    def full(self, rows: int) -> BoolArray:
        """Rows behind as many of their source as its quota of so many rows allows."""
        limited = np.array([share < 1 for share in self.quotas])
        caps = np.where(limited, self.caps(rows), self.nth.size)
        return np.asarray(self.nth >= caps[self.codes])

    def within(self, rows: int) -> int:
        """Lower a number of rows until every quota can hold.

        Raises:
            DataError: The quotas leave no row, or not all that the floors keep.
        """
        while rows > (left := sum(map(min, self.counts, self.caps(rows)))):
            rows = left
        where = dict(zip(self.names, self.counts, strict=False))
        if self.codes.size and not rows:
            raise DataError(
                f"donod.selection.source_quota {self.settings.source_quota} leaves no "
                f"row of {where}; raise a quota or the budget"
            )
        floor = f"donod.selection.source_floor {self.settings.source_floor}"
        for name, least, most in zip(
            self.names, self.floors, self.caps(rows), strict=False
        ):
            if least > most and name in self.settings.source_quota:
                raise DataError(
                    f"{floor} keeps {least} rows of {name}, but its source_quota "
                    f"allows {most} of {rows} kept rows; lower the floor or raise the "
                    "quota"
                )
        if sum(self.floors) > rows:
            raise DataError(
                f"{floor} keeps {sum(self.floors)} rows, but {rows} can be kept; lower "
                "the floor or raise the budget"
            )
        return rows

    def hold(self, kept: BoolArray) -> bool:
        """Whether the kept ones of the m rows respect every quota."""
        found = np.bincount(self.codes[kept], minlength=len(self.counts))
        return all(found <= self.caps(int(kept.sum())))


def shares_of(
    line: IntArray,
    sources: Sequence[str | None] | None,
    settings: SelectionConfig,
    n_rows: int,
) -> Shares:
    """Turn names and shares into numbers of rows.

    Args:
        line: (m,) indices of rows in the order in which they would be kept.
        sources: n names, None where unknown; unused without quota and floor.
        settings: Section `donod.selection`.
        n_rows: Number n of all rows.

    Raises:
        ConfigError: A quota names a source that no row has.
        DataError: `sources` is missing or of another length.
    """
    names: list[str] = []
    codes = np.zeros(line.size, dtype=np.int64)
    if settings.source_quota or settings.source_floor:
        if sources is None or len(sources) != n_rows:
            found = "none" if sources is None else f"{len(sources)}"
            raise DataError(
                "donod.selection.source_quota and source_floor need the source of "
                f"each of {n_rows} rows, got {found}; prune again from the rows"
            )
        names = sorted({name for name in set(sources) if name is not None})
        code = {name: index for index, name in enumerate([*names, None])}
        codes = np.fromiter(map(code.__getitem__, sources), np.int64, n_rows)[line]
    unknown = sorted(set(settings.source_quota) - set(names))
    if unknown:
        raise ConfigError(
            f"donod.selection.source_quota names {unknown}, but the rows come from "
            f"{names}; use the dataset paths of these"
        )
    counts = np.bincount(codes, minlength=len(names) + 1).tolist()
    # Exact decimals: 0.29 of 100 rows is 29, and 0.1 of 30 needs no fourth row.
    floor = Fraction(str(settings.source_floor))
    floors = [*(math.ceil(floor * count) for count in counts[:-1]), 0]
    quotas = [settings.source_quota.get(name, 1) for name in names]
    shares = [Fraction(str(share)) for share in [*quotas, 1]]
    return Shares(names, codes, earlier(codes), counts, floors, shares, settings)
