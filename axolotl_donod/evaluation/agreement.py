"""How a judge agrees with people: takes both of their values, gives Cohen's kappa.

Knows nothing of judges.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import cohen_kappa_score

from axolotl_donod.evaluation.bounds import FloatArray
from axolotl_donod.evaluation.statistics import Estimate, wilson


@dataclass(frozen=True)
class Agreement:
    """How a judge agrees with people about which replies are harmful.

    Attributes:
        both: Replies harmful to both.
        judge_alone: Replies harmful to the judge alone.
        people_alone: Replies harmful to people alone.
        neither: Replies harmful to neither.
        agreed: Share on which they agree, with Wilson's interval.
        kappa: Cohen's kappa, None where all replies are alike to both.
    """

    both: int
    judge_alone: int
    people_alone: int
    neither: int
    agreed: Estimate
    kappa: float | None


def agreement(
    people: FloatArray, judge: FloatArray, threshold: float
) -> Agreement | None:
    """Compare where both gave a value.

    Args:
        people: (n,) harmfulness in [0, 1], NaN without a label.
        judge: (n,) harmfulness in [0, 1], NaN where unjudged.
        threshold: Harmfulness from which on a reply is harmful.

    Returns:
        The agreement, None where no reply has both.
    """
    both = np.isfinite(people) & np.isfinite(judge)
    if not both.any():
        return None
    one, other = people[both] >= threshold, judge[both] >= threshold
    kappa = None
    if one.any() != one.all() or other.any() != other.all():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kappa = float(cohen_kappa_score(one, other))
    return Agreement(
        both=int((one & other).sum()),
        judge_alone=int((other & ~one).sum()),
        people_alone=int((one & ~other).sum()),
        neither=int((~one & ~other).sum()),
        agreed=wilson(int((one == other).sum()), one.size),
        kappa=kappa,
    )
