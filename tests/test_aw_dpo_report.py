import pytest
import torch
from axolotl.core.trainers.dpo.args import AxolotlDPOConfig
from transformers import set_seed

from axolotl_donod.aw_dpo.report import HEADING, PLOT, TABLE
from axolotl_donod.aw_dpo.trainer import AwDpoTrainer
from tests.aw_dpo_cases import SCORES, THINKING, build_trainer, config, pairs, settings
from tests.tiny import tiny_model, tiny_tokenizer

ROWS = [*THINKING, *((p, r, c) for p, c, r in THINKING)]


def trainer_in(folder, **options):
    defaults = {
        "max_steps": 4,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_steps": 2,
        "save_strategy": "steps",
        "seed": 5,
    }
    set_seed(5)
    return AwDpoTrainer(
        tiny_model(attention_dropout=0.1),
        tiny_model(),
        args=config(folder, AxolotlDPOConfig, **defaults | options),
        train_dataset=pairs(ROWS, **SCORES),
        processing_class=tiny_tokenizer(),
        aw_dpo=settings(),
    )


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_a_run_that_is_resumed_has_the_losses_of_one_that_was_not(tmp_path):
    whole = trainer_in(tmp_path / "whole", disable_dropout=False)
    whole.train()
    resumed = trainer_in(tmp_path / "other", disable_dropout=False)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-2"))
    assert len(losses(whole)) == 4 and losses(resumed) == losses(whole)
    weights = zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)


def test_the_end_of_training_leaves_a_table_a_plot_and_a_card(tmp_path):
    trainer = trainer_in(tmp_path)
    trainer.train()
    table = (tmp_path / TABLE).read_text("utf-8")
    # d = (0.25, 1.0) and ε = 0.05: w = (0.30, 1.05) / 1.35
    assert "| reasoning | 0.222 | 0.222 / 0.222 / 0.222 | 0 | 0 |" in table
    assert "| answer | 0.778 | 0.778 / 0.778 / 0.778 | 0 | 0 |" in table
    assert "| loss | 1 · sigmoid |" in table and "| pairs | 6 |" in table
    last = [e for e in trainer.state.log_history if "rewards/answer/margins" in e][-1]
    assert f"{last['rewards/answer/margins']:.4g} |" in table
    assert (tmp_path / PLOT).read_bytes().startswith(b"\x89PNG")
    for _ in range(2):
        trainer.create_model_card(model_name="tiny")
        card = (tmp_path / "README.md").read_text("utf-8")
        assert card.count(HEADING) == 1 and "| answer | 0.778 |" in card


def test_segments_lost_to_truncation_are_counted_and_told_once(tmp_path, caplog):
    full = build_trainer(tmp_path, pairs(THINKING))
    rows = [full.train_dataset[index] for index in range(3)]
    length = len(rows[0]["prompt_ids"]) + rows[0]["chosen_reasoning_len"]
    lost = sum(
        any(
            length - len(row["prompt_ids"]) <= row[f"{side}_reasoning_len"]
            for side in ("chosen", "rejected")
        )
        for row in rows
    )
    assert 0 < lost
    trainer = build_trainer(
        tmp_path, pairs(THINKING), args=config(tmp_path, max_length=length)
    )
    assert caplog.text.count("leaves nothing of a segment") == 1
    assert f"0 the reasoning, {lost} the answer" in caplog.text
    assert f"| answer | 0.500 | 0.500 / 0.500 / 0.500 | 0 | {lost} |" in (
        trainer.report.markdown()
    )


@pytest.mark.parametrize("size", [1, 2])
def test_a_tokenizer_without_a_pad_token_and_a_batch_of_one(tmp_path, size):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    trainer = AwDpoTrainer(
        tiny_model(),
        tiny_model(),
        args=config(
            tmp_path,
            AxolotlDPOConfig,
            max_steps=1,
            per_device_train_batch_size=size,
            save_strategy="no",
            pad_to_multiple_of=16,
        ),
        train_dataset=pairs(THINKING),
        processing_class=tokenizer,
        aw_dpo=settings(),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"].shape[0] == 2 * size
    assert batch["input_ids"].shape[1] % 16 == 0
    trainer.train()
    assert trainer.state.log_history[-1]["train_loss"] == pytest.approx(
        0.6931, rel=1e-3
    )
