"""Cuts a ranking: takes ranks and a budget, gives the rows to keep and why.

It knows nothing of models, files or how the ranks came about.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from axolotl_donod.errors import ConfigError, DataError
from axolotl_donod.pruning.ranking import Ranking

KEPT = "kept"
BELOW_CUT = "rank below the cut"
NO_TOKENS = "no trained tokens"
NOT_FINITE = "non-finite score"


@dataclass(frozen=True)
class Selection:
    """Which of n rows stay, in input order.

    Attributes:
        kept: (n,) whether the row stays.
        reason: (n,) one of the four reasons of this module, as str.
        budget: Rows that were asked for; fewer stay if fewer have a finite score.
    """

    kept: NDArray[np.bool_]
    reason: NDArray[np.object_]
    budget: int


def select(
    ranking: Ranking,
    keep_fraction: float | None = None,
    keep_rows: int | None = None,
) -> Selection:
    """Keep the best-ranked rows up to a budget.

    A fraction is of all n rows, scored or not, and keeps
    max(1, floor(keep_fraction * n + 0.5)) of them: halves round up.

    Args:
        ranking: The ranking of n rows.
        keep_fraction: Share to keep, in (0, 1].
        keep_rows: Number to keep, instead of a share.

    Returns:
        The selection; a row without a finite closeness is never kept.

    Raises:
        ConfigError: Both budgets or neither are given, or the fraction is not in
            (0, 1].
        DataError: keep_rows is not between 1 and n, or there are no rows.
    """
    n_rows = ranking.rank.size
    budget = _budget(n_rows, keep_fraction, keep_rows)
    scored = np.isfinite(ranking.closeness)
    kept = scored & (ranking.rank <= budget)
    reason = np.full(n_rows, BELOW_CUT, dtype=object)
    reason[kept] = KEPT
    reason[~scored] = NOT_FINITE
    reason[ranking.n_tokens == 0] = NO_TOKENS
    return Selection(kept, reason, budget)


def _budget(n_rows: int, keep_fraction: float | None, keep_rows: int | None) -> int:
    if n_rows == 0:
        raise DataError("there are no rows to select from; check the datasets")
    if keep_rows is not None and keep_fraction is None:
        if not 1 <= keep_rows <= n_rows:
            raise DataError(
                f"donod.keep_rows must be between 1 and the number of rows, got "
                f"{keep_rows} of {n_rows} rows; lower it or use donod.keep_fraction"
            )
        return keep_rows
    if keep_fraction is None or keep_rows is not None:
        raise ConfigError(
            "exactly one of donod.keep_fraction and donod.keep_rows must be set, got "
            f"{keep_fraction} and {keep_rows}"
        )
    if not 0 < keep_fraction <= 1:
        raise ConfigError(
            f"donod.keep_fraction must be in (0, 1], got {keep_fraction}; use "
            "donod.keep_rows for a number of rows"
        )
    return max(1, math.floor(keep_fraction * n_rows + 0.5))
