"""How one ranking treats clones: takes values of rows and clones, gives its figures.

It knows nothing of presets or scores; the greater value is the better ranked.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from axolotl_donod.donod_config import DonodConfig
from axolotl_donod.pruning.audit.auroc import (
    Resampling,
    auroc_within_length,
    kept_chances,
    placements,
)
from axolotl_donod.pruning.donod import FloatArray, IntArray
from axolotl_donod.pruning.ranking import rank_rows
from axolotl_donod.pruning.selection import rows_of_share

RankingKind = Literal["preset", "score", "baseline"]


@dataclass(frozen=True)
class RankingAudit:
    """How one ranking treats the clones.

    Attributes:
        name: A preset, a score or a baseline.
        kind: Which of the three.
        auroc: Chance that a row ranks above a clone, ties half; 0.5 is blind.
        low: Lower end of its bootstrap 95 % interval.
        high: Upper end.
        kept_share: Share of clones among what is kept of rows and clones together;
            0 if nothing has a value.
        auroc_within_length: AUROC among rows and clones of like length, None if no
            clone has a row of like length.
        auroc_by_kind: AUROC of all rows against the clones of each kind.
        kept_by_kind: Share of the clones of each kind that is kept.
    """

    name: str
    kind: RankingKind
    auroc: float
    low: float
    high: float
    kept_share: float
    auroc_within_length: float | None
    auroc_by_kind: dict[str, float]
    kept_by_kind: dict[str, float]


@dataclass(frozen=True)
class Judge:
    """What the judgement of every ranking of n rows and m clones shares.

    Attributes:
        row_lengths: (n,) trained tokens.
        clone_lengths: (m,) trained tokens.
        kinds: (m,) kinds of corruption.
        settings: Section `donod`, whose budget cuts rows and clones together.
        resampling: Bootstrap samples.
    """

    row_lengths: IntArray
    clone_lengths: IntArray
    kinds: NDArray[np.object_]
    settings: DonodConfig
    resampling: Resampling

    def judge(
        self, name: str, kind: RankingKind, rows: FloatArray, clones: FloatArray
    ) -> RankingAudit:
        """Return the figures of one ranking.

        Args:
            name: Its name.
            kind: What it is.
            rows: (n,) values, the greater the better; NaN ranks last.
            clones: (m,) values.
        """
        above = placements(rows, clones)
        chances, kept = kept_chances(rows, clones, self.budget(rows, clones))
        members = {str(name): self.kinds == name for name in sorted(set(self.kinds))}
        low, high = self.resampling.interval(rows, clones)
        return RankingAudit(
            name=name,
            kind=kind,
            auroc=float(above.mean()),
            low=low,
            high=high,
            kept_share=float(chances.sum() / max(kept, 1)),
            auroc_within_length=auroc_within_length(
                rows, clones, self.row_lengths, self.clone_lengths
            ),
            auroc_by_kind={k: float(above[who].mean()) for k, who in members.items()},
            kept_by_kind={k: float(chances[who].mean()) for k, who in members.items()},
        )

    def budget(self, rows: FloatArray, clones: FloatArray) -> int:
        """Return how many of rows and clones together the settings keep."""
        settings = self.settings
        if settings.keep_rows is not None:
            return settings.keep_rows
        if settings.keep_fraction is not None:
            return rows_of_share(settings.keep_fraction, rows.size + clones.size)
        tokens = np.concatenate([self.row_lengths, self.clone_lengths])
        order = np.argsort(rank_rows(np.concatenate([rows, clones])))
        return int((np.cumsum(tokens[order]) <= (settings.keep_tokens or 0)).sum())
