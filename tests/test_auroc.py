"""AUROC, intervals and shares against scikit-learn, slow loops and simulations."""

import itertools

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from axolotl_donod.pruning.audit.auroc import (
    SAMPLE_ROWS,
    Resampling,
    auroc_within_length,
    kept_chances,
    placements,
)


def values(seed, n_rows, n_clones, *, tied):
    rng = np.random.default_rng(seed)
    rows, clones = rng.normal(0.5, 1, n_rows), rng.normal(0, 1, n_clones)
    return (rows.round(), clones.round()) if tied else (rows, clones)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("n_rows", "n_clones"), [(1, 1), (7, 1), (1, 9), (500, 60)])
def test_placements_average_to_the_auroc(n_rows, n_clones, tied):
    rows, clones = values(0, n_rows, n_clones, tied=tied)
    truth = np.repeat([1, 0], [n_rows, n_clones])
    expected = roc_auc_score(truth, np.concatenate([rows, clones]))
    assert placements(rows, clones).mean() == pytest.approx(expected, abs=1e-12)


def test_nan_ranks_below_every_number_and_level_with_itself():
    rows, clones = np.array([1.0, -np.inf, np.nan, np.nan]), np.array([np.nan, 0.0])
    # Three rows share the end with the first clone; one is above the second.
    assert placements(rows, clones).tolist() == [(1 + 3 / 2) / 4, 1 / 4]


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_interval_covers_the_truth_as_often_as_it_says(shift):
    truth = norm.cdf(shift / np.sqrt(2))
    rng, resampling = np.random.default_rng(0), Resampling(300, np.arange(60), 0)
    hits = 0
    for _ in range(400):
        rows, clones = rng.normal(shift, 1, 300), rng.normal(0, 1, 60)
        low, high = resampling.interval(rows, clones)
        hits += low <= truth <= high
    # Binomial(400, 0.95) lies within 366 and 393 with 99.8 %.
    assert 366 <= hits <= 393


def test_the_interval_covers_the_truth_where_clones_share_a_parent():
    rng, parents = np.random.default_rng(0), np.repeat(np.arange(40), 6)
    together = [Resampling(300, parents, seed) for seed in range(5)]
    apart = Resampling(300, np.arange(240), 0)
    hits = np.zeros(2)
    for turn in range(400):
        rows = rng.normal(0, 1, 300)
        clones = np.repeat(rng.normal(0, 1, 40), 6) + rng.normal(0, 0.1, 240)
        both = together[turn % 5], apart
        ends = [resampling.interval(rows, clones) for resampling in both]
        hits += [low <= 0.5 <= high for low, high in ends]
    assert hits[0] >= 366
    assert hits[1] < 340, "the families of this simulation do not matter"


def test_the_interval_is_that_of_resampling_one_by_one():
    rows, clones = values(5, 80, 30, tied=True)
    parents = np.arange(30) // 2
    rng = np.random.default_rng(1)
    aurocs = []
    for _ in range(2000):
        drawn = rows[rng.integers(80, size=80)]
        families = rng.integers(15, size=15)
        members = np.concatenate([np.flatnonzero(parents == f) for f in families])
        aurocs.append(placements(drawn, clones[members]).mean())
    expected = np.quantile(aurocs, [0.025, 0.975])
    found = Resampling(80, parents, 0).interval(rows, clones)
    # The ends of such quantiles scatter by about 0.004.
    assert found == pytest.approx(expected, abs=0.015)


def test_intervals_repeat_from_the_seed():
    rows, clones = values(0, 100, 20, tied=False)
    first, again, other = (
        Resampling(100, np.arange(20), seed).interval(rows, clones)
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_many_rows_are_thinned_without_bias():
    rng = np.random.default_rng(0)
    # The rows in order of value: a sample of the first ones would be far off.
    rows, clones = np.sort(rng.normal(0, 1, 10 * SAMPLE_ROWS)), rng.normal(0, 1, 400)
    low, high = Resampling(rows.size, np.arange(400), 0).interval(rows, clones)
    assert low < placements(rows, clones).mean() < high
    assert high - low < 0.08


def test_one_clone_and_one_row_have_an_interval():
    one = Resampling(1, np.array([0]), 0)
    assert one.interval(np.array([1.0]), np.array([0.0])) == (1.0, 1.0)


def test_length_alone_tells_little_within_length():
    rng = np.random.default_rng(0)
    lengths, short = rng.integers(1, 1000, 5000), rng.integers(1, 300, 500)
    assert placements(lengths * 1.0, short * 1.0).mean() > 0.84
    within = auroc_within_length(lengths * 1.0, short * 1.0, lengths, short)
    # Within a stratum some length is left.
    assert 0.5 < within < 0.6


def test_within_length_averages_the_aurocs_of_the_strata_over_clones():
    rng = np.random.default_rng(2)
    rows, clones = rng.normal(size=400), rng.normal(size=90)
    of_rows, of_clones = rng.integers(1, 100, 400), rng.integers(1, 60, 90)
    edges = [-np.inf, *np.quantile(of_rows, [0.2, 0.4, 0.6, 0.8]), np.inf]
    total, count = 0.0, 0
    for low, high in itertools.pairwise(edges):
        here = clones[(of_clones > low) & (of_clones <= high)]
        there = rows[(of_rows > low) & (of_rows <= high)]
        if here.size and there.size:
            truth = np.repeat([1, 0], [there.size, here.size])
            area = roc_auc_score(truth, np.concatenate([there, here]))
            total, count = total + area * here.size, count + here.size
    found = auroc_within_length(rows, clones, of_rows, of_clones)
    assert found == pytest.approx(total / count)


def test_clones_without_a_row_of_like_length_have_no_auroc_within():
    lengths = np.full(10, 50)
    assert auroc_within_length(np.ones(10), np.ones(1), lengths, np.array([60])) is None


def test_kept_chances_average_over_all_orders_of_ties():
    rows, clones = np.array([3.0, 2.0, 2.0, 1.0]), np.array([2.0, 1.0, np.nan])
    together = np.concatenate([rows, clones])
    for count in range(1, 7):
        totals, orders = np.zeros(3), list(itertools.permutations(range(7)))
        for order in orders:
            ranked = sorted(
                (i for i in order if not np.isnan(together[i])),
                key=lambda i: -together[i],
            )
            kept = set(ranked[:count])
            totals += [i in kept for i in (4, 5, 6)]
        chances, kept_count = kept_chances(rows, clones, count)
        assert kept_count == min(count, 6)
        assert chances == pytest.approx(totals / len(orders))


def test_nothing_is_kept_where_nothing_has_a_value():
    chances, count = kept_chances(np.full(5, np.nan), np.full(2, np.nan), 3)
    assert (chances.tolist(), count) == ([0.0, 0.0], 0)
