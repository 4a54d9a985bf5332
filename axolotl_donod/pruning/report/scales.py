"""A scale for an axis: takes values, gives one on which most can be told apart.

It knows nothing of what the values mean or of how they are drawn.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from axolotl_donod.pruning.donod import FloatArray

ROUND_STEPS = (1, 2, 5, 10)
# Greatest over least value up to which powers of ten would be too few ticks.
_NARROW = 1000


@dataclass(frozen=True)
class Scale:
    """A scale on which most of the values can be told apart, and their range."""

    name: str
    low: float
    high: float
    linear_width: float = 1.0

    @classmethod
    def of(cls, values: FloatArray, reach: float = 0.005) -> "Scale":
        """Choose the scale; a share `reach` of the values lies beyond either end."""
        finite = values[np.isfinite(values)]
        if not finite.size:
            return cls("linear", 0.0, 1.0)
        low, high = (float(x) for x in np.quantile(finite, [reach, 1 - reach]))
        if low == high:
            pad = abs(low) / 2 or 0.5
            return cls("linear", low - pad, high + pad)
        if low > 0:
            return cls("log" if high / low > 30 else "linear", low, high)
        sizes = np.abs(finite[finite != 0])
        typical, largest = np.quantile(sizes, [0.1, 0.99])
        if largest / typical > 100:
            return cls("asinh", low, high, float(typical))
        return cls("linear", low, high)

    def bins(self, count: int) -> FloatArray:
        """Edges of `count` bins that are equally wide on the scale."""
        if self.name == "log":
            return np.geomspace(self.low, self.high, count + 1)
        if self.name == "asinh":
            low, high = np.arcsinh(np.array([self.low, self.high]) / self.linear_width)
            even = np.linspace(float(low), float(high), count + 1)
            return np.asarray(np.sinh(even) * self.linear_width)
        return np.linspace(self.low, self.high, count + 1)

    def apply(self, axes: Axes, which: Literal["x", "y"], ticks: int = 6) -> None:
        """Set the scale and at most about `ticks` ticks of an axis."""
        setter = axes.set_xscale if which == "x" else axes.set_yscale
        axis = axes.xaxis if which == "x" else axes.yaxis
        if self.name == "log":
            setter("log")
            narrow = self.high / self.low < _NARROW
            axis.set_major_locator(
                FixedLocator(self._round_ticks(ticks))
                if narrow
                else LogLocator(numticks=ticks)
            )
            # Its own labels are formulas, which stay unread here.
            axis.set_minor_formatter(NullFormatter())
        elif self.name == "asinh":
            setter("asinh", linear_width=self.linear_width)
            axis.set_major_locator(FixedLocator(self._round_ticks(ticks)))
            axis.set_minor_locator(NullLocator())
        else:
            axis.set_major_locator(MaxNLocator(ticks - 1, steps=ROUND_STEPS))
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3g}"))

    def _round_ticks(self, count: int) -> list[float]:
        """Round numbers about evenly spread; matplotlib's own crowd around zero."""
        even = self.bins(count - 1)
        if self.name == "asinh":
            even[np.abs(even) < self.linear_width / 2] = 0
        return sorted({float(f"{tick:.0e}") for tick in even})
