import copy
import json
import math
from dataclasses import dataclass

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from trl import DPOConfig, DPOTrainer

from axolotl_donod.aw_dpo import args as aw_args
from axolotl_donod.config import AwDpoConfig
from axolotl_donod.errors import ConfigError, DataError
from tests.tiny import tiny_model, tiny_tokenizer

trainer_module = pytest.importorskip("axolotl_donod.aw_dpo.trainer")
AwDpoTrainer = trainer_module.AwDpoTrainer
OURS = ("reasoning_len", "segment_weights")

THINKING = [
    ("How many apples?\n", "<think>12 + 30</think>42.", "<think>12 - 30 is</think>18!"),
    (
        "Help me hurt Tom.\n",
        "<think>no, danger</think>I cannot.",
        "<think>ok</think>Go.",
    ),
    (
        "The fox?\n",
        "<think>it jumps</think>over the dog",
        "<think>the</think>lazy one it",
    ),
]
PLAIN = [(p, c.split(">")[-1], r.split(">")[-1]) for p, c, r in THINKING]
SCORES = {
    "chosen_harm_full": 0.0,
    "chosen_harm_reasoning": 0.25,
    "chosen_harm_answer": 0.0,
    "rejected_harm_full": 1.0,
    "rejected_harm_reasoning": 0.5,
    "rejected_harm_answer": 1.0,
}


def pairs(rows, **columns):
    names = ("prompt", "chosen", "rejected")
    return Dataset.from_list(
        [dict(zip(names, row, strict=True), **columns) for row in rows]
    )


def config(folder, cls=DPOConfig, **options):
    defaults = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 3,
        "per_device_eval_batch_size": 3,
        "max_length": 128,
        "beta": 0.7,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return cls(**defaults | options)


def settings(reasoning=None, **options):
    if reasoning is not None:
        options["default_weights"] = {"reasoning": reasoning, "answer": 1 - reasoning}
    return AwDpoConfig.model_validate(options)


@pytest.fixture
def build(tmp_path):
    def _build(
        dataset, aw_dpo=None, *, ref_seed=1, args=None, dtype=torch.float64, **options
    ):
        model = options.pop("model", None) or tiny_model().to(dtype)
        if "peft_config" not in options and not isinstance(model, PeftModel):
            options["ref_model"] = tiny_model(seed=ref_seed).to(dtype)
        return AwDpoTrainer(
            model,
            args=args or config(tmp_path),
            train_dataset=dataset,
            processing_class=tiny_tokenizer(),
            aw_dpo=aw_dpo or settings(),
            **options,
        )

    return _build


def stock(folder, dataset, dtype=torch.float64):
    return DPOTrainer(
        tiny_model().to(dtype),
        tiny_model(seed=1).to(dtype),
        args=config(folder),
        train_dataset=dataset,
        processing_class=tiny_tokenizer(),
    )


def batch_of(trainer, rows=slice(None)):
    return trainer.data_collator([trainer.train_dataset[i] for i in range(3)][rows])


def loss_and_gradients(trainer, batch):
    trainer.model.train()
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    return loss.detach(), {
        name: parameter.grad.clone()
        for name, parameter in trainer.model.named_parameters()
        if parameter.grad is not None
    }


def without_ours(batch):
    return {name: value for name, value in batch.items() if name not in OURS}


def assert_same(ours, theirs, **tolerance):
    compare = torch.testing.assert_close
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    compare(ours[0], theirs[0], **tolerance)
    assert ours[1].keys() == theirs[1].keys()
    for name in theirs[1]:
        compare(ours[1][name], theirs[1][name], **tolerance)


def segment_margins(trainer, batch):
    """[B, 2], straight from the models and with nothing of the trainer's."""
    with torch.no_grad():
        totals = []
        for model in (trainer.model, trainer.ref_model):
            logits = model(batch["input_ids"], batch["attention_mask"]).logits[:, :-1]
            logps = logits.log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])
            totals.append(logps.squeeze(2))
    ratios = totals[0] - totals[1]
    sums = []
    for row, mask, length in zip(
        ratios, batch["completion_mask"][:, 1:], batch["reasoning_len"], strict=True
    ):
        completion = row[mask.bool()]
        sums.append([completion[:length].sum(), completion[length:].sum()])
    chosen, rejected = torch.tensor(sums, dtype=ratios.dtype).chunk(2)
    return trainer.beta * (chosen - rejected)


LORA = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def move_adapter(model):
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.5)


def count_forwards(model, calls):
    model.register_forward_hook(lambda *_: calls.append(1))


@pytest.mark.parametrize("mode", ["separate", "joint"])
@pytest.mark.parametrize("scale", ["sum_one", "mean_one"])
def test_one_segment_is_stock_dpo_bit_for_bit(build, tmp_path, mode, scale):
    dtype = torch.float32
    trainer = build(pairs(PLAIN), settings(mode=mode, scale=scale), dtype=dtype)
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
    trainer = build(pairs(THINKING), settings(1.0, mode=mode))
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


def test_truncation_that_removes_the_answer_leaves_reasoning_alone(build, tmp_path):
    full = build(pairs(THINKING))
    row = full.train_dataset[0]
    length = len(row["prompt_ids"]) + min(
        row["chosen_reasoning_len"], row["rejected_reasoning_len"]
    )
    trainer = build(
        pairs(THINKING[:1]), settings(0.3), args=config(tmp_path, max_length=length)
    )
    batch = trainer.data_collator([trainer.train_dataset[0]])
    margin = segment_margins(trainer, batch)[0, 0]
    loss, _ = loss_and_gradients(trainer, batch)
    torch.testing.assert_close(loss, torch.log1p(torch.exp(-margin)))


def test_metrics_average_over_the_pairs_they_are_defined_for(build):
    rows = [*THINKING[:2], (THINKING[2][0], THINKING[2][1], "plain answer")]
    trainer = build(pairs(rows), settings(0.3))
    batch = batch_of(trainer)
    trainer.model.eval()
    with torch.no_grad():
        trainer.compute_loss(trainer.model, dict(batch))
    logged = {name: value[-1] for name, value in trainer._metrics["eval"].items()}
    margins = segment_margins(trainer, batch)
    both = margins[:2]
    expected = {
        "rewards/margins": margins.sum(dim=1).mean(),
        "rewards/accuracies": (margins.sum(dim=1) > 0).float().mean(),
        "rewards/reasoning/margins": both[:, 0].mean(),
        "rewards/reasoning/accuracies": (both[:, 0] > 0).float().mean(),
        "rewards/answer/margins": margins[:, 1].mean(),
        "valid_segments/reasoning": 2 / 3,
        "valid_segments/answer": 1.0,
        "weights/reasoning": (0.3 + 0.3 + 0) / 3,
        "weights/answer": (0.7 + 0.7 + 1) / 3,
        "segment_disagreement": (both[:, 0] * both[:, 1] < 0).float().mean(),
    }
    for name, value in expected.items():
        assert logged[name] == pytest.approx(float(value), rel=1e-4, abs=1e-5), name
    parts = ("", "/reasoning", "/answer")
    assert {f"logps{part}/{side}" for part in parts for side in ("chosen", "rejected")}
    for part in parts:
        difference = logged[f"rewards{part}/chosen"] - logged[f"rewards{part}/rejected"]
        assert difference == pytest.approx(logged[f"rewards{part}/margins"], abs=1e-4)
        assert logged[f"logps{part}/chosen"] < 0 > logged[f"logps{part}/rejected"]


def test_metrics_of_absent_segments_are_left_out_and_never_nan(build):
    trainer = build(pairs(PLAIN))
    loss_and_gradients(trainer, batch_of(trainer))
    logged = trainer._metrics["train"]
    assert "rewards/reasoning/margins" not in logged
    assert "segment_disagreement" not in logged
    assert logged["valid_segments/reasoning"] == [0.0]
    assert logged["weights/answer"] == [1.0]
    assert all(math.isfinite(value[-1]) for value in logged.values())


def test_a_step_gathers_its_metrics_at_once(build, monkeypatch):
    trainer = build(pairs(THINKING))
    calls = []
    gather = trainer.accelerator.gather
    monkeypatch.setattr(
        trainer.accelerator, "gather", lambda value: calls.append(1) or gather(value)
    )
    loss_and_gradients(trainer, batch_of(trainer))
    assert len(calls) == 1


def test_training_and_evaluation_run_in_axolotl_and_log_segments(tmp_path):
    from axolotl.core.trainers.dpo.args import AxolotlDPOConfig

    @dataclass
    class Arguments(AxolotlDPOConfig, aw_args.AwDpoTrainingArgs):
        pass

    args = config(
        tmp_path,
        Arguments,
        max_steps=2,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="no",
        remove_unused_columns=True,
        pad_to_multiple_of=8,
        **aw_args.training_args({"default_weights": {"reasoning": 0.3, "answer": 0.7}}),
    )
    assert json.loads(args.to_json_string())["aw_dpo"]["mode"] == "separate"
    trainer = AwDpoTrainer(
        tiny_model(),
        tiny_model(),
        args=args,
        train_dataset=pairs(THINKING),
        eval_dataset=pairs(THINKING, **SCORES),
        processing_class=tiny_tokenizer(),
        data_collator=lambda features: {},
    )
    trainer.train()
    first, second, evaluated = trainer.state.log_history[:3]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert second["loss"] < first["loss"]
    assert first["weights/reasoning"] == pytest.approx(0.3)
    assert evaluated["eval_weights/reasoning"] == pytest.approx(0.3 / 1.35)
    assert evaluated["eval_rewards/answer/margins"] > 0
    assert first["num_tokens"] * 2 == second["num_tokens"]


def test_the_broken_collator_is_replaced_and_its_padding_kept(build):
    from axolotl.utils.collators.dpo import AxolotlDPODataCollatorWithPadding

    given = AxolotlDPODataCollatorWithPadding(pad_token_id=0, pad_to_multiple_of=32)
    trainer = build(pairs(THINKING), data_collator=given)
    assert batch_of(trainer)["input_ids"].shape[1] % 32 == 0


def test_a_doubled_bos_is_removed(build):
    trainer = build(
        pairs([(f"<|im_start|><|im_start|>{p}", c, r) for p, c, r in THINKING])
    )
    assert all(ids[:2].count(1) == 1 for ids in trainer.train_dataset["prompt_ids"])


def test_undecided_pairs_are_left_out(build):
    dataset = pairs(THINKING[:2], **SCORES).to_list()
    dataset[0] |= {"rejected_harm_reasoning": 0.25, "rejected_harm_answer": 0.0}
    trainer = build(Dataset.from_list(dataset))
    assert trainer.train_dataset["prompt"][:] == [THINKING[1][0]]


def test_reasoning_that_a_template_strips_is_an_error(build):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message['content']", "message['content'].split('</think>')[-1]"
    )
    dataset = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": prompt}],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
            }
            for prompt, chosen, rejected in THINKING
        ]
    )
    with pytest.raises(DataError, match="row 0 of the train dataset: chosen has"):
        AwDpoTrainer(
            tiny_model(),
            tiny_model(),
            args=DPOConfig("unused", bf16=False, use_cpu=True, report_to=[]),
            train_dataset=dataset,
            processing_class=tokenizer,
            aw_dpo=settings(),
        )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dpo_use_liger_kernel", True),
        ("dpo_padding_free", True),
        ("dpo_use_weighting", True),
        ("dpo_ld_alpha", 0.5),
        ("dpo_loss_type", ["hinge"]),
        ("dpo_loss_type", ["sigmoid", "sft"]),
        ("truncation_mode", "keep_end"),
        ("f_divergence_type", "js_divergence"),
        ("context_parallel_size", 2),
        ("processor_type", "AutoProcessor"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_axolotl_key(build, tmp_path, key, value):
    with pytest.raises(ConfigError, match=f"^{key}: .* does not work with aw_dpo; "):
        aw_args.refuse_unsupported({"rl": "dpo", key: value})
    argument = key.removeprefix("dpo_")
    if argument in DPOConfig.__dataclass_fields__:
        args = config(tmp_path)
        setattr(args, argument, value)
        with pytest.raises(ConfigError, match=f"^{key}: "):
            build(pairs(THINKING), args=args)


def test_stock_settings_are_accepted():
    aw_args.refuse_unsupported(
        {"rl": "dpo", "dpo_loss_type": ["sigmoid"], "context_parallel_size": 1}
    )


@pytest.mark.parametrize("rl", [None, "ipo", "kto"])
def test_other_preference_methods_are_refused(rl):
    with pytest.raises(ConfigError, match="aw_dpo needs rl: dpo"):
        aw_args.refuse_unsupported({"rl": rl})


def test_missing_settings_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match="aw_dpo is missing"):
        AwDpoTrainer(
            tiny_model(),
            args=config(tmp_path),
            train_dataset=pairs(THINKING),
            processing_class=tiny_tokenizer(),
        )


def test_argument_module_stays_light():
    import subprocess
    import sys

    code = (
        "import sys, axolotl_donod.aw_dpo.args, axolotl_donod.aw_dpo.weights\n"
        "heavy = {'torch', 'axolotl', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
