import math

import pytest
import torch

from axolotl_donod.aw_dpo.loss import (
    aw_dpo_losses,
    effective_weights,
    segment_logps,
    segment_margins,
)

torch.manual_seed(0)
MARGINS = torch.randn(5, 2, dtype=torch.float64)
BOTH = torch.ones(5, 2, dtype=torch.bool)
UNIFORM = torch.full((5, 2), 0.5, dtype=torch.float64)


def softplus(x):
    return torch.log1p(torch.exp(x))


def gradient(**options):
    margins = torch.zeros(5, 2, dtype=torch.float64, requires_grad=True)
    aw_dpo_losses(margins, valid=BOTH, **options).sum().backward()
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
    chosen, rejected = torch.tensor([[-1.0, -5.0]]), torch.tensor([[-2.0, -3.0]])
    ref_chosen, ref_rejected = (
        torch.tensor([[-4.0, -5.0]]),
        torch.tensor([[-1.0, -1.0]]),
    )
    # r+ = (3, 0), r- = (-1, -2)
    margins = segment_margins(chosen, rejected, ref_chosen, ref_rejected, beta=0.5)
    assert margins.tolist() == [[2.0, 1.0]]


def test_separate_is_the_weighted_sum_of_segment_losses():
    weights = torch.tensor([[0.2, 0.8]], dtype=torch.float64).expand(5, 2)
    losses = aw_dpo_losses(MARGINS, weights, BOTH)
    expected = 0.2 * softplus(-MARGINS[:, 0]) + 0.8 * softplus(-MARGINS[:, 1])
    torch.testing.assert_close(losses, expected)


def test_an_empty_segment_adds_ln2_times_its_weight_and_no_gradient():
    whole = MARGINS[:, 1].clone().requires_grad_()
    margins = torch.stack((torch.zeros(5, dtype=torch.float64), whole), dim=1)
    weights = torch.tensor([[0.3, 0.7]], dtype=torch.float64).expand(5, 2)
    losses = aw_dpo_losses(margins, weights, BOTH)
    torch.testing.assert_close(losses, 0.3 * math.log(2) + 0.7 * softplus(-whole))
    losses.sum().backward()
    expected = -0.7 * torch.sigmoid(-whole.detach())
    torch.testing.assert_close(whole.grad, expected)


def test_joint_with_uniform_weights_is_dpo_on_the_whole():
    losses = aw_dpo_losses(MARGINS, UNIFORM, BOTH, mode="joint")
    torch.testing.assert_close(losses, softplus(-MARGINS.sum(dim=1)))


@pytest.mark.parametrize("mode", ["separate", "joint"])
@pytest.mark.parametrize("scale", ["sum_one", "mean_one"])
def test_a_single_valid_segment_is_dpo_on_it(mode, scale):
    valid = torch.tensor([[False, True]]).expand(5, 2)
    weights = effective_weights(UNIFORM, valid)
    losses = aw_dpo_losses(MARGINS, weights, valid, mode=mode, scale=scale)
    assert torch.equal(losses, -torch.nn.functional.logsigmoid(MARGINS[:, 1]))


def test_separate_is_linear_in_the_weights():
    def loss(reasoning):
        row = torch.tensor([[reasoning, 1 - reasoning]], dtype=torch.float64)
        return aw_dpo_losses(MARGINS, row.expand(5, 2), BOTH)

    torch.testing.assert_close(loss(0.3), 0.7 * loss(0.0) + 0.3 * loss(1.0))


def test_scale_and_alpha_multiply_the_loss():
    base = aw_dpo_losses(MARGINS, UNIFORM, BOTH)
    doubled = aw_dpo_losses(MARGINS, UNIFORM, BOTH, scale="mean_one", alpha=0.25)
    torch.testing.assert_close(doubled, 0.25 * 2 * base)
    joint = aw_dpo_losses(MARGINS, UNIFORM, BOTH, mode="joint")
    scaled = aw_dpo_losses(
        MARGINS, UNIFORM, BOTH, mode="joint", scale="mean_one", alpha=3.0
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
    losses = aw_dpo_losses(margins, weights, valid, mode=mode)
    losses.sum().backward()
    assert losses.tolist() == [0.0]
    assert margins.grad.tolist() == [[0.0, 0.0]]


def test_swapping_a_pair_adds_its_weighted_margins():
    # softplus(D) - softplus(-D) = D, and a swap turns D into -D.
    weights = torch.tensor([[0.2, 0.8]], dtype=torch.float64).expand(5, 2)
    change = aw_dpo_losses(-MARGINS, weights, BOTH) - aw_dpo_losses(
        MARGINS, weights, BOTH
    )
    torch.testing.assert_close(change, (weights * MARGINS).sum(dim=1))
