"""Bounds of clustered shares and differences: takes cluster totals, gives intervals.

All of it is vectorised over several shares of the same clusters. Knows nothing of what
a share means.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

FloatArray = NDArray[np.float64]
LEVEL = 0.95
RESAMPLES = 4_999
# Clusters that differ in outcome from which on the bootstrap is trusted.
ENOUGH_CLUSTERS = 10
# Weight of the prior guess that all rows of a cluster come out alike.
_PRIOR = 4.0
_CHUNK = 250
_ROUNDING = 1e-12


def share_bounds(
    totals: FloatArray, sizes: FloatArray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Bounds of d shares at once, from the totals of their clusters.

    With at least `ENOUGH_CLUSTERS` clusters that hold a success and as many that hold
    a failure: the equal-tailed bootstrap-t (Efron 1981) over clusters. With fewer, its
    percentiles collapse; then Wilson's interval at the effective sample size n / deff
    with a t quantile (Korn and Graubard 1998), where the design effect is drawn to
    that of clusters that come out all alike, the more the fewer clusters differ.

    Args:
        totals: (d, m) sum of the values of each cluster.
        sizes: (m,) values of each cluster, at least 1.
        resamples: Bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        (d,) lower bounds, (d,) upper bounds, (d,) whether they are the bootstrap's.
    """
    estimate, variance = _ratio(totals, sizes)
    differing = np.minimum(
        (totals > _ROUNDING).sum(1), (totals < sizes - _ROUNDING).sum(1)
    )
    independent = estimate * (1 - estimate) / sizes.sum()
    size = _effective_size(variance, independent, differing, sizes)
    low, high = _wilson_at(estimate, size, _quantile(sizes))
    boot = differing >= ENOUGH_CLUSTERS
    if boot.any():
        tails = _studentized(totals[boot], sizes, resamples, seed)
        few, many = np.quantile(tails, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        error = np.sqrt(variance[boot])
        low[boot] = estimate[boot] - many * error
        high[boot] = estimate[boot] - few * error
    return np.clip(low, 0, 1), np.clip(high, 0, 1), boot


def difference_bounds(
    totals: FloatArray,
    squares: FloatArray,
    sizes: FloatArray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[FloatArray, FloatArray, FloatArray, NDArray[np.bool_]]:
    """Bounds and p-values of d mean paired differences at once.

    With at least `ENOUGH_CLUSTERS` clusters that differ: the symmetric bootstrap-t over
    clusters, whose p-value agrees with its interval. With fewer: the interval of
    Agresti and Min (2005) at the effective sample size of `share_bounds`, and the exact
    test that flips the sign of whole clusters.

    Args:
        totals: (d, m) sum of the differences of each cluster.
        squares: (d, m) sum of their squares.
        sizes: (m,) pairs of each cluster, at least 1.
        resamples: Bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        (d,) lower bounds, upper bounds, p-values, and whether they are the bootstrap's.
    """
    estimate, variance = _ratio(totals, sizes)
    differing = (squares > _ROUNDING).sum(1)
    moved = squares.sum(1) / sizes.sum()
    independent = (moved - estimate**2) / sizes.sum()
    size = _effective_size(variance, independent, differing, sizes)
    center, half = _agresti_min_at(estimate, moved, size, _quantile(sizes))
    p_value = np.array(
        [_sign_flips(t) if k else 1.0 for t, k in _few(totals, differing)]
    )
    boot = differing >= ENOUGH_CLUSTERS
    if boot.any():
        tails = np.abs(_studentized(totals[boot], sizes, resamples, seed))
        error = np.sqrt(variance[boot])
        center[boot] = estimate[boot]
        half[boot] = np.quantile(tails, LEVEL, axis=0, method="higher") * error
        observed = np.abs(estimate[boot]) / np.maximum(error, _ROUNDING)
        p_value[boot] = (1 + (tails >= observed).sum(0)) / (resamples + 1)
    low, high = np.maximum(center - half, -1), np.minimum(center + half, 1)
    return low, high, p_value, boot


def _few(
    totals: FloatArray, differing: NDArray[np.int64]
) -> Iterator[tuple[FloatArray, int]]:
    """Totals where clusters are few enough to flip, with 0 clusters elsewhere."""
    for row, count in zip(totals, differing, strict=True):
        yield row, int(count) if count < ENOUGH_CLUSTERS else 0


def _sign_flips(totals: FloatArray) -> float:
    moved = totals[np.abs(totals) > _ROUNDING]
    signs = np.array(list(product((-1.0, 1.0), repeat=moved.size)))
    reached = np.abs(signs @ moved) >= abs(moved.sum()) - _ROUNDING
    return float(reached.mean())


def _ratio(totals: FloatArray, sizes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(d,) means over rows and their variances, linearised by cluster."""
    rows, m = sizes.sum(), sizes.size
    estimate = totals.sum(1) / rows
    residual = totals - estimate[:, None] * sizes
    scale = m / (m - 1) if m > 1 else float("nan")
    return estimate, scale * (residual**2).sum(1) / rows**2


def _effective_size(
    variance: FloatArray,
    independent: FloatArray,
    differing: NDArray[np.int64],
    sizes: FloatArray,
) -> FloatArray:
    """Independent rows that would tell as much as the clustered ones, as (d,)."""
    # Kish's design effect of clusters whose rows all come out alike.
    largest = float((sizes**2).sum() / sizes.sum())
    known = (independent > _ROUNDING**2) & np.isfinite(variance)
    effect = np.where(known, variance / np.where(known, independent, 1), largest)
    weight = differing.astype(float) ** 2
    effect = (weight * effect + _PRIOR * largest) / (weight + _PRIOR)
    # Clusters of one row vary as the rows do, where values are between 0 and 1 less.
    least = 1.0 if largest > 1 else _ROUNDING
    return np.asarray(sizes.sum() / np.maximum(effect, least))


def _wilson_at(
    estimate: FloatArray, size: FloatArray, quantile: float
) -> tuple[FloatArray, FloatArray]:
    square = quantile**2 / size
    center = (estimate + square / 2) / (1 + square)
    inner = estimate * (1 - estimate) / size + square / (4 * size)
    half = quantile * np.sqrt(np.maximum(inner, 0)) / (1 + square)
    return center - half, center + half


def _agresti_min_at(
    estimate: FloatArray, moved: FloatArray, size: FloatArray, quantile: float
) -> tuple[FloatArray, FloatArray]:
    # Half a pair is added to each of the four outcomes of a pair.
    center = estimate * size / (size + 2)
    spread = np.maximum((moved * size + 1) / (size + 2) - center**2, 0) / (size + 2)
    return center, quantile * np.sqrt(spread)


def _quantile(sizes: FloatArray) -> float:
    if sizes.max() == 1:
        return float(norm.ppf((1 + LEVEL) / 2))
    # One cluster tells nothing of how clusters differ: two are the least.
    return float(student.ppf((1 + LEVEL) / 2, max(1, sizes.size - 1)))


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
        # A resample without spread is as far out as it can be.
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
