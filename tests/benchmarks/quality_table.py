"""Measured margins of all cells in, tables for people and one summary out.

Intervals are 95 % percentile bootstraps that resample seeds and pairs at once. The
same draws serve every arm, so that differences between arms are paired. With three
seeds they are somewhat too narrow.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.benchmarks.quality_cell import ARMS, UNIFORM
from tests.benchmarks.quality_data import KINDS
from tests.benchmarks.real_data import SEGMENTS

DRAWS = 2000
BASELINE = "dpo"

Pair = Mapping[str, Any]
Result = Mapping[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"

    def plain(self) -> list[float]:
        """For JSON: mean, low, high."""
        return [round(value, 4) for value in (self.mean, self.low, self.high)]


@dataclass(frozen=True)
class Measure:
    """A number of some pairs; those for which `value` gives None are left out."""

    name: str
    value: Callable[[Pair], float | None]


def _total(pair: Pair) -> float:
    return float(pair["reasoning"] + pair["answer"])


def worse_margin(pair: Pair) -> float | None:
    """Mean margin of the segments that the scores call worse."""
    found = [pair[name] for name in SEGMENTS if pair[f"{name}_worse"]]
    return sum(found) / len(found) if found else None


def other_margin(pair: Pair) -> float | None:
    """Margin of the segment that is as good on both sides, beside a worse one."""
    flags = [pair[f"{name}_worse"] for name in SEGMENTS]
    return float(pair[SEGMENTS[flags.index(False)]]) if sum(flags) == 1 else None


def _where_differing(segment: str) -> Callable[[Pair], float | None]:
    return lambda pair: pair[segment] if pair[f"{segment}_differs"] else None


def _of(kind: str, value: Callable[[Pair], float | None]) -> Any:
    return lambda pair: value(pair) if pair["kind"] == kind else None


def _correct(value: Callable[[Pair], float | None]) -> Any:
    def accuracy(pair: Pair) -> float | None:
        margin = value(pair)
        return None if margin is None else float(margin > 0)

    return accuracy


_REAL = {
    "whole": _total,
    "whole, hh": _of("hh", _total),
    "reasoning": _where_differing("reasoning"),
    "answer": _where_differing("answer"),
    "worse segment": worse_margin,
    "other segment": other_margin,
}
REAL = [Measure(f"margin, {name}", value) for name, value in _REAL.items()]
REAL += [
    Measure(f"accuracy, {name}", _correct(value))
    for name, value in _REAL.items()
    if name != "other segment"
]
SYNTHETIC = [
    Measure(f"{kind}: {segment} margin", _of(kind, lambda p, s=segment: p[s]))
    for kind in KINDS
    for segment in SEGMENTS
]
SYNTHETIC += [
    Measure("worse segment, all kinds", worse_margin),
    Measure("other segment, all kinds", other_margin),
    Measure("worse minus other", lambda p: _contrast(p)),
]


def _contrast(pair: Pair) -> float | None:
    worse, other = worse_margin(pair), other_margin(pair)
    return None if worse is None or other is None else worse - other


def measures(data: str) -> list[Measure]:
    """What is reported of a set."""
    return SYNTHETIC if data == "synthetic" else REAL


def estimates(
    results: Sequence[Result], data: str
) -> dict[str, dict[str, dict[str, Estimate]]]:
    """By measure and arm: `value`, and `over_dpo` and `over_uniform` where they apply.

    Args:
        results: JSON of all cells of one budget.
        data: `synthetic` or `real`.
    """
    found: dict[str, dict[str, dict[str, Estimate]]] = {}
    for measure in measures(data):
        table = {arm: _matrix(results, data, arm, measure) for arm in ARMS}
        table = {arm: matrix for arm, matrix in table.items() if matrix.size}
        found[measure.name] = {}
        for arm, matrix in table.items():
            own = {"value": estimate(matrix)}
            for name, base in (("over_dpo", BASELINE), ("over_uniform", UNIFORM)):
                if base in table and arm not in (base, BASELINE):
                    own[name] = estimate(matrix - table[base])
            found[measure.name][arm] = own
    return found


def _matrix(
    results: Sequence[Result], data: str, arm: str, measure: Measure
) -> np.ndarray:
    """[seeds, pairs]."""
    rows = [
        [value for value in map(measure.value, result["pairs"]) if value is not None]
        for result in sorted(results, key=lambda result: result["cell"]["seed"])
        if (result["cell"]["data"], result["cell"]["arm"]) == (data, arm)
    ]
    return np.array(rows, dtype=float)


def estimate(matrix: np.ndarray) -> Estimate:
    """Mean of [seeds, pairs] and its interval."""
    draw = np.random.default_rng(0)
    n_seeds, n_pairs = matrix.shape
    seeds = draw.integers(n_seeds, size=(DRAWS, n_seeds))
    pairs = draw.integers(n_pairs, size=(DRAWS, n_pairs))
    means = [
        matrix[np.ix_(own, picked)].mean()
        for own, picked in zip(seeds, pairs, strict=True)
    ]
    low, high = np.percentile(means, (2.5, 97.5))
    return Estimate(float(matrix.mean()), float(low), float(high))


def markdown(results: Sequence[Result], data: str) -> str:
    """One table of values and one of differences from DPO."""
    found = estimates(results, data)
    arms = [arm for arm in ARMS if any(arm in row for row in found.values())]
    text = ""
    for title, key in (
        ("mean and 95 % interval", "value"),
        ("difference from dpo", "over_dpo"),
        (f"difference from {UNIFORM}", "over_uniform"),
    ):
        columns = [
            arm for arm in arms if any(key in r.get(arm, {}) for r in found.values())
        ]
        if not columns:
            continue
        text += f"\n{data}, held-out pairs: {title}\n\n"
        text += "| | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1)
        text += "|\n"
        for name, row in found.items():
            cells = [str(row.get(arm, {}).get(key, "")) for arm in columns]
            text += f"| {name} | " + " | ".join(cells) + " |\n"
    return text


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """The estimates of both sets as plain lists."""
    return {
        data: {
            measure: {
                arm: {key: value.plain() for key, value in row.items()}
                for arm, row in arms.items()
            }
            for measure, arms in estimates(results, data).items()
        }
        for data in ("synthetic", "real")
    }
