"""Bounds of clustered shares and differences: takes cluster totals, gives intervals.

All of it is vectorised over several shares of the same clusters. Knows nothing of what
a share means.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from axolotl_donod.evaluation.gaffke import LEVEL as LEVEL
from axolotl_donod.evaluation.gaffke import FloatArray as FloatArray
from axolotl_donod.evaluation.gaffke import gaffke, sides

RESAMPLES = 4_999
# Clusters that deviate from the others from which on the bootstrap is trusted.
ENOUGH_CLUSTERS = 10
_CHUNK = 250
_ROUNDING = 1e-12


def share_bounds(
    totals: FloatArray, sizes: FloatArray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Bounds of d shares at once, from the totals of their clusters.

    With at least `ENOUGH_CLUSTERS` clusters whose mean is not that of the others: the
    bootstrap-t (Efron 1981) over clusters, equal-tailed where all of those lie on one
    side of the others, symmetric (Hall 1988) where as many lie on either side, and in
    proportion between; the skewness of a few clusters on both sides is but noise. With
    fewer, resamples may have no spread; then Gaffke's bounds, which cover more than
    95 %.

    Args:
        totals: (d, m) sum of the values of each cluster.
        sizes: (m,) values of each cluster, at least 1.
        resamples: Bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        (d,) lower bounds, (d,) upper bounds, (d,) whether they are the bootstrap's.
    """
    side = sides(totals, sizes)[1]
    low, high, _, boot = _few(totals, sizes, side, least=0.0)
    if boot.any():
        estimate, variance = _ratio(totals[boot], sizes)
        tails = _studentized(totals[boot], sizes, resamples, seed)
        skewed = np.quantile(tails, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        even = np.quantile(np.abs(tails), LEVEL, axis=0) * np.array([[-1.0], [1.0]])
        lean = _lean(side[boot])
        few, many = lean * skewed + (1 - lean) * even
        error = np.sqrt(variance)
        low[boot] = estimate - many * error
        high[boot] = estimate - few * error
    return np.clip(low, 0, 1), np.clip(high, 0, 1), boot


def difference_bounds(
    totals: FloatArray, sizes: FloatArray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[FloatArray, FloatArray, FloatArray, NDArray[np.bool_]]:
    """Bounds and p-values of d mean paired differences at once.

    With at least `ENOUGH_CLUSTERS` clusters whose mean change is not that of the
    others: the symmetric bootstrap-t over clusters. With fewer: Gaffke's bounds, whose
    test is McNemar's exact one where each cluster is one pair. Either p-value agrees
    with its interval.

    Args:
        totals: (d, m) sum of the differences of each cluster.
        sizes: (m,) pairs of each cluster, at least 1.
        resamples: Bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        (d,) lower bounds, upper bounds, p-values, and whether they are the bootstrap's.
    """
    side = sides(totals, sizes)[1]
    low, high, p_value, boot = _few(totals, sizes, side, least=-1.0)
    if boot.any():
        estimate, variance = _ratio(totals[boot], sizes)
        tails = np.abs(_studentized(totals[boot], sizes, resamples, seed))
        error = np.sqrt(variance)
        half = np.quantile(tails, LEVEL, axis=0, method="higher") * error
        low[boot], high[boot] = estimate - half, estimate + half
        reached = (tails >= np.abs(estimate) / error).sum(0)
        p_value[boot] = (1 + reached) / (resamples + 1)
    return np.maximum(low, -1), np.minimum(high, 1), p_value, boot


def _lean(side: NDArray[np.int64]) -> FloatArray:
    """(d,) 1 where all clusters that deviate do so to one side, 0 where to both."""
    return np.asarray(np.abs(side.sum(1)) / np.abs(side).sum(1))


def _few(
    totals: FloatArray, sizes: FloatArray, side: NDArray[np.int64], least: float
) -> tuple[FloatArray, FloatArray, FloatArray, NDArray[np.bool_]]:
    """Gaffke's bounds and p-values, NaN where many clusters deviate; where that is."""
    boot = np.abs(side).sum(1) >= ENOUGH_CLUSTERS
    found = np.full((3, len(totals)), np.nan)
    for line in np.flatnonzero(~boot):
        found[:, line] = gaffke(totals[line], sizes, least)
    low, high, p_value = found
    return low, high, p_value, boot


def _ratio(totals: FloatArray, sizes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(d,) means over rows and their variances, linearised by cluster."""
    rows, m = sizes.sum(), sizes.size
    estimate = totals.sum(1) / rows
    residual = totals - estimate[:, None] * sizes
    return estimate, m / (m - 1) * (residual**2).sum(1) / rows**2


def _studentized(
    totals: FloatArray, sizes: FloatArray, resamples: int, seed: int
) -> FloatArray:
    """(resamples, d) bootstrap means less the mean, over their standard errors."""
    m = sizes.size
    estimate, _ = _ratio(totals, sizes)
    # All that a resample needs is linear in how often each cluster is drawn.
    columns = np.concatenate([totals, totals**2, totals * sizes, [sizes, sizes**2]]).T
    d, parts = len(totals), []
    draws = _draws(m, resamples, seed)
    for start in range(0, resamples, _CHUNK):
        sums = draws[start : start + _CHUNK].astype(np.float64) @ columns
        first, second, cross = (sums[:, i * d : (i + 1) * d] for i in range(3))
        rows, rows_squared = sums[:, -2, None], sums[:, -1, None]
        mean = first / rows
        squares = second - 2 * mean * cross + mean**2 * rows_squared
        error = np.sqrt(np.maximum(squares, 0) * m / (m - 1)) / rows
        shift = mean - estimate
        # A resample without spread is as far out as it can be. Where ten clusters
        # deviate there is less than one in 400, too few to reach a quantile in use.
        far = np.where(np.abs(shift) > _ROUNDING, np.copysign(np.inf, shift), 0.0)
        flat = error <= _ROUNDING
        parts.append(np.where(flat, far, shift / np.where(flat, 1, error)))
    return np.concatenate(parts)


@lru_cache(maxsize=4)
def _draws(clusters: int, resamples: int, seed: int) -> NDArray[np.uint16]:
    """(resamples, clusters) how often each cluster is drawn."""
    generator = np.random.default_rng(seed)
    parts = []
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        drawn = generator.integers(clusters, size=(count, clusters))
        drawn += np.arange(count)[:, None] * clusters
        counts = np.bincount(drawn.ravel(), minlength=count * clusters)
        parts.append(counts.reshape(count, clusters).astype(np.uint16))
    return np.concatenate(parts)
