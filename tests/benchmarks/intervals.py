"""Means over seeds with their uncertainty: numbers in, mean and half-width out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student


@dataclass(frozen=True)
class Mean:
    """A mean over n seeds; `half` is half its 95 % t interval, NaN for one seed."""

    value: float
    half: float
    n: int

    def text(self, digits: int = 1, scale: float = 100.0) -> str:
        """As "12.3 ± 0.4", in per cent unless told."""
        if not self.n:
            return "-"
        value = f"{self.value * scale:.{digits}f}"
        if not np.isfinite(self.half):
            return value
        return f"{value} ± {self.half * scale:.{digits}f}"


def mean(values: Sequence[float]) -> Mean:
    """Mean over seeds; seeds without a value (NaN) do not count."""
    given = np.asarray([value for value in values if np.isfinite(value)])
    if not given.size:
        return Mean(float("nan"), float("nan"), 0)
    half = float("nan")
    if given.size > 1:
        error = given.std(ddof=1) / np.sqrt(given.size)
        half = float(student.ppf(0.975, given.size - 1) * error)
    return Mean(float(given.mean()), half, int(given.size))


def paired(first: Sequence[float], second: Sequence[float]) -> Mean:
    """Mean of first - second, seed by seed."""
    return mean((np.asarray(first) - np.asarray(second)).tolist())
