"""Scores as features of a regression: takes scores of n rows, gives their shapes.

It knows nothing of how clones are made or of how a regression is fitted.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from axolotl_donod.pruning.donod import FloatArray
from axolotl_donod.pruning.scores import STEP_COLUMNS, Columns

# Features end here, in spreads from the centre, so that no row decides alone.
CLIP = 5.0
# Length must not become a feature, and measured steps depend on the probe's settings.
_NO_FEATURES = frozenset({"n_tokens", "don", "nod", *STEP_COLUMNS})
# Share of the rows that may lack a score that is to be a feature.
_MAY_LACK = 0.01
# A score that length explains but for this share of its deviation says nothing else.
_BEYOND_LENGTH = 0.1


@dataclass(frozen=True)
class Feature:
    """One score, made comparable: x becomes (asinh(x / unit) - centre) / spread.

    The result is clipped to five on both sides.

    Attributes:
        unit: Size of a small score; above it asinh is a logarithm with a sign.
        centre: Median of the compressed score on the rows.
        spread: The larger of its interquartile range and its standard deviation.
    """

    unit: float
    centre: float
    spread: float

    def values(self, scores: FloatArray) -> FloatArray:
        """Turn (n,) scores into (n,) features; NaN where a score is not finite."""
        values = np.arcsinh(scores / self.unit)
        values -= self.centre
        values /= self.spread
        values[~np.isfinite(values)] = np.nan
        return np.clip(values, -CLIP, CLIP, out=values)


@dataclass(frozen=True)
class Term(Feature):
    """A feature f that adds coefficient f + curvature f^2 / 2 to the log-odds."""

    coefficient: float
    curvature: float

    def log_odds(self, scores: FloatArray) -> FloatArray:
        """What (n,) scores add to the log-odds of being corrupted."""
        values = self.values(scores)
        return values * (self.coefficient + self.curvature / 2 * values)


def feature_of(scores: FloatArray, n_tokens: NDArray[np.int64]) -> Feature | None:
    """Find the shape of a score from (n,) rows, those without a finite one left out.

    Returns:
        The feature; None if the score is constant, or a power of the length but for a
        tenth of its deviation.
    """
    finite = np.isfinite(scores)
    scores, n_tokens = scores[finite], n_tokens[finite]
    sizes = np.abs(scores[scores != 0])
    if not sizes.size:
        return None
    # Scores of one sign spread over magnitudes; others must not be torn apart at zero.
    one_sign = scores.min() >= 0 or scores.max() <= 0
    unit = float(np.quantile(sizes, 0.01 if one_sign else 0.5))
    compressed = np.arcsinh(scores / unit)
    deviation = float(compressed.std())
    # Compressed scores are of the order of one: less than 1e-9 is rounding.
    least = max(_BEYOND_LENGTH * deviation, 1e-9)
    if _without_length(compressed, n_tokens).std() <= least:
        return None
    low, centre, high = (float(q) for q in np.quantile(compressed, [0.25, 0.5, 0.75]))
    return Feature(unit, centre, max(high - low, deviation))


def _without_length(compressed: FloatArray, n_tokens: NDArray[np.int64]) -> FloatArray:
    """Residuals of a line in the logarithm of the length."""
    length = np.log(np.maximum(n_tokens, 1))
    length -= length.mean()
    variance = float(length @ length)
    # Of rows of one length the variance is rounding, not zero.
    varied = variance > 1e-9 * length.size
    slope = float(length @ compressed) / variance if varied else 0.0
    return np.asarray(compressed - slope * length)


def features_of(rows: Columns, clones: Columns) -> dict[str, Feature]:
    """Find the shapes of all scores that rows and clones share, by name.

    Left out are the length, what depends on the probe, what more than 1 % of the rows
    or clones lack, and what `feature_of` refuses.
    """
    found = {}
    for name in sorted(rows.keys() & clones.keys() - _NO_FEATURES):
        if _complete(rows[name]) and _complete(clones[name]):
            feature = feature_of(rows[name], rows["n_tokens"])
            if feature is not None:
                found[name] = feature
    return found


def _complete(scores: FloatArray) -> bool:
    return bool(np.isfinite(scores).sum() >= (1 - _MAY_LACK) * scores.size)


def feature_table(features: Mapping[str, Feature], columns: Columns) -> FloatArray:
    """Features of the rows that have all of them, (rows, features)."""
    table = np.stack([f.values(columns[n]) for n, f in features.items()], axis=1)
    return np.asarray(table[np.isfinite(table).all(axis=1)])
