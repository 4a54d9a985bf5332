import math

import pytest
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from axolotl_donod.aw_dpo.adapter import train_on_from
from tests.aw_dpo_cases import (
    THINKING,
    batch_of,
    build_trainer,
    config,
    loss_and_gradients,
    pairs,
    settings,
)
from tests.tiny import save_tiny_model

bitsandbytes = pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("four-bit")
    return save_tiny_model(path, hidden_size=64, intermediate_size=128)


def four_bit(path):
    model = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.float32,
        ),
    )
    projection = model.model.layers[0].mlp.up_proj
    assert isinstance(projection, bitsandbytes.nn.Linear4bit)
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def step(path, tmp_path, **options):
    trainer = build_trainer(
        tmp_path,
        pairs(THINKING),
        settings(mode="joint", **options),
        model=four_bit(path),
        peft_config=LoraConfig(r=2, target_modules="all-linear"),
    )
    torch.manual_seed(3)
    for name, parameter in trainer.model.named_parameters():
        if "lora_" in name:
            # TRL turns the adapter of a quantised model to bfloat16.
            parameter.data = torch.randn(parameter.shape) * 0.2
    return loss_and_gradients(trainer, batch_of(trainer))


@pytest.mark.parametrize("precompute", [False, True])
def test_a_trained_adapter_starts_equal_to_its_frozen_copy(
    folder, tmp_path, precompute
):
    options = {"r": 2, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    model = AutoModelForCausalLM.from_pretrained(folder)
    adapted = get_peft_model(model, LoraConfig(**options))
    torch.manual_seed(3)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.2)
    adapted.save_pretrained(tmp_path / "sft")
    trainer = build_trainer(
        tmp_path,
        pairs(THINKING),
        settings(mode="joint"),
        args=config(tmp_path, precompute_ref_log_probs=precompute),
        model=train_on_from(four_bit(folder), str(tmp_path / "sft")),
    )
    loss, _ = loss_and_gradients(trainer, batch_of(trainer))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("shared", [False, True], ids=["plain", "shared prompt"])
def test_four_bit_weights_are_trained_around_in_chunks(folder, tmp_path, shared):
    loss, gradients = step(folder, tmp_path, shared_prompt=shared)
    expected, theirs = step(folder, tmp_path, logps="full")
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    assert gradients.keys() == theirs.keys() and gradients
    largest = max(float(value.abs().max()) for value in theirs.values())
    for name, gradient in theirs.items():
        torch.testing.assert_close(
            gradients[name], gradient, rtol=1e-4, atol=1e-4 * largest
        )
