"""The closed forms against explicit gradients and real optimiser steps."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from axolotl_donod.pruning import panel
from axolotl_donod.pruning.donod import (
    crossover_learning_rate,
    don,
    nod,
    reduce_sum,
)
from axolotl_donod.pruning.panel import (
    PANEL,
    RowScalars,
    panel_columns,
    row_scalars,
)

LEARNING_RATES = [2e-5, 1e-3, 0.1, 1.0]


def approx(expected, rel=1e-6):
    """Relative only: pytest's absolute default exceeds many a DON."""
    return pytest.approx(expected, rel=rel, abs=0)


def make_row(*, tokens=7, width=5, vocabulary=11, seed=0, bias=False, scale=1.0):
    """Hidden states, head weight, labels and bias of one row, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale

    labels = torch.randint(vocabulary, (tokens,), generator=generator)
    offset = normal(vocabulary) if bias else None
    return normal(tokens, width), normal(vocabulary, width), labels, offset


def scalars_of(row):
    hidden, weight, labels, bias = row
    return row_scalars(hidden, F.linear(hidden, weight, bias), labels, bias)


def gradient(row, reduction):
    hidden, weight, labels, bias = row
    weight = weight.clone().requires_grad_()
    logits = F.linear(hidden, weight, bias)
    F.cross_entropy(logits, labels, reduction=reduction).backward()
    return weight.grad


def sgd_step(row, reduction, learning_rate, weight_decay):
    """DON and NOD of one real step, without subtracting nearly equal norms."""
    hidden, weight, labels, bias = row
    parameter = torch.nn.Parameter(weight.clone())
    optimizer = torch.optim.SGD(
        [parameter], lr=learning_rate, weight_decay=weight_decay
    )
    logits = F.linear(hidden, parameter, bias)
    F.cross_entropy(logits, labels, reduction=reduction).backward()
    optimizer.step()
    after = parameter.detach()
    lost = ((weight - after) * (weight + after)).sum()
    return (
        float(lost / (weight.norm() + after.norm())),
        float((weight - after).norm()),
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("learning_rate", LEARNING_RATES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_equals_one_real_sgd_step(reduction, learning_rate, weight_decay, bias):
    row = make_row(bias=bias)
    scalars = scalars_of(row)
    inner, squared = scalars.w_dot_g, scalars.g_norm_sq
    if reduction == "sum":
        inner, squared = reduce_sum(inner, squared, scalars.n_tokens)
    norm = float(row[1].norm())
    expected_don, expected_nod = sgd_step(row, reduction, learning_rate, weight_decay)
    step = (norm, learning_rate, weight_decay)
    assert don(inner, squared, *step) == approx(expected_don, rel=1e-7)
    assert nod(inner, squared, *step) == approx(expected_nod, rel=1e-8)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tokens", [1, 2, 40])
def test_scalars_equal_explicit_gradient_and_softmax(tokens, bias):
    row = make_row(tokens=tokens, bias=bias, seed=tokens)
    hidden, weight, labels, offset = row
    logits = F.linear(hidden, weight, offset)
    p = logits.softmax(1)
    e = p - F.one_hot(labels, 11)
    grad = gradient(row, "mean")
    expected = RowScalars(
        n_tokens=tokens,
        ce=float(F.cross_entropy(logits, labels)),
        entropy=float(torch.distributions.Categorical(logits=logits).entropy().mean()),
        w_dot_g=float((weight * grad).sum()),
        g_norm_sq=float(grad.square().sum()),
        el2n=float(e.norm(dim=1).mean()),
        token_accuracy=float((logits.argmax(1) == labels).double().mean()),
    )
    assert vars(scalars_of(row)) == approx(vars(expected), rel=1e-11)


@pytest.mark.parametrize("bias", [False, True])
def test_blocks_of_any_size_give_the_same_scalars(monkeypatch, bias):
    row = make_row(bias=bias)
    whole = scalars_of(row)
    for elements in (1, 10, 25, 40):
        monkeypatch.setattr(panel, "_BLOCK_ELEMENTS", elements)
        assert vars(scalars_of(row)) == approx(vars(whole), rel=1e-12)


def test_inner_product_is_cross_entropy_minus_entropy_without_bias():
    scalars = scalars_of(make_row())
    assert scalars.w_dot_g == approx(scalars.ce - scalars.entropy, rel=1e-12)
    biased = scalars_of(make_row(bias=True))
    assert biased.w_dot_g != approx(biased.ce - biased.entropy, rel=1e-2)


def test_uniform_prediction_has_textbook_values():
    # Zero weights predict uniformly over V = 4: CE = H = log 4, so <W,G> = 0, and
    # e = (1/4, 1/4, 1/4, -3/4) for label 3, so |e|^2 = 12/16 and |h|^2 = 4.
    hidden, labels = torch.tensor([[2.0, 0.0]]), torch.tensor([3])
    scalars = row_scalars(hidden, torch.zeros(1, 4), labels)
    assert scalars.ce == approx(np.log(4))
    assert scalars.entropy == approx(np.log(4))
    assert scalars.w_dot_g == 0
    assert scalars.g_norm_sq == approx(3)
    assert scalars.el2n == approx(np.sqrt(0.75))
    assert scalars.token_accuracy == 0  # a tie goes to the first token


@pytest.mark.parametrize("gap", [20.0, 40.0])
def test_sure_predictions_keep_their_digits_in_float32(gap):
    # p_y = 1/(1 + (V-1) exp(-gap)) rounds to 1 in float32, while 1 - p_y does not
    # round to 0: CE, 1 - p_y and hence |e| are known in closed form.
    logits = torch.zeros(3, 8)
    logits[:, 2] = gap
    scalars = row_scalars(torch.ones(3, 1), logits, torch.full((3,), 2))
    rest = 7 * np.exp(-gap) / (1 + 7 * np.exp(-gap))
    length = np.sqrt(rest**2 + 7 * (rest / 7) ** 2)
    assert scalars.ce == approx(np.log1p(7 * np.exp(-gap)), rel=1e-5)
    assert scalars.el2n == approx(length, rel=1e-5)
    assert scalars.w_dot_g == approx(-rest * gap, rel=1e-5)
    assert scalars.g_norm_sq == approx(length**2, rel=1e-5)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_float32_stays_near_float64(scale):
    row = make_row(tokens=30, width=16, vocabulary=200, scale=scale, seed=3)
    exact = scalars_of(row)
    hidden, weight, labels, _ = row
    single = row_scalars(hidden.float(), (hidden @ weight.T).float(), labels)
    assert vars(single) == approx(vars(exact), rel=1e-5)


def test_half_precision_inputs_are_upcast_before_any_arithmetic():
    hidden, weight, labels, _ = make_row()
    logits = (hidden @ weight.T).bfloat16()
    hidden = hidden.bfloat16()
    halves = row_scalars(hidden, logits, labels)
    assert halves == row_scalars(hidden.float(), logits.float(), labels)


def test_row_without_tokens_is_undefined():
    scalars = row_scalars(torch.ones(0, 3), torch.ones(0, 5), torch.ones(0).long())
    assert scalars.n_tokens == 0
    assert all(np.isnan(v) for k, v in vars(scalars).items() if k != "n_tokens")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [(2, 0), (0, 5)])
def test_non_finite_logits_are_undefined_not_an_error(value, place):
    hidden, weight, labels, _ = make_row()
    logits = hidden @ weight.T
    logits[place] = value
    scalars = row_scalars(hidden, logits, labels)
    assert scalars.n_tokens == 7
    assert all(np.isnan(v) for k, v in vars(scalars).items() if k != "n_tokens")


def test_inputs_are_left_alone():
    hidden, weight, labels, bias = make_row(bias=True)
    logits = F.linear(hidden, weight, bias)
    before = [tensor.clone() for tensor in (hidden, logits, labels, bias)]
    row_scalars(hidden, logits, labels, bias)
    for old, new in zip(before, (hidden, logits, labels, bias), strict=True):
        assert torch.equal(old, new)


def test_don_keeps_digits_that_a_difference_of_norms_loses():
    # First order in lr: DON = lr <W,G> / N = 8.3e-13, the next term 3e-11 of it; the
    # spacing of float64 at 721 is 1.1e-13.
    norm, rate = 721.0, 2e-8
    score = float(don(0.03, 1e-4, norm, rate))
    assert score == approx(rate * 0.03 / norm, rel=1e-9)
    after = np.sqrt(norm**2 - 2 * rate * 0.03 + rate**2 * 1e-4)
    assert norm - after != approx(score, rel=1e-2)


@pytest.mark.parametrize("inner", [1e-3, 0.4, 7.0])
def test_don_changes_sign_exactly_at_the_crossover(inner):
    squared, norm = 2.5, 30.0
    crossover = float(crossover_learning_rate(inner, squared))
    assert crossover == 2 * inner / squared
    scale = float(don(inner, squared, norm, crossover / 2))
    assert abs(don(inner, squared, norm, crossover)) < 1e-12 * scale
    assert don(inner, squared, norm, crossover * (1 - 1e-9)) > 0
    assert don(inner, squared, norm, crossover * (1 + 1e-9)) < 0


def test_don_tends_to_minus_nod_squared_over_two_norms():
    inner, squared, norm, rate = 1e-3, 4.0, 700.0, 0.5
    ratio = float(crossover_learning_rate(inner, squared)) / rate
    limit = -(float(nod(inner, squared, norm, rate)) ** 2) / (2 * norm)
    # DON = limit (1 - ratio) 2N / (N + N'), and N'/N - 1 is about 1e-6 here.
    score = float(don(inner, squared, norm, rate))
    assert score == approx(limit * (1 - ratio), rel=1e-5)
    assert score == approx(limit, rel=2 * ratio)


def test_crossover_ignores_the_sign_and_is_nan_without_gradient():
    crossovers = crossover_learning_rate([-3.0, 3.0, 0.0, 1.0], [2.0, 2.0, 2.0, 0.0])
    np.testing.assert_array_equal(crossovers, [3.0, 3.0, 0.0, np.nan])


def test_weight_decay_that_erases_the_head_loses_the_whole_norm():
    # lr * wd = 1 and no gradient: W' = 0, so DON = NOD = N.
    assert float(don(0.0, 0.0, 5.0, 0.5, 2.0)) == approx(5.0)
    assert float(nod(0.0, 0.0, 5.0, 0.5, 2.0)) == approx(5.0)


def test_nod_of_a_cancelling_decay_is_zero_not_nan():
    # G = -wd W makes the step vanish; rounding may leave a negative square.
    norm, decay = 3.3, 0.1
    value = nod(-decay * norm**2, (decay * norm) ** 2 * (1 - 1e-15), norm, 0.7, decay)
    assert 0 <= float(value) < 1e-7


def test_sum_scalars_equal_the_gradient_of_the_summed_loss():
    row = make_row()
    scalars, grad = scalars_of(row), gradient(row, "sum")
    inner, squared = reduce_sum(scalars.w_dot_g, scalars.g_norm_sq, 7)
    assert inner == approx(float((row[1] * grad).sum()), rel=1e-11)
    assert squared == approx(float(grad.square().sum()), rel=1e-11)


def test_scores_are_vectorised_float64():
    inner, squared = np.array([0.1, 2.0], np.float32), np.array([1, 4], np.float32)
    for function in (don, nod):
        whole = function(inner, squared, 9.0, 0.3, 0.1)
        assert whole.dtype == np.float64
        ones = [function(i, s, 9.0, 0.3, 0.1) for i, s in zip(inner, squared)]  # noqa: B905
        np.testing.assert_array_equal(whole, ones)


def test_columns_keep_order_and_types():
    rows = [RowScalars(2, 1, 2, 3, 4, 5, 6), RowScalars.undefined(0)]
    columns = panel_columns(rows)
    assert columns["n_tokens"].dtype == np.int64
    assert tuple(columns) == PANEL
    np.testing.assert_array_equal(columns["n_tokens"], [2, 0])
    np.testing.assert_array_equal(columns["g_norm_sq"], [4.0, np.nan])
    assert panel_columns([])["ce"].shape == (0,)
