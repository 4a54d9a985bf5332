import math

import pytest
import torch

from axolotl_donod.aw_dpo.loss import (
    PAIR_LOSSES,
    PairTerms,
    aw_dpo_losses,
    effective_weights,
    exchange,
    segment_logps,
    sft_loss,
)

torch.manual_seed(0)
MARGINS = torch.randn(5, 2, dtype=torch.float64)
BOTH = torch.ones(5, 2, dtype=torch.bool)
UNIFORM = torch.full((5, 2), 0.5, dtype=torch.float64)


def softplus(x):
    return torch.log1p(torch.exp(x))


def of(margins):
    """Terms whose margins are the given ones, of one token per segment."""
    tokens = torch.ones_like(margins)
    return PairTerms(margins, torch.zeros_like(margins), tokens, tokens, beta=1.0)


def some_terms(seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    ratios = torch.randn(2, 5, 2, generator=generator, dtype=torch.float64)
    tokens = torch.randint(1, 9, (2, 5, 2), generator=generator).double()
    return PairTerms(*ratios, *tokens, **{"beta": 0.7, **options})


def gradient(**options):
    margins = torch.zeros(5, 2, dtype=torch.float64, requires_grad=True)
    aw_dpo_losses(of(margins), valid=BOTH, **options).sum().backward()
    return margins.grad


def test_segment_logps_sum_to_the_whole_and_ignore_the_rest():
    logps = torch.tensor([[-1.0, -2.0, -4.0, float("-inf")]])
    masks = torch.tensor([[[1, 0, 0, 0], [0, 1, 1, 0]]]).bool()
    assert segment_logps(logps, masks).tolist() == [[-1.0, -6.0]]


def test_half_precision_is_summed_in_single_precision():
    # 512 terms of -1 - 2^-7: in bfloat16 the sum would round to a multiple of 4.
    logps = torch.full((1, 512), -1 - 2**-7, dtype=torch.bfloat16)
    masks = torch.ones(1, 1, 512, dtype=torch.bool)
    assert segment_logps(logps, masks).tolist() == [[-516.0]]
    assert segment_logps(logps[:, :3], masks[..., :3]).tolist() == [[-3 - 3 * 2**-7]]


def test_an_empty_segment_gets_no_gradient():
    logps = torch.randn(1, 3, requires_grad=True)
    masks = torch.tensor([[[0, 0, 0], [1, 1, 0]]]).bool()
    sums = segment_logps(logps, masks)
    assert sums[0, 0] == 0
    sums.sum().backward()
    assert logps.grad.tolist() == [[1.0, 1.0, 0.0]]


def test_margins_are_the_differences_of_log_ratios():
    chosen, rejected = torch.tensor([[3.0, 0.0]]), torch.tensor([[-1.0, -2.0]])
    tokens = torch.ones(1, 2)
    terms = PairTerms(chosen, rejected, tokens, tokens, beta=0.5)
    assert terms.margins.tolist() == [[2.0, 1.0]]


def test_separate_is_the_weighted_sum_of_segment_losses():
    weights = torch.tensor([[0.2, 0.8]], dtype=torch.float64).expand(5, 2)
    losses = aw_dpo_losses(of(MARGINS), weights, BOTH)
    expected = 0.2 * softplus(-MARGINS[:, 0]) + 0.8 * softplus(-MARGINS[:, 1])
    torch.testing.assert_close(losses, expected)


def test_an_empty_segment_adds_ln2_times_its_weight_and_no_gradient():
    whole = MARGINS[:, 1].clone().requires_grad_()
    margins = torch.stack((torch.zeros(5, dtype=torch.float64), whole), dim=1)
    weights = torch.tensor([[0.3, 0.7]], dtype=torch.float64).expand(5, 2)
    losses = aw_dpo_losses(of(margins), weights, BOTH)
    torch.testing.assert_close(losses, 0.3 * math.log(2) + 0.7 * softplus(-whole))
    losses.sum().backward()
    expected = -0.7 * torch.sigmoid(-whole.detach())
    torch.testing.assert_close(whole.grad, expected)


def test_joint_with_uniform_weights_is_dpo_on_the_whole():
    losses = aw_dpo_losses(of(MARGINS), UNIFORM, BOTH, mode="joint")
    torch.testing.assert_close(losses, softplus(-MARGINS.sum(dim=1)))


@pytest.mark.parametrize("mode", ["separate", "joint"])
@pytest.mark.parametrize("scale", ["sum_one", "mean_one"])
def test_a_single_valid_segment_is_dpo_on_it(mode, scale):
    valid = torch.tensor([[False, True]]).expand(5, 2)
    weights = effective_weights(UNIFORM, valid)
    losses = aw_dpo_losses(of(MARGINS), weights, valid, mode=mode, scale=scale)
    assert torch.equal(losses, -torch.nn.functional.logsigmoid(MARGINS[:, 1]))


def test_separate_is_linear_in_the_weights():
    def loss(reasoning):
        row = torch.tensor([[reasoning, 1 - reasoning]], dtype=torch.float64)
        return aw_dpo_losses(of(MARGINS), row.expand(5, 2), BOTH)

    torch.testing.assert_close(loss(0.3), 0.7 * loss(0.0) + 0.3 * loss(1.0))


def test_scale_and_alpha_multiply_the_loss():
    base = aw_dpo_losses(of(MARGINS), UNIFORM, BOTH)
    doubled = aw_dpo_losses(of(MARGINS), UNIFORM, BOTH, scale="mean_one", alpha=0.25)
    torch.testing.assert_close(doubled, 0.25 * 2 * base)
    joint = aw_dpo_losses(of(MARGINS), UNIFORM, BOTH, mode="joint")
    scaled = aw_dpo_losses(
        of(MARGINS), UNIFORM, BOTH, mode="joint", scale="mean_one", alpha=3.0
    )
    torch.testing.assert_close(scaled, 3 * joint)


def test_modes_start_with_the_same_gradient():
    # At D = 0: separate, mean_one: -2 w_s / 2; joint: -(2 w_s) / 2. DPO: -1/2 each.
    weights = torch.tensor([[0.2, 0.8]], dtype=torch.float64).expand(5, 2)
    separate = gradient(weights=weights, mode="separate", scale="mean_one")
    assert torch.equal(separate, gradient(weights=weights, mode="joint"))
    torch.testing.assert_close(separate, -weights)
    halved = gradient(weights=weights, mode="separate", scale="sum_one")
    torch.testing.assert_close(2 * halved, separate)


def test_weights_of_missing_segments_go_to_the_others():
    weights = torch.tensor([[0.3, 0.7]] * 4)
    valid = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    given = effective_weights(weights, valid)
    assert torch.equal(given[0], weights[0])
    assert given[1:].tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize("mode", ["separate", "joint"])
def test_a_pair_without_a_weighted_segment_counts_nothing(mode):
    margins = MARGINS[:1].clone().requires_grad_()
    valid = torch.tensor([[True, False]])
    weights = effective_weights(torch.tensor([[0.0, 1.0]]).double(), valid)
    losses = aw_dpo_losses(of(margins), weights, valid, mode=mode)
    losses.sum().backward()
    assert losses.tolist() == [0.0]
    assert margins.grad.tolist() == [[0.0, 0.0]]


def test_swapping_a_pair_adds_its_weighted_margins():
    # softplus(D) - softplus(-D) = D, and a swap turns D into -D.
    weights = torch.tensor([[0.2, 0.8]], dtype=torch.float64).expand(5, 2)
    change = aw_dpo_losses(of(-MARGINS), weights, BOTH) - aw_dpo_losses(
        of(MARGINS), weights, BOTH
    )
    torch.testing.assert_close(change, (weights * MARGINS).sum(dim=1))


def by_hand(name, chosen, rejected, chosen_tokens, rejected_tokens, beta, smoothing):
    """The loss of one segment of one pair, from the equations of the papers."""
    margin = beta * (chosen - rejected)
    per_token = chosen / chosen_tokens - rejected / rejected_tokens
    log_sigmoid = -math.log1p(math.exp(-margin))
    log_opposite = -math.log1p(math.exp(margin))
    return {
        "sigmoid": -log_sigmoid,
        "hinge": max(0.0, 1 - margin),
        "ipo": (per_token - 1 / (2 * beta)) ** 2,
        "sigmoid_norm": math.log1p(math.exp(-beta * per_token)),
        "robust": (-(1 - smoothing) * log_sigmoid + smoothing * log_opposite)
        / (1 - 2 * smoothing),
        "apo_zero": 1
        - 1 / (1 + math.exp(-beta * chosen))
        + 1 / (1 + math.exp(-beta * rejected)),
    }[name]


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_each_segment_has_the_loss_of_its_own_terms(name):
    terms = some_terms(label_smoothing=0.2)
    weights = torch.rand(5, 2, dtype=torch.float64)
    ours = aw_dpo_losses(terms, weights, BOTH, pair_loss=PAIR_LOSSES[name])
    for pair in range(5):
        expected = sum(
            float(weights[pair, s])
            * by_hand(
                name,
                float(terms.chosen[pair, s]),
                float(terms.rejected[pair, s]),
                float(terms.chosen_tokens[pair, s]),
                float(terms.rejected_tokens[pair, s]),
                0.7,
                0.2,
            )
            for s in range(2)
        )
        assert float(ours[pair]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_joint_with_uniform_weights_is_the_loss_of_the_whole(name):
    terms = some_terms(label_smoothing=0.1)
    whole = PairTerms(
        terms.chosen.sum(dim=1),
        terms.rejected.sum(dim=1),
        terms.chosen_tokens.sum(dim=1),
        terms.rejected_tokens.sum(dim=1),
        terms.beta,
        terms.label_smoothing,
    )
    loss = PAIR_LOSSES[name]
    joint = aw_dpo_losses(terms, UNIFORM, BOTH, mode="joint", pair_loss=loss)
    torch.testing.assert_close(joint, loss(whole))


@pytest.mark.parametrize("name", PAIR_LOSSES)
@pytest.mark.parametrize("mode", ["separate", "joint"])
def test_an_empty_segment_divides_by_no_zero(name, mode):
    terms = some_terms()
    terms.chosen[:, 0], terms.chosen_tokens[:, 0] = 0.0, 0.0
    chosen = terms.chosen.requires_grad_()
    valid = torch.tensor([[False, True]]).expand(5, 2)
    weights = effective_weights(UNIFORM, valid)
    loss = PAIR_LOSSES[name]
    losses = aw_dpo_losses(terms, weights, valid, mode=mode, pair_loss=loss)
    losses.sum().backward()
    assert losses.isfinite().all() and chosen.grad.isfinite().all()
    assert (chosen.grad[:, 0] == 0).all() and (chosen.grad[:, 1] != 0).any()


def test_exchanged_sides_turn_the_margin_around():
    terms = some_terms()
    flipped = torch.tensor([[True, False]]).expand(5, 2)
    found = exchange(terms, flipped)
    torch.testing.assert_close(found.margins[:, 0], -terms.margins[:, 0])
    torch.testing.assert_close(found.margins[:, 1], terms.margins[:, 1])
    assert torch.equal(found.chosen_tokens[:, 0], terms.rejected_tokens[:, 0])


def test_the_sft_loss_is_a_mean_over_tokens_of_weighted_pairs():
    logps, tokens = torch.tensor([-6.0, -4.0]), torch.tensor([3, 1])
    assert sft_loss(logps, tokens, torch.ones(2)) == 10 / 4
    assert sft_loss(logps, tokens, torch.tensor([0.5, 0.0])) == 3 / 4
