"""TOPSIS: takes criteria of n rows, gives the closeness of each row to the ideal one.

It knows nothing of what a criterion means, of configuration files or of cuts.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from axolotl_donod.errors import ConfigError
from axolotl_donod.pruning.donod import FloatArray


def topsis(
    criteria: Mapping[str, ArrayLike],
    weights: Mapping[str, float],
    goals: Mapping[str, str],
    normalization: str = "vector",
) -> FloatArray:
    """Relative closeness to the ideal row (TOPSIS, Hwang and Yoon 1981).

    Each criterion is normalised and weighted; closeness is d- / (d+ + d-), where d+
    and d- are the Euclidean distances to the best and the worst value of every
    criterion. A constant criterion adds nothing; if all are constant, closeness is
    0.5. Rows that are not finite in every criterion get NaN and influence no other.

    Args:
        criteria: Name to (n,) values.
        weights: Name to weight >= 0; only their proportions matter.
        goals: Name to "max" or "min".
        normalization: "vector" divides by the 2-norm, "minmax" maps the range to
            [0, 1], "rank" maps average ranks to [0, 1].

    Returns:
        (n,) closeness, float64, 1 is best.

    Raises:
        ConfigError: An unknown name, goal or normalisation, or no positive weight.
    """
    _check(criteria, weights, goals, normalization)
    usable = np.logical_and.reduce([np.isfinite(c) for c in criteria.values()])
    closeness = np.full(usable.size, np.nan)
    if not usable.any():
        return closeness
    to_best = np.zeros(int(usable.sum()))
    to_worst = np.zeros_like(to_best)
    heaviest = max(weights.values())
    for name, column in criteria.items():
        scaled = np.asarray(column, dtype=np.float64)[usable]
        _NORMALIZATIONS[normalization](scaled)
        scaled *= weights[name] / heaviest
        low, high = scaled.min(), scaled.max()
        best, worst = (high, low) if goals[name] == "max" else (low, high)
        _add_square(to_worst, scaled - worst)
        scaled -= best
        _add_square(to_best, scaled)
        del scaled
    to_best, to_worst = np.sqrt(to_best, out=to_best), np.sqrt(to_worst, out=to_worst)
    to_best += to_worst
    apart = to_best > 0
    np.divide(to_worst, to_best, out=to_worst, where=apart)
    to_worst[~apart] = 0.5
    closeness[usable] = to_worst
    return closeness


def _add_square(total: FloatArray, part: FloatArray) -> None:
    """Add the squares of `part`, which is overwritten: ten million rows are 80 MB."""
    total += np.square(part, out=part)


def _check(
    criteria: Mapping[str, ArrayLike],
    weights: Mapping[str, float],
    goals: Mapping[str, str],
    normalization: str,
) -> None:
    for name, given in (("weights", weights), ("goals", goals)):
        if set(given) != set(criteria):
            raise ConfigError(
                f"donod.{name} must name the criteria {sorted(criteria)}, got "
                f"{sorted(given)}"
            )
    for name, weight in weights.items():
        if not 0 <= weight < np.inf:
            raise ConfigError(f"donod.weights.{name} must be >= 0, got {weight}")
    if not any(weight > 0 for weight in weights.values()):
        raise ConfigError(f"donod.weights must have a positive sum, got {weights}")
    for name, goal in goals.items():
        if goal not in ("max", "min"):
            raise ConfigError(f"donod.goals.{name} must be max or min, got {goal}")
    if normalization not in _NORMALIZATIONS:
        raise ConfigError(
            f"donod.normalization must be one of {sorted(_NORMALIZATIONS)}, got "
            f"{normalization}"
        )


def _by_vector(column: FloatArray) -> None:
    largest = max(-column.min(), column.max())
    if largest > 0:
        # Squares of scores near 1e-170 would vanish without the first division.
        column /= largest
        column /= np.linalg.norm(column)


def _by_minmax(column: FloatArray) -> None:
    low, high = column.min(), column.max()
    if low == high:
        column[:] = 0
        return
    column -= low
    column /= high - low


def _by_rank(column: FloatArray) -> None:
    order = np.argsort(column)
    ordered = column[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-np.inf))
    ends = np.append(starts[1:], column.size)
    average = (starts + ends - 1) / 2
    column[order] = np.repeat(average / max(1, column.size - 1), ends - starts)


# Each one works in place on finite values.
_NORMALIZATIONS: dict[str, Callable[[FloatArray], None]] = {
    "vector": _by_vector,
    "minmax": _by_minmax,
    "rank": _by_rank,
}
