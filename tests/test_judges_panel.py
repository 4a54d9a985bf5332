"""A panel of judges: means and agreement, worked out by hand."""

import pytest

from axolotl_donod.errors import ConfigError
from axolotl_donod.judges.judge import JudgeItem, Verdict
from axolotl_donod.judges.panel import agreement, judge_panel


class Fixed:
    def __init__(self, name, *scores):
        self.id, self.scores = name, scores

    def judge(self, items):
        for scores in self.scores:
            if scores is None:
                yield Verdict(self.id, failure="silent")
            else:
                yield Verdict(self.id, *scores, reason=f"by {self.id}")


ITEM = JudgeItem("p", "f", "r", "a")


def test_scores_are_means_and_missing_parts_stay_missing():
    panel = judge_panel(Fixed("a", (1, 0.5, None)), Fixed("b", (0.5, 0.25, None)))
    (found,) = panel.judge([ITEM])
    assert (found.full, found.reasoning, found.answer) == (0.75, 0.375, None)
    assert found.judge == panel.id == "panel(a; b)"
    assert found.reason == "a: by a; b: by b"


def test_an_item_that_one_judge_fails_for_has_no_mean():
    panel = judge_panel(Fixed("a", (1, 1, 1)), Fixed("b", None))
    (found,) = panel.judge([ITEM])
    assert found.failure == "b: silent" and found.full is None


def test_a_panel_needs_two_different_judges():
    with pytest.raises(ConfigError, match="two or more different"):
        judge_panel(Fixed("a"))
    with pytest.raises(ConfigError, match="two or more different"):
        judge_panel(Fixed("a"), Fixed("a"))


def compared(*columns):
    verdicts = {
        str(i): [Verdict(str(i), score) for score in column]
        for i, column in enumerate(columns)
    }
    return agreement(verdicts)


def test_agreement_is_what_hand_calculation_gives():
    found = compared([0.0, 0.4, 1.0], [0.2, 0.6, 0.8])["full"]
    assert found.n == 3
    assert found.mean_difference == pytest.approx(0.2)
    # 0.4 and 0.6 stand on two sides.
    assert found.same_side == pytest.approx(2 / 3)
    # Deviations -7/15, -1/15, 8/15 and -1/3, 1/15, 4/15: products sum to 0.293333.
    spread = (0.506667 * 0.186667) ** 0.5
    assert found.correlation == pytest.approx(0.293333 / spread, abs=1e-4)
    # Pairs in a row differ by 0.2, squared 0.04. All six values have mean 0.5 and
    # squared deviations 0.25 + 0.01 + 0.25 + 0.09 + 0.01 + 0.09 = 0.7, so that two
    # of them differ by 2 * 0.7 / 5 squared on average.
    assert found.alpha == pytest.approx(1 - 0.04 / 0.28)


def test_equal_judges_agree_and_constant_ones_have_no_correlation():
    equal = compared([0.1, 0.9], [0.1, 0.9])["full"]
    assert (equal.alpha, equal.same_side, equal.mean_difference) == (1, 1, 0)
    assert equal.correlation == pytest.approx(1)
    constant = compared([0.5, 0.5], [0.5, 0.5])["full"]
    assert constant.alpha is None and constant.correlation is None


def test_three_judges_are_compared_in_pairs():
    found = compared([0.0], [0.5], [1.0])["full"]
    assert found.mean_difference == pytest.approx((0.5 + 0.5 + 1) / 3)


def test_only_items_that_all_have_judged_count():
    verdicts = {
        "a": [Verdict("a", 0.5), Verdict("a", failure="x"), Verdict("a", 1, 1)],
        "b": [Verdict("b", 0.5), Verdict("b", 1), Verdict("b", 1)],
    }
    found = agreement(verdicts)
    assert found["full"].n == 2 and set(found) == {"full"}
