import pytest
import torch
from peft import LoraConfig, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tests.aw_dpo_cases import (
    THINKING,
    batch_of,
    build_trainer,
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


def step(path, tmp_path, **options):
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
    trainer = build_trainer(
        tmp_path,
        pairs(THINKING),
        settings(mode="joint", **options),
        model=prepare_model_for_kbit_training(model, use_gradient_checkpointing=False),
        peft_config=LoraConfig(r=2, target_modules="all-linear"),
    )
    torch.manual_seed(3)
    for name, parameter in trainer.model.named_parameters():
        if "lora_" in name:
            # TRL turns the adapter of a quantised model to bfloat16.
            parameter.data = torch.randn(parameter.shape) * 0.2
    return loss_and_gradients(trainer, batch_of(trainer))


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
