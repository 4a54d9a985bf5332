"""TOPSIS against a slow oracle and a hand-worked table; presets and ties."""

import math

import numpy as np
import pytest

from axolotl_donod.donod_config import DonodConfig
from axolotl_donod.errors import ConfigError, ScoringError
from axolotl_donod.pruning.donod import don, nod
from axolotl_donod.pruning.panel import PANEL
from axolotl_donod.pruning.ranking import rank_rows, rank_scores, topsis

EQUAL = {"don": 0.5, "nod": 0.5}
PUBLISHED = {"don": "max", "nod": "min"}
NORMALIZATIONS = ["vector", "minmax", "rank"]


def slow_normalise(values, normalization):
    if normalization == "vector":
        length = math.sqrt(sum(v * v for v in values))
        return [v / length if length else 0.0 for v in values]
    if normalization == "minmax":
        low, high = min(values), max(values)
        return [(v - low) / (high - low) if high > low else 0.0 for v in values]
    below = [sum(other < v for other in values) for v in values]
    ties = [sum(other == v for other in values) - 1 for v in values]
    return [(b + t / 2) / (len(values) - 1) for b, t in zip(below, ties, strict=True)]


def slow_topsis(criteria, weights, goals, normalization):
    """The textbook, one row at a time."""
    table = {
        name: [weights[name] * v for v in slow_normalise(list(values), normalization)]
        for name, values in criteria.items()
    }
    best = {n: (max if goals[n] == "max" else min)(v) for n, v in table.items()}
    worst = {n: (min if goals[n] == "max" else max)(v) for n, v in table.items()}
    closeness = []
    for row in range(len(next(iter(table.values())))):
        point = [table[name][row] for name in table]
        plus, minus = math.dist(point, best.values()), math.dist(point, worst.values())
        closeness.append(minus / (plus + minus) if plus + minus else 0.5)
    return closeness


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("goal", ["max", "min"])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_slow_oracle(normalization, goal, seed):
    generator = np.random.default_rng(seed)
    criteria = {
        "a": generator.normal(size=30),
        "b": generator.integers(0, 4, 30).astype(float),
        "c": np.exp(generator.normal(size=30) - 20),
    }
    weights = dict(zip("abc", generator.random(3) * 5, strict=True))
    goals = {"a": "max", "b": goal, "c": "min"}
    closeness = topsis(criteria, weights, goals, normalization)
    expected = slow_topsis(criteria, weights, goals, normalization)
    np.testing.assert_allclose(closeness, expected, rtol=1e-10)
    assert (0 <= closeness).all() and (closeness <= 1).all()


def test_hand_worked_table():
    # Columns (3, 4) and (5, 12) have norms 5 and 13: (0.6, 0.8), (5/13, 12/13). With
    # don up and nod down the ideal is (0.8, 5/13), the anti-ideal (0.6, 12/13).
    # Row 0 misses the ideal by 0.2 in don and the anti-ideal by 7/13 in nod.
    criteria = {"don": [3.0, 4.0], "nod": [5.0, 12.0]}
    closeness = topsis(criteria, EQUAL, PUBLISHED, "vector")
    first = (7 / 13) / (7 / 13 + 0.2)
    np.testing.assert_allclose(closeness, [first, 1 - first], rtol=1e-12)
    # Minmax and rank give each row one best and one worst value: a draw.
    for normalization in ("minmax", "rank"):
        closeness = topsis(criteria, EQUAL, PUBLISHED, normalization)
        np.testing.assert_allclose(closeness, [0.5, 0.5])


def test_hand_worked_ranks_share_ties():
    # Average ranks of (7, 1, 7, 9) are 1.5, 0, 1.5, 3, over n - 1 = 3.
    closeness = topsis({"x": [7.0, 1, 7, 9]}, {"x": 2.0}, {"x": "max"}, "rank")
    np.testing.assert_allclose(closeness, [0.5, 0, 0.5, 1])


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_best_row_has_closeness_one_and_worst_zero(normalization):
    criteria = {"don": [1.0, 2, 3], "nod": [9.0, 5, 4]}
    closeness = topsis(criteria, EQUAL, PUBLISHED, normalization)
    assert closeness[2] == 1 and closeness[0] == 0 and 0 < closeness[1] < 1


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("constant", [0.0, -0.1, 3e-9])
def test_constant_criteria_decide_nothing(normalization, constant):
    flat = np.full(5, constant)
    varied = np.array([3.0, 1, 4, 1, 5])
    both = topsis({"don": flat, "nod": flat}, EQUAL, PUBLISHED, normalization)
    np.testing.assert_array_equal(both, 0.5)
    one = topsis({"don": flat, "nod": varied}, EQUAL, PUBLISHED, normalization)
    alone = topsis({"nod": varied}, {"nod": 1}, {"nod": "min"}, normalization)
    np.testing.assert_allclose(one, alone, rtol=1e-12)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_weight_zero_removes_a_criterion_and_scale_is_irrelevant(normalization):
    generator = np.random.default_rng(0)
    criteria = {"don": generator.normal(size=9), "nod": generator.random(9)}
    only_nod = topsis(criteria, {"don": 0, "nod": 3}, PUBLISHED, normalization)
    alone = topsis({"nod": criteria["nod"]}, {"nod": 1}, {"nod": "min"}, normalization)
    np.testing.assert_allclose(only_nod, alone, rtol=1e-12)
    tiny = topsis(criteria, {"don": 1e-200, "nod": 2e-200}, PUBLISHED, normalization)
    usual = topsis(criteria, {"don": 1, "nod": 2}, PUBLISHED, normalization)
    np.testing.assert_allclose(tiny, usual, rtol=1e-12)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("scale", [1e-250, 1e-12, 1e200])
def test_unit_of_a_criterion_is_irrelevant(normalization, scale):
    generator = np.random.default_rng(1)
    criteria = {"don": generator.normal(size=9), "nod": generator.random(9)}
    scaled = criteria | {"don": criteria["don"] * scale}
    np.testing.assert_allclose(
        topsis(scaled, EQUAL, PUBLISHED, normalization),
        topsis(criteria, EQUAL, PUBLISHED, normalization),
        rtol=1e-10,
    )


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_rows_that_are_not_finite_influence_no_other(normalization):
    criteria = {"don": np.array([1.0, np.nan, 3, 2]), "nod": [4.0, 9, np.inf, 8]}
    closeness = topsis(criteria, EQUAL, PUBLISHED, normalization)
    finite = topsis({"don": [1.0, 2], "nod": [4.0, 8]}, EQUAL, PUBLISHED, normalization)
    np.testing.assert_array_equal(closeness, [finite[0], np.nan, np.nan, finite[1]])


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_single_and_unusable_rows(normalization):
    single = topsis({"don": [2.0], "nod": [3.0]}, EQUAL, PUBLISHED, normalization)
    np.testing.assert_array_equal(single, [0.5])
    nothing = topsis({"don": [np.nan], "nod": [3.0]}, EQUAL, PUBLISHED, normalization)
    np.testing.assert_array_equal(nothing, [np.nan])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": {"don": 1.0}}, r"donod.weights must name .* got \['don'\]"),
        ({"weights": {"don": -1.0, "nod": 1.0}}, "donod.weights.don must be >= 0"),
        ({"weights": {"don": 0.0, "nod": 0.0}}, "positive sum"),
        ({"weights": {"don": np.nan, "nod": 1.0}}, "donod.weights.don must be >= 0"),
        ({"goals": {"don": "up", "nod": "min"}}, "max or min, got up"),
        ({"normalization": "sum"}, "one of .* got sum"),
    ],
)
def test_bad_settings_are_named(change, words):
    settings = {"weights": EQUAL, "goals": PUBLISHED, "normalization": "vector"}
    with pytest.raises(ConfigError, match=words):
        topsis({"don": [1.0], "nod": [1.0]}, **(settings | change))


def test_ranks_follow_closeness_with_stable_ties_and_nan_last():
    closeness = np.array([0.5, np.nan, 0.9, 0.5, 0.0, np.nan, 0.9])
    np.testing.assert_array_equal(rank_rows(closeness), [3, 6, 1, 4, 5, 7, 2])


def test_ranks_are_a_permutation():
    closeness = np.random.default_rng(0).integers(0, 5, 100) / 5
    ranks = rank_rows(closeness)
    expected = sorted(range(100), key=lambda row: (-closeness[row], row))
    np.testing.assert_array_equal(np.argsort(ranks), expected)
    np.testing.assert_array_equal(np.sort(ranks), np.arange(1, 101))


def make_columns(n_rows=40, seed=0, **replace):
    generator = np.random.default_rng(seed)
    columns = {name: generator.random(n_rows) for name in PANEL}
    columns["n_tokens"] = generator.integers(1, 50, n_rows)
    columns["w_dot_g"] = generator.normal(size=n_rows)
    columns["g_norm_sq"] = generator.random(n_rows) * 30 + 0.1
    return columns | replace


def test_paper_probes_with_the_training_learning_rate():
    columns = make_columns()
    ranking = rank_scores(columns, DonodConfig(preset="paper"), 20.0, 3e-5)
    assert ranking.learning_rate == 3e-5
    dons = don(columns["w_dot_g"], columns["g_norm_sq"], 20.0, 3e-5)
    nods = nod(columns["w_dot_g"], columns["g_norm_sq"], 20.0, 3e-5)
    closeness = topsis({"don": dons, "nod": nods}, EQUAL, PUBLISHED, "vector")
    np.testing.assert_array_equal(ranking.don, dons)
    np.testing.assert_array_equal(ranking.nod, nods)
    np.testing.assert_array_equal(ranking.closeness, closeness)
    np.testing.assert_array_equal(ranking.rank, rank_rows(closeness))
    np.testing.assert_array_equal(ranking.n_tokens, columns["n_tokens"])


@pytest.mark.parametrize("n_rows", [1, 2, 19, 20, 21, 100])
def test_auto_probes_beyond_the_crossover_of_95_percent(n_rows):
    columns = make_columns(n_rows)
    ranking = rank_scores(columns, DonodConfig(preset="auto"), 20.0, 3e-5)
    crossovers = sorted(2 * np.abs(columns["w_dot_g"]) / columns["g_norm_sq"])
    q95 = ranking.crossover_q95
    assert q95 in crossovers
    assert sum(value <= q95 for value in crossovers) >= 0.95 * n_rows
    assert sum(value < q95 for value in crossovers) <= 0.95 * n_rows
    assert ranking.crossover_median == pytest.approx(np.median(crossovers))
    rate = ranking.learning_rate
    assert rate == 10 * q95
    linear = 2 * rate * np.abs(columns["w_dot_g"])
    quadratic = rate**2 * columns["g_norm_sq"]
    assert (linear <= (0.1 + 1e-12) * quadratic).mean() >= 0.95
    assert (ranking.don < 0).mean() >= 0.95


@pytest.mark.parametrize("preset", ["paper", "auto"])
def test_a_set_probe_learning_rate_wins(preset):
    config = DonodConfig(preset=preset, probe={"learning_rate": 0.125})
    assert rank_scores(make_columns(), config, 20.0, 3e-5).learning_rate == 0.125


def test_sum_reduction_rescales_without_rescoring():
    columns = make_columns()
    tokens = columns["n_tokens"]
    summed = make_columns(
        w_dot_g=columns["w_dot_g"] * tokens, g_norm_sq=columns["g_norm_sq"] * tokens**2
    )
    for preset in ("paper", "auto"):
        by_option = rank_scores(
            columns, DonodConfig(preset=preset, probe={"reduction": "sum"}), 20.0, 1e-3
        )
        by_hand = rank_scores(summed, DonodConfig(preset=preset), 20.0, 1e-3)
        np.testing.assert_allclose(by_option.don, by_hand.don, rtol=1e-12)
        np.testing.assert_allclose(by_option.nod, by_hand.nod, rtol=1e-12)
        assert by_option.learning_rate == pytest.approx(by_hand.learning_rate)


def test_options_reach_the_formulas():
    columns = make_columns()
    config = DonodConfig(
        preset="paper",
        normalization="rank",
        weights={"don": 1, "nod": 3},
        goals={"don": "min", "nod": "max"},
        probe={"weight_decay": 0.1},
    )
    ranking = rank_scores(columns, config, 20.0, 0.01)
    dons = don(columns["w_dot_g"], columns["g_norm_sq"], 20.0, 0.01, 0.1)
    nods = nod(columns["w_dot_g"], columns["g_norm_sq"], 20.0, 0.01, 0.1)
    expected = slow_topsis(
        {"don": dons, "nod": nods},
        {"don": 1, "nod": 3},
        config.goals.model_dump(),
        "rank",
    )
    np.testing.assert_allclose(ranking.closeness, expected, rtol=1e-10)


def test_rows_without_scalars_come_last_and_change_no_other():
    columns = make_columns(6)
    nan = columns["w_dot_g"].copy()
    nan[2] = np.nan
    tokens = columns["n_tokens"].copy()
    tokens[2] = 0
    config = DonodConfig(probe={"reduction": "sum"})
    damaged = rank_scores(
        make_columns(6, w_dot_g=nan, n_tokens=tokens), config, 20.0, 1e-3
    )
    others = [0, 1, 3, 4, 5]
    rest = {k: v[others] for k, v in columns.items()}
    expected = rank_scores(rest, config, 20.0, 1e-3)
    assert damaged.rank[2] == 6 and np.isnan(damaged.closeness[2])
    np.testing.assert_array_equal(damaged.rank[others], expected.rank)
    assert damaged.learning_rate == expected.learning_rate


def test_no_finite_row_is_an_error():
    columns = make_columns(3, w_dot_g=np.full(3, np.nan))
    with pytest.raises(ScoringError, match="none of 3 rows"):
        rank_scores(columns, DonodConfig(), 20.0, 1e-3)


def test_auto_needs_a_gradient_but_paper_does_not():
    columns = make_columns(3, w_dot_g=np.zeros(3), g_norm_sq=np.zeros(3))
    with pytest.raises(ScoringError, match=r"set donod\.probe\.learning_rate"):
        rank_scores(columns, DonodConfig(preset="auto"), 20.0, 1e-3)
    ranking = rank_scores(columns, DonodConfig(preset="paper"), 20.0, 1e-3)
    np.testing.assert_array_equal(ranking.rank, [1, 2, 3])
    assert math.isnan(ranking.crossover_median)
