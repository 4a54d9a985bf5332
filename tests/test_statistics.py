"""Intervals and tests agree with scipy, with slow oracles and with simulation."""

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from axolotl_donod.evaluation.bounds import (
    _draws,
    _studentized,
    difference_bounds,
    share_bounds,
)
from axolotl_donod.evaluation.statistics import (
    difference,
    holm,
    largest_unseen,
    least_visible,
    mcnemar,
    share,
    wilson,
)
from tests.benchmarks.coverage import Design, coverage

DRAWS = 600
# Share of draws by which a simulation of so many may miss: 3.3 standard errors.
SLACK = 3.3 * np.sqrt(0.05 * 0.95 / DRAWS)


def clustered(prompts=60, attacks=5, seed=0, rate=0.3):
    generator = np.random.default_rng(seed)
    rates = generator.beta(rate * 3, (1 - rate) * 3, prompts)
    values = generator.random((prompts, attacks)) < rates[:, None]
    return values.ravel().astype(float), np.repeat(np.arange(prompts), attacks)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (0, 440), (7, 20), (9, 9)])
def test_wilson_is_its_closed_form(successes, trials):
    z = 1.959963984540054
    rate = successes / trials
    middle = (rate + z**2 / (2 * trials)) / (1 + z**2 / trials)
    inner = rate * (1 - rate) / trials + z**2 / (4 * trials**2)
    half = z * np.sqrt(inner) / (1 + z**2 / trials)
    found = wilson(successes, trials)
    assert found.low == pytest.approx(max(0, middle - half), abs=1e-12)
    assert found.high == pytest.approx(min(1, middle + half), abs=1e-12)


def test_resolution_is_what_none_of_so_many_allows():
    assert largest_unseen(440) == pytest.approx(0.0087, abs=5e-5)
    assert largest_unseen(10) == pytest.approx(0.278, abs=5e-4)
    assert least_visible(40) == pytest.approx(6 / 40)
    assert binomtest(6, 6).pvalue < 0.05 < binomtest(5, 5).pvalue


def test_none_of_independent_rows_is_wilsons_interval():
    found = share(np.zeros(10), np.arange(10))
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(wilson(0, 10).high)


def test_rows_that_repeat_their_prompt_tell_no_more_than_one():
    """Clusters whose rows are all alike are as good as one row each."""
    once = np.array([1.0] * 4 + [0.0] * 16)
    alone = share(once, np.arange(20))
    repeated = share(np.repeat(once, 21), np.repeat(np.arange(20), 21))
    assert repeated.value == alone.value
    assert repeated.high - repeated.low >= alone.high - alone.low
    wrong = wilson(4 * 21, 20 * 21)
    assert repeated.high - repeated.low > 3 * (wrong.high - wrong.low)


def test_every_resample_is_that_of_a_loop_over_clusters():
    generator = np.random.default_rng(1)
    sizes = generator.integers(1, 6, 15).astype(float)
    totals = np.stack([generator.random(15) * sizes, generator.random(15) * sizes])
    found = _studentized(totals, sizes, 20, seed=3)
    for resample, weights in enumerate(_draws(15, 20, 3)):
        picked = np.repeat(np.arange(15), weights)
        assert picked.size == 15
        for line, total in enumerate(totals):
            mean = total[picked].sum() / sizes[picked].sum()
            residual = total[picked] - mean * sizes[picked]
            error = np.sqrt(15 / 14 * (residual**2).sum()) / sizes[picked].sum()
            expected = (mean - total.sum() / sizes.sum()) / error
            assert found[resample, line] == pytest.approx(expected)


def test_agrees_with_scipys_bootstrap_where_that_is_good():
    values, clusters = clustered(prompts=300)
    means = values.reshape(300, 5).mean(1)
    theirs = bootstrap((means,), np.mean, rng=0, n_resamples=4999, method="BCa")
    ours = share(values, clusters)
    assert ours.method == "cluster bootstrap-t"
    low, high = theirs.confidence_interval
    assert ours.low == pytest.approx(low, abs=0.1 * (high - low))
    assert ours.high == pytest.approx(high, abs=0.1 * (high - low))


def test_order_and_names_of_prompts_do_not_matter():
    values, clusters = clustered()
    order = np.random.default_rng(0).permutation(values.size)
    names = np.array([f"p{c:03d}" for c in clusters], dtype=object)
    assert share(values[order], names[order]) == share(values, names)


def test_the_same_seed_gives_the_same_bounds_and_another_nearly():
    values, clusters = clustered()
    assert share(values, clusters) == share(values, clusters)
    one, other = share(values, clusters, seed=1), share(values, clusters, seed=2)
    assert one.low != other.low
    assert one.low == pytest.approx(other.low, abs=0.01)


def test_several_shares_at_once_are_each_alone():
    generator = np.random.default_rng(0)
    totals = generator.integers(0, 4, (6, 30)).astype(float)
    totals[0] = 0
    sizes = np.full(30, 3.0)
    together = share_bounds(totals, sizes)
    for line in range(6):
        alone = share_bounds(totals[line : line + 1], sizes)
        assert [part[line] for part in together] == [part[0] for part in alone]
    assert together[2].tolist() == [False] + [True] * 5


def test_nothing_observed_has_no_bounds():
    assert share([], []).rows == 0
    estimate, p_value = difference([], [], [])
    assert np.isnan([estimate.low, estimate.value, p_value]).all()
    assert wilson(0, 0).rows == 0


def test_one_prompt_tells_nearly_nothing():
    found = share([1, 1, 0], ["a"] * 3)
    assert found.low < 0.05
    assert found.high > 0.95
    estimate, p_value = difference([1, 1], [0, 0], ["a", "a"])
    assert (estimate.low, estimate.high, p_value) == (-1, 1, 1)


def test_few_changed_prompts_are_the_exact_sign_test():
    values, others = np.zeros(40), np.zeros(40)
    values[:7], others[7:9] = 1, 1
    estimate, p_value = difference(values, others, np.arange(40))
    assert p_value == pytest.approx(binomtest(7, 9).pvalue)
    assert p_value == pytest.approx(mcnemar(values, others)[2])
    assert estimate.value == pytest.approx(5 / 40)


def test_a_difference_and_its_p_value_agree():
    """Zero lies within the interval when, and only when, p is above 5 %."""
    generator = np.random.default_rng(4)
    sizes = np.full(50, 3.0)
    changes = generator.integers(-1, 2, (40, 50, 3)) + (
        generator.random((40, 50, 3)) < 0.13
    )
    totals, squares = changes.sum(2).astype(float), (changes**2).sum(2).astype(float)
    low, high, p_value, boot = difference_bounds(totals, squares, sizes)
    assert boot.all()
    inside = (low <= 0) & (high >= 0)
    clear = np.abs(p_value - 0.05) > 0.002
    assert (inside == (p_value > 0.05))[clear].all()
    assert 5 < inside.sum() < 35


def test_swapping_the_models_turns_the_difference_around():
    values, clusters = clustered(seed=1)
    others, _ = clustered(seed=2)
    one, p_one = difference(values, others, clusters)
    other, p_other = difference(others, values, clusters)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert p_one == p_other


def test_mcnemar_counts_the_pairs_that_differ():
    gained, lost, p_value = mcnemar([1] * 8 + [0, 1], [0] * 8 + [0, 1])
    assert (gained, lost) == (8, 0)
    assert p_value == pytest.approx(2 * 0.5**8)
    assert mcnemar([1, 0], [1, 0]) == (0, 0, 1.0)


def test_holm_multiplies_by_the_tests_that_are_left():
    # 0.01 * 3, then 0.03 * 2, then the greater of 0.04 * 1 and what came before.
    assert holm([0.01, 0.04, float("nan"), 0.03]) == pytest.approx(
        [0.03, 0.06, float("nan"), 0.06], nan_ok=True
    )
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    "design",
    [
        Design(440, 5, 0.02, 0.4),
        Design(40, 5, 0.3, 0.4),
        Design(20, 21, 0.5, 0.1),
        Design(440, 1, 0.1, 0.1),
        Design(100, 5, 0.9, 0.4),
        Design(100, 5, 0.3, 0.4, other=0.2),
        Design(40, 5, 0.5, 0.1, other=0.5),
    ],
    ids=lambda design: design.name,
)
def test_intervals_hold_the_truth_in_93_to_97_of_100_draws(design):
    covered = coverage(design, DRAWS, resamples=599).covered
    assert 0.93 - SLACK < covered < 0.97 + SLACK


@pytest.mark.parametrize("rate", [0.005, 0.995])
def test_rare_outcomes_of_few_prompts_are_covered_all_the_same(rate):
    """There a plain bootstrap collapses: most draws see no outcome at all."""
    assert coverage(Design(10, 5, rate, 0.4), DRAWS).covered > 0.93 - SLACK
