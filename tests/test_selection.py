"""Budgets, their rounding, and the reason every row gets."""

import math
from fractions import Fraction

import numpy as np
import pytest

from axolotl_donod.errors import ConfigError, DataError
from axolotl_donod.pruning.ranking import Ranking, rank_rows
from axolotl_donod.pruning.selection import select


def make_ranking(closeness, n_tokens=None):
    closeness = np.asarray(closeness, dtype=float)
    tokens = np.ones(closeness.size) if n_tokens is None else n_tokens
    return Ranking(
        n_tokens=np.asarray(tokens, dtype=np.int64),
        don=closeness,
        nod=closeness,
        closeness=closeness,
        rank=rank_rows(closeness),
        learning_rate=1.0,
        crossover_median=1.0,
        crossover_q95=1.0,
    )


def test_keeps_the_best_rows_and_says_why():
    closeness = [0.1, np.nan, 0.9, np.nan, 0.5]
    selection = select(make_ranking(closeness, [3, 0, 4, 2, 1]), keep_rows=2)
    assert selection.kept.tolist() == [False, False, True, False, True]
    assert selection.reason.tolist() == [
        "rank below the cut",
        "no trained tokens",
        "kept",
        "non-finite score",
        "kept",
    ]
    assert selection.budget == 2


def test_keeps_the_first_rows_when_scores_tie():
    selection = select(make_ranking([0.5] * 5), keep_rows=3)
    assert selection.kept.tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("n_rows", [1, 2, 3, 7, 10, 1000])
@pytest.mark.parametrize("eighths", range(1, 9))
def test_a_share_rounds_half_up_and_keeps_at_least_one_row(n_rows, eighths):
    # Eighths are exact in binary, so the halves are true halves.
    share = Fraction(eighths, 8)
    expected = max(1, math.floor(share * n_rows + Fraction(1, 2)))
    selection = select(make_ranking(np.linspace(1, 0, n_rows)), float(share))
    assert selection.kept.sum() == selection.budget == expected


def test_a_share_is_of_all_rows_and_unscored_rows_do_not_fill_it():
    closeness = [0.2, np.nan, np.nan, 0.1]
    assert select(make_ranking(closeness), 0.25).kept.tolist() == [1, 0, 0, 0]
    everything = select(make_ranking(closeness), 1.0)
    assert everything.kept.tolist() == [1, 0, 0, 1]
    assert everything.budget == 4
    assert select(make_ranking(closeness), keep_rows=3).kept.sum() == 2


def test_more_rows_than_there_are_is_an_error():
    with pytest.raises(DataError, match=r"keep_rows .* got 6 of 5 rows; lower it"):
        select(make_ranking([0.5] * 5), keep_rows=6)
    assert select(make_ranking([0.5] * 5), keep_rows=5).kept.all()


def test_no_rows_is_an_error():
    with pytest.raises(DataError, match="no rows"):
        select(make_ranking([]), 0.5)


@pytest.mark.parametrize("budget", [{}, {"keep_fraction": 0.5, "keep_rows": 2}])
def test_exactly_one_budget_is_needed(budget):
    with pytest.raises(ConfigError, match="exactly one"):
        select(make_ranking([0.5] * 5), **budget)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.0001, 30.0, float("nan")])
def test_a_share_outside_its_range_is_an_error(share):
    with pytest.raises(ConfigError, match=r"must be in \(0, 1\]"):
        select(make_ranking([0.5] * 5), share)
