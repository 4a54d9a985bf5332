import copy
import math
from functools import partial

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.aw_dpo_cases import (
    PLAIN,
    SCORES,
    THINKING,
    assert_same,
    batch_of,
    build_trainer,
    config,
    count_forwards,
    loss_and_gradients,
    pairs,
    segment_margins,
    settings,
    stock,
    without_ours,
)
from tests.tiny import tiny_model


@pytest.fixture
def build(tmp_path):
    return partial(build_trainer, tmp_path)


LORA = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def move_adapter(model):
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.5)


@pytest.mark.parametrize("mode", ["separate", "joint"])
@pytest.mark.parametrize("scale", ["sum_one", "mean_one"])
def test_one_segment_is_stock_dpo_bit_for_bit(build, tmp_path, mode, scale):
    dtype = torch.float32
    options = settings(mode=mode, scale=scale, logps="full")
    trainer = build(pairs(PLAIN), options, dtype=dtype)
    batch = batch_of(trainer)
    assert batch["reasoning_len"].tolist() == [0] * 6
    oracle = stock(tmp_path, pairs(PLAIN), dtype)
    reference = loss_and_gradients(oracle, without_ours(batch))
    assert reference[0] > 0 and len(reference[1]) > 10
    assert_same(loss_and_gradients(trainer, batch), reference)


def test_joint_with_uniform_weights_is_stock_dpo(build, tmp_path):
    trainer = build(pairs(THINKING), settings(mode="joint"))
    batch = batch_of(trainer)
    assert (batch["reasoning_len"] > 0).all()
    reference = loss_and_gradients(
        stock(tmp_path, pairs(THINKING)), without_ours(batch)
    )
    ours = loss_and_gradients(trainer, batch)
    assert_same(ours, reference, rtol=1e-9, atol=1e-12)


def test_separate_is_the_weighted_sum_of_segment_losses(build):
    trainer = build(pairs(THINKING, **SCORES))
    batch = batch_of(trainer)
    # d = (0.25, 1.0) and ε = 0.05: w = (0.30, 1.05) / 1.35
    weights = torch.tensor([0.30, 1.05], dtype=torch.float64) / 1.35
    torch.testing.assert_close(batch["segment_weights"], weights.float().expand(3, 2))
    softplus = torch.log1p(torch.exp(-segment_margins(trainer, batch)))
    expected = (softplus * weights).sum(dim=1).mean()
    loss, _ = loss_and_gradients(trainer, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)


def test_segment_logps_sum_to_the_stock_logps(build, tmp_path):
    trainer = build(pairs(THINKING))
    batch = batch_of(trainer)
    ours = trainer.compute_ref_log_probs(trainer.ref_model, batch)
    reference = stock(tmp_path, pairs(THINKING))
    theirs = reference.compute_ref_log_probs(reference.ref_model, without_ours(batch))
    for segments, whole in zip(ours, theirs, strict=True):
        assert segments.shape == (3, 2) and (segments < 0).all()
        torch.testing.assert_close(segments.sum(dim=1), whole)


@pytest.mark.parametrize("mode", ["separate", "joint"])
def test_zero_weight_gives_answer_positions_no_gradient(build, mode):
    trainer = build(pairs(THINKING), settings(1.0, mode=mode, logps="full"))
    batch = batch_of(trainer)
    seen = []

    def keep(module, inputs, output):
        output.logits.retain_grad()
        seen.append(output.logits)

    trainer.model.register_forward_hook(keep)
    loss_and_gradients(trainer, batch)
    gradient = seen[0].grad[:, :-1].abs().sum(dim=2)
    position = batch["completion_mask"].cumsum(1)[:, 1:]
    completion = batch["completion_mask"][:, 1:].bool()
    reasoning = completion & (position <= batch["reasoning_len"][:, None])
    assert (gradient[reasoning] > 0).all() and reasoning.any()
    assert (gradient[~reasoning] == 0).all() and (completion & ~reasoning).any()


def test_loss_and_gradient_are_linear_in_the_weights(build):
    found = {
        weight: loss_and_gradients(trainer, batch_of(trainer))
        for weight in (0.0, 0.25, 1.0)
        for trainer in [build(pairs(THINKING), settings(weight))]
    }
    mixed_loss = 0.75 * found[0.0][0] + 0.25 * found[1.0][0]
    mixed = {
        name: 0.75 * found[0.0][1][name] + 0.25 * found[1.0][1][name]
        for name in found[0.0][1]
    }
    assert_same(found[0.25], (mixed_loss, mixed), rtol=1e-4, atol=1e-6)


def test_modes_agree_where_policy_is_reference(build):
    separate = build(pairs(THINKING), settings(0.3, scale="mean_one"), ref_seed=0)
    joint = build(pairs(THINKING), settings(0.3, mode="joint"), ref_seed=0)
    one = loss_and_gradients(separate, batch_of(separate))
    other = loss_and_gradients(joint, batch_of(joint))
    # Two weighted segment losses of ln 2 that sum to 2 ln 2, against one of ln 2.
    torch.testing.assert_close(one[0], torch.tensor(2 * math.log(2)).double())
    torch.testing.assert_close(other[0], torch.tensor(math.log(2)).double())
    assert max(gradient.abs().max() for gradient in one[1].values()) > 1e-3
    assert_same((one[0], one[1]), (one[0], other[1]), rtol=1e-4, atol=1e-6)


def test_fresh_lora_gives_ln2_times_the_weights(build):
    trainer = build(pairs(THINKING), settings(alpha=0.5), peft_config=LORA)
    assert trainer.ref_model is None
    calls = []
    count_forwards(trainer.model, calls)
    loss, gradients = loss_and_gradients(trainer, batch_of(trainer))
    torch.testing.assert_close(loss, torch.tensor(0.5 * math.log(2)).double())
    assert gradients and all("lora_" in name for name in gradients)
    assert len(calls) == 2


def test_moved_lora_is_compared_with_the_bare_model(build):
    trainer = build(pairs(THINKING), settings(0.3), peft_config=LORA)
    move_adapter(trainer.model)
    loss, _ = loss_and_gradients(trainer, batch_of(trainer))
    merged = copy.deepcopy(trainer.model).merge_and_unload().requires_grad_()
    plain = build(pairs(THINKING), settings(0.3), model=merged, ref_seed=0)
    expected, _ = loss_and_gradients(plain, batch_of(plain))
    assert abs(loss - math.log(2)) > 1e-3
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_a_given_adapter_is_compared_with_its_own_copy(build):
    model = get_peft_model(tiny_model().double(), LORA)
    move_adapter(model)
    trainer = build(pairs(THINKING), settings(0.3), model=model)
    assert trainer.ref_model is None and "ref" in trainer.model.peft_config
    loss, gradients = loss_and_gradients(trainer, batch_of(trainer))
    torch.testing.assert_close(loss, torch.tensor(math.log(2)).double())
    assert gradients and all(".default." in name for name in gradients)


def test_precomputed_reference_equals_on_the_fly(build, tmp_path):
    dtype = torch.float32
    live = build(pairs(THINKING), settings(0.3), dtype=dtype)
    expected = loss_and_gradients(live, batch_of(live))
    args = config(tmp_path, precompute_ref_log_probs=True)
    stored = build(pairs(THINKING), settings(0.3), args=args, dtype=dtype)
    batch = batch_of(stored)
    assert batch["ref_chosen_logps"].shape == (3, 2)
    calls = []
    count_forwards(stored.ref_model, calls)
    assert_same(loss_and_gradients(stored, batch), expected)
    assert calls == []


def test_a_step_runs_each_model_once(build):
    trainer = build(pairs(THINKING))
    policy, reference = [], []
    count_forwards(trainer.model, policy)
    count_forwards(trainer.ref_model, reference)
    loss_and_gradients(trainer, batch_of(trainer))
    assert (len(policy), len(reference)) == (1, 1)


def test_the_loss_of_a_batch_is_the_mean_of_its_pairs(build):
    trainer = build(pairs(THINKING), settings(0.3))
    whole = loss_and_gradients(trainer, batch_of(trainer))[0]
    single = [
        loss_and_gradients(trainer, batch_of(trainer, slice(i, i + 1)))[0]
        for i in range(3)
    ]
    assert max(single) - min(single) > 1e-3
    torch.testing.assert_close(whole, torch.stack(single).mean(), rtol=1e-5, atol=1e-6)


def test_swapping_pairs_adds_the_weighted_margins(build):
    # softplus(D) - softplus(-D) = D, with D of the pairs before the swap.
    trainer = build(pairs(THINKING), settings(0.3))
    batch = batch_of(trainer)
    swapped = {
        name: torch.cat(value.chunk(2)[::-1]) if len(value) == 6 else value
        for name, value in batch.items()
    }
    change = (
        loss_and_gradients(trainer, swapped)[0] - loss_and_gradients(trainer, batch)[0]
    )
    margins = segment_margins(trainer, batch)
    expected = (margins * torch.tensor([0.3, 0.7])).sum(dim=1).mean()
    torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-5)


def test_gradient_checkpointing_changes_nothing(build, tmp_path):
    plain = build(pairs(THINKING), settings(0.3))
    expected = loss_and_gradients(plain, batch_of(plain))
    trainer = build(
        pairs(THINKING),
        settings(0.3),
        args=config(tmp_path, gradient_checkpointing=True),
    )
    trainer.model.gradient_checkpointing_enable()
    assert trainer.model.is_gradient_checkpointing
    ours = loss_and_gradients(trainer, batch_of(trainer))
    assert trainer.model.is_gradient_checkpointing
    assert_same(ours, expected, rtol=1e-6, atol=1e-7)
