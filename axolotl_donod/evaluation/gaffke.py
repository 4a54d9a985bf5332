"""Bounds of a mean that few clusters tell of: takes cluster totals, gives an interval.

Gaffke (2005) adds to m clusters one that turned out as badly as it may, and weighs all
m + 1 by a flat Dirichlet distribution; its 2.5 % quantile is the lower bound. Where all
values are 0 or 1, one per cluster, these are Clopper and Pearson's bounds, and the test
of paired differences is McNemar's exact one. Knows nothing of what a mean stands for.
"""

from functools import lru_cache
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

FloatArray = NDArray[np.float64]
LEVEL = 0.95
# How slowly the largest deviation seen is taken for the largest there is.
_PRIOR = 4.0
_DIGITS = 9
# Chances are exact to about the power of e less this.
_REACH = 20.0


def sides(
    totals: FloatArray, sizes: FloatArray
) -> tuple[FloatArray, NDArray[np.int64]]:
    """(d,) median of the means of clusters, and (d, m) on which side of it each lies.

    Args:
        totals: (d, m) sum of the values of each cluster.
        sizes: (m,) values of each cluster, at least 1.

    Returns:
        The medians, and -1, 0 or 1; a cluster whose side is not 0 deviates.
    """
    means = totals / sizes
    centre = np.median(means, axis=1)
    away = np.round(means - centre[:, None], _DIGITS)
    return centre, np.sign(away).astype(np.int64)


def gaffke(
    totals: FloatArray, sizes: FloatArray, least: float
) -> tuple[float, float, float]:
    """Lower bound, upper bound and two-sided p-value of a mean of 0.

    Zero lies within the bounds when, and only when, p is at least 1 - `LEVEL`.

    Args:
        totals: (m,) sum of the values of each cluster.
        sizes: (m,) values of each cluster, at least 1.
        least: Least value that there is: 0 of a share, -1 of a difference; the
            greatest is 1.
    """
    low_end, high_end = _ends(totals, sizes, least)
    given = np.stack([np.round(totals, _DIGITS), sizes])
    groups, counts = np.unique(given, axis=1, return_counts=True)
    key = tuple(map(tuple, groups.tolist())), tuple(counts.tolist())
    return _bounds(*key[0], key[1], low_end, high_end)


def _ends(totals: FloatArray, sizes: FloatArray, least: float) -> tuple[float, float]:
    """Means of the worst clusters that may have gone unseen, downwards and upwards.

    Without a deviation to judge by, anything that there is. The more clusters deviate,
    the more the largest deviation is trusted, to either side. A difference may be as
    large the other way round.
    """
    centres, side = sides(totals[None], sizes)
    means, centre = totals / sizes, float(centres[0])
    seen = float(np.abs(means - centre).max())
    unknown = _PRIOR / (_PRIOR + int(np.abs(side).sum()) ** 2)
    low = centre - seen - unknown * max(0.0, centre - seen - least)
    high = centre + seen + unknown * max(0.0, 1 - centre - seen)
    if least < 0:
        turned = float(np.abs(means).max())
        low, high = min(low, -turned), max(high, turned)
    return max(low, least), min(high, 1.0)


@lru_cache(maxsize=4096)
def _bounds(
    totals: tuple[float, ...],
    sizes: tuple[float, ...],
    counts: tuple[int, ...],
    low_end: float,
    high_end: float,
) -> tuple[float, float, float]:
    up = np.array(totals), np.array(sizes), np.array(counts, dtype=np.float64)
    down = -up[0], up[1], up[2]
    low, high = _lower(*up, low_end), -_lower(*down, -high_end)
    reached = min(_below(0.0, *up, low_end), _below(0.0, *down, -high_end))
    return low, high, min(1.0, 2 * reached)


def _lower(
    totals: FloatArray, sizes: FloatArray, counts: FloatArray, end: float
) -> float:
    top = float((totals / sizes).max())
    if top - end < 10**-_DIGITS:
        return end

    def missing(mean: float) -> float:
        return _below(mean, totals, sizes, counts, end) - (1 - LEVEL) / 2

    return float(brentq(missing, end, top, xtol=1e-7))


def _below(
    mean: float, totals: FloatArray, sizes: FloatArray, counts: FloatArray, end: float
) -> float:
    """Chance that the weighed mean is at most `mean`.

    Dirichlet weights are exponential variables over their sum, so that it is the chance
    of a sum of gamma variables to be at most 0: the integral of Gil-Pelaez (1951), over
    the logarithm of its variable.
    """
    scales = np.append(totals - mean * sizes, (end - mean) * sizes.max())
    shapes = np.append(counts, 1.0)
    order = np.argsort(-np.abs(scales))
    scales, shapes = scales[order], shapes[order]
    if abs(scales[0]) < 10**-_DIGITS:
        return 1.0
    scales = scales / abs(scales[0])
    # Outside, what is integrated is below e to the power of -_REACH: a sine of less,
    # and a product of (1 + scale^2 u^2)^(-shape / 2), of which some factors are enough.
    left = -_REACH - log(shapes @ np.abs(scales))
    drop = np.cumsum(shapes * np.log(np.maximum(np.abs(scales), 1e-300)))
    right = float(((_REACH - drop) / np.cumsum(shapes)).min())
    step = min(0.25, 1 / sqrt(shapes.sum()))
    points = np.outer(scales, np.exp(np.arange(left, right, step)))
    damping = np.exp(-shapes @ np.log1p(points**2) / 2)
    integral = step * float(np.sin(shapes @ np.arctan(points)) @ damping)
    return min(1.0, max(0.0, 0.5 - integral / np.pi))
