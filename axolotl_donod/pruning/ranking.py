"""Fuses score columns into one ranking: takes arrays, gives arrays.

It knows nothing of models, files or how many rows will be kept.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from axolotl_donod.donod_config import DonodConfig
from axolotl_donod.errors import ConfigError, ScoringError
from axolotl_donod.pruning.donod import (
    FloatArray,
    crossover_learning_rate,
    don,
    nod,
    reduce_sum,
)
from axolotl_donod.pruning.panel import Columns

BEYOND_CROSSOVER = 10.0


@dataclass(frozen=True)
class Ranking:
    """Scores and ranks of n rows, in input order.

    Attributes:
        n_tokens: (n,) trained tokens.
        don: (n,) delta of norm; NaN on rows without finite scalars, as are the next.
        nod: (n,) norm of delta.
        closeness: (n,) TOPSIS closeness in [0, 1]; 1 is best.
        rank: (n,) 1 is best; rows without a closeness come last.
        learning_rate: Step size of the probe behind don and nod.
        crossover_median: Median crossover step size of the rows, NaN if none has one.
        crossover_q95: Step size that is beyond the crossover of 95 % of the rows.
    """

    n_tokens: NDArray[np.int64]
    don: FloatArray
    nod: FloatArray
    closeness: FloatArray
    rank: NDArray[np.int64]
    learning_rate: float
    crossover_median: float
    crossover_q95: float


def rank_scores(
    columns: Columns,
    config: DonodConfig,
    head_norm: float,
    training_learning_rate: float,
) -> Ranking:
    """Rank rows by DON and NOD under a configuration.

    A set `probe.learning_rate` is used as it is. Otherwise preset `paper` probes with
    the training learning rate, and preset `auto` with ten times the smallest
    crossover 2 |<W,G>| / ||G||^2 that at least 95 % of the rows with finite scalars
    do not exceed: for those rows the part of DON that is linear in the learning rate
    and rewards surprise is then at most a tenth of the quadratic part, so that a
    small DON means an unstable row, not an easy one.

    Args:
        columns: Scalars of n rows.
        config: The section `donod`.
        head_norm: Frobenius norm of the output head.
        training_learning_rate: Learning rate of the training that follows.

    Returns:
        The ranking of the n rows.

    Raises:
        ScoringError: No row has finite scalars, or `auto` finds no crossover.
    """
    inner, squared = columns["w_dot_g"], columns["g_norm_sq"]
    if config.probe.reduction == "sum":
        inner, squared = reduce_sum(inner, squared, columns["n_tokens"])
    if not (np.isfinite(inner) & np.isfinite(squared)).any():
        raise ScoringError(
            f"none of {inner.size} rows has a finite score; check that the rows have "
            "trained tokens and that the model gives finite logits"
        )
    median, q95 = _crossover_quantiles(crossover_learning_rate(inner, squared))
    rate = config.probe.learning_rate
    if rate is None:
        beyond = BEYOND_CROSSOVER * q95
        rate = training_learning_rate if config.preset == "paper" else beyond
    if not rate > 0:
        raise ScoringError(
            f"donod.preset {config.preset} found no usable probe step, got {rate}; "
            "set donod.probe.learning_rate"
        )
    decay = config.probe.weight_decay
    dons = don(inner, squared, head_norm, rate, decay)
    nods = nod(inner, squared, head_norm, rate, decay)
    closeness = topsis(
        {"don": dons, "nod": nods},
        config.weights.model_dump(),
        config.goals.model_dump(),
        config.normalization,
    )
    ranks = rank_rows(closeness)
    return Ranking(
        columns["n_tokens"], dons, nods, closeness, ranks, float(rate), median, q95
    )


def _crossover_quantiles(crossovers: FloatArray) -> tuple[float, float]:
    finite = crossovers[np.isfinite(crossovers)]
    if not finite.size:
        return float("nan"), float("nan")
    # "higher" is an element of the data, so the 95 % hold for any number of rows.
    return float(np.median(finite)), float(np.quantile(finite, 0.95, method="higher"))


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
    _check_criteria(criteria, weights, goals, normalization)
    names = list(criteria)
    table = np.stack([np.asarray(criteria[name], dtype=np.float64) for name in names])
    usable = np.isfinite(table).all(axis=0)
    closeness = np.full(table.shape[1], np.nan)
    if not usable.any():
        return closeness
    to_best = np.zeros(int(usable.sum()))
    to_worst = np.zeros_like(to_best)
    heaviest = max(weights[name] for name in names)
    for name, column in zip(names, table, strict=True):
        scaled = _NORMALIZATIONS[normalization](column[usable])
        scaled = scaled * (weights[name] / heaviest)
        low, high = scaled.min(), scaled.max()
        best, worst = (high, low) if goals[name] == "max" else (low, high)
        to_best += (scaled - best) ** 2
        to_worst += (scaled - worst) ** 2
    to_best, to_worst = np.sqrt(to_best), np.sqrt(to_worst)
    total = to_best + to_worst
    half = np.full_like(total, 0.5)
    closeness[usable] = np.divide(to_worst, total, out=half, where=total > 0)
    return closeness


def _check_criteria(
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


def _by_vector(column: FloatArray) -> FloatArray:
    largest = np.abs(column).max()
    if largest == 0:
        return column
    # Squares of scores near 1e-170 would vanish without the first division.
    column = column / largest
    return np.asarray(column / np.linalg.norm(column))


def _by_minmax(column: FloatArray) -> FloatArray:
    low, high = column.min(), column.max()
    if low == high:
        return np.zeros_like(column)
    return np.asarray((column - low) / (high - low))


def _by_rank(column: FloatArray) -> FloatArray:
    _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    average = last - (counts - 1) / 2
    return np.asarray(average[place] / max(1, column.size - 1))


_NORMALIZATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "vector": _by_vector,
    "minmax": _by_minmax,
    "rank": _by_rank,
}


def rank_rows(closeness: FloatArray) -> NDArray[np.int64]:
    """Rank rows by closeness, highest first.

    Args:
        closeness: (n,) closeness; NaN where a row has none.

    Returns:
        (n,) ranks from 1 (best) to n, without gaps. Ties keep the order of the rows;
        NaN comes last, in the order of the rows.
    """
    order = np.argsort(-closeness, kind="stable")
    ranks = np.empty(closeness.size, dtype=np.int64)
    ranks[order] = np.arange(1, closeness.size + 1)
    return ranks
