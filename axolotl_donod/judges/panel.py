"""Several judges as one: takes verdicts, gives their mean and how far they agree.

Knows nothing of any judge, of files or of the network.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from axolotl_donod.errors import ConfigError
from axolotl_donod.judges.judge import PARTS, Judge, JudgeItem, Verdict

_MIDDLE = 0.5


@dataclass(frozen=True)
class PartAgreement:
    """How far judges agree on one part, over the items that all of them judged.

    Attributes:
        n: Number of those items.
        mean_difference: Mean absolute difference, over items and pairs of judges.
        same_side: Share of items that all judges put on one side of 0.5; 0.5 itself
            counts as harmful.
        correlation: Mean Pearson correlation of pairs; None where a judge is constant.
        alpha: Krippendorff's alpha with the interval distance; None where all scores
            are equal.
    """

    n: int
    mean_difference: float
    same_side: float
    correlation: float | None
    alpha: float | None


@dataclass(frozen=True)
class JudgePanel:
    """A judge whose scores are the mean of several judges'."""

    judges: tuple[Judge, ...]

    def __post_init__(self) -> None:
        ids = [judge.id for judge in self.judges]
        if len(set(ids)) < len(ids) or len(ids) < 2:
            raise ConfigError(
                f"a panel takes two or more different judges, got {ids}; remove the "
                "repetition or name one judge"
            )

    @property
    def id(self) -> str:
        """Name the panel by its judges."""
        return f"panel({'; '.join(judge.id for judge in self.judges)})"

    def judge(self, items: Sequence[JudgeItem]) -> Iterator[Verdict]:
        """Ask every judge of every item and give the means, in order."""
        by_judge = (judge.judge(items) for judge in self.judges)
        for verdicts in zip(*by_judge, strict=True):
            yield self.mean(verdicts)

    def mean(self, verdicts: Sequence[Verdict]) -> Verdict:
        """Return the mean of one item's verdicts; a failure of one is one of all."""
        failures = [f"{v.judge}: {v.failure}" for v in verdicts if v.failure]
        if failures:
            return Verdict(self.id, failure="; ".join(failures))
        parts = {part: _mean([getattr(v, part) for v in verdicts]) for part in PARTS}
        reasons = (f"{v.judge}: {v.reason}" for v in verdicts if v.reason)
        return Verdict.of_parts(self.id, parts, "; ".join(reasons))


def judge_panel(*judges: Judge) -> JudgePanel:
    """Make one judge of several; its scores are their means.

    Raises:
        ConfigError: Fewer than two judges, or one of them twice.
    """
    return JudgePanel(judges)


def agreement(
    verdicts: Mapping[str, Sequence[Verdict]],
) -> dict[str, PartAgreement]:
    """Compare judges, part by part.

    Args:
        verdicts: By judge, the verdicts on the same items in the same order.

    Returns:
        Agreement by part; a part that no item has in common is missing.
    """
    found = {}
    for part in PARTS:
        columns = [[getattr(one, part) for one in given] for given in verdicts.values()]
        rows = [row for row in zip(*columns, strict=True) if None not in row]
        if rows and len(columns) > 1:
            found[part] = _agreement(rows)
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return math.fsum(given) / len(given) if given else None


def _agreement(rows: Sequence[Sequence[float]]) -> PartAgreement:
    pairs = [(a, b) for row in rows for a, b in combinations(row, 2)]
    columns = list(zip(*rows, strict=True))
    correlations = [_correlation(a, b) for a, b in combinations(columns, 2)]
    known = [value for value in correlations if value is not None]
    sides = [len({value >= _MIDDLE for value in row}) == 1 for row in rows]
    return PartAgreement(
        n=len(rows),
        mean_difference=math.fsum(abs(a - b) for a, b in pairs) / len(pairs),
        same_side=sum(sides) / len(rows),
        correlation=_mean(known) if len(known) == len(correlations) else None,
        alpha=_alpha(rows),
    )


def _correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    import numpy as np

    if len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _alpha(rows: Sequence[Sequence[float]]) -> float | None:
    """Krippendorff's alpha of complete rows: 1 - observed over expected distance.

    Both are means of squared differences of pairs: of one row, and of all values.
    """
    import numpy as np

    values = np.asarray(rows, dtype=np.float64)
    # The mean squared difference of all pairs is twice the unbiased variance.
    expected = 2 * values.var(ddof=1)
    if expected == 0:
        return None
    observed = 2 * values.var(axis=1, ddof=1).mean()
    return float(1 - observed / expected)
