"""Body plus head is the model, and models for which it is not are refused."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from axolotl_donod.errors import ScoringError
from axolotl_donod.pruning import head as head_module
from axolotl_donod.pruning.head import (
    check_head,
    exact_matmul,
    head_logits,
    hidden_states,
    output_head,
)
from tests.tiny import tiny_model

IDS = torch.tensor([[5, 9, 200, 31, 7, 8], [3, 1, 4, 0, 0, 0]])
MASK = torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0]])
SMALL = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}


def biased_model():
    torch.manual_seed(0)
    model = PhiForCausalLM(PhiConfig(**SMALL)).eval()
    nn.init.normal_(model.lm_head.bias)
    return model


def lora_model():
    settings = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    return get_peft_model(tiny_model(), settings).eval()


def gpt2_model():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=256, n_embd=32, n_layer=1, n_head=2, n_positions=64)
    return GPT2LMHeadModel(config).eval()


MODELS = {
    "tied": tiny_model,
    "untied": lambda: tiny_model(tied=False),
    "biased": biased_model,
    "lora": lora_model,
    "gpt2": gpt2_model,
}


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_body_and_head_reproduce_the_logits(name):
    model = MODELS[name]()
    head = output_head(model)
    hidden = hidden_states(model, IDS, MASK)
    ours = head_logits(head, hidden[MASK.bool()])
    own = model(input_ids=IDS, attention_mask=MASK).logits[MASK.bool()]
    torch.testing.assert_close(ours, own, rtol=1e-5, atol=1e-5)
    check_head(model, head, IDS[0])


def test_lora_changes_the_hidden_states_that_are_scored():
    adapted, plain = lora_model(), tiny_model()
    with torch.inference_mode():
        difference = hidden_states(adapted, IDS, MASK) - hidden_states(plain, IDS, MASK)
    assert difference.abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_norm_is_the_float64_norm_of_the_weight(dtype):
    model = tiny_model().to(dtype)
    expected = float(model.lm_head.weight.double().norm())
    assert output_head(model).norm == pytest.approx(expected, rel=1e-12)


def test_head_shares_memory_and_asks_no_gradient():
    model = tiny_model()
    head = output_head(model)
    assert head.weight.data_ptr() == model.lm_head.weight.data_ptr()
    assert not head.weight.requires_grad
    assert model.lm_head.weight.requires_grad


def test_half_precision_head_is_applied_in_float32(monkeypatch):
    monkeypatch.setattr(head_module, "_VOCABULARY_BLOCK", 33)
    model = biased_model().bfloat16()
    head = output_head(model)
    hidden = torch.randn(4, 32).bfloat16()
    expected = hidden.float() @ head.weight.float().T + head.bias.float()
    logits = head_logits(head, hidden)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        check_head(model, head, IDS[0])


def gemma2():
    return Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=16))


def granite():
    return GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=8.0))


def cohere():
    return CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.0625))


def t5():
    return T5ForConditionalGeneration(
        T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (gemma2, ["Gemma2ForCausalLM", "final_logit_softcapping is 30"]),
        (granite, ["GraniteForCausalLM", "logits_scaling is 8"]),
        (cohere, ["CohereForCausalLM", "logit_scale is 0.0625"]),
        (t5, ["T5ForConditionalGeneration", "is_encoder_decoder"]),
    ],
)
def test_refuses_models_whose_logits_are_not_a_plain_head(build, words):
    with pytest.raises(ScoringError) as caught:
        output_head(build())
    assert all(word in str(caught.value) for word in words)


def test_accepts_a_logit_scale_of_one():
    config = GraniteConfig(**SMALL, logits_scaling=1.0)
    model = GraniteForCausalLM(config).eval()
    with torch.inference_mode():
        check_head(model, output_head(model), IDS[0])


@pytest.mark.parametrize(
    "settings",
    [{"target_modules": ["lm_head"]}, {"modules_to_save": ["lm_head"]}],
)
def test_refuses_a_head_adapted_by_peft(settings):
    settings = {"target_modules": ["q_proj"]} | settings
    model = get_peft_model(tiny_model(tied=False), LoraConfig(r=2, **settings))
    with pytest.raises(ScoringError, match=r"LlamaForCausalLM\.lm_head is adapted"):
        output_head(model)


def test_refuses_a_head_that_is_not_linear_or_not_floating_point():
    model = tiny_model(tied=False)
    model.lm_head.weight = nn.Parameter(
        model.lm_head.weight.to(torch.int8), requires_grad=False
    )
    with pytest.raises(ScoringError, match=r"lm_head\.weight is torch\.int8"):
        output_head(model)
    model.lm_head = nn.Sequential(nn.Linear(32, 400))
    with pytest.raises(ScoringError, match="lm_head is Sequential"):
        output_head(model)


class ScaledLlama(LlamaForCausalLM):
    """An architecture whose configuration does not tell that it scales logits."""

    factor = 0.9

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * self.factor
        return output


class ShortLlama(LlamaForCausalLM):
    """An architecture that returns the last position only."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits[:, -1:]
        return output


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_check_finds_an_unknown_transformation(dtype):
    model = ScaledLlama(tiny_model().config).to(dtype).eval()
    with torch.inference_mode():
        with pytest.raises(ScoringError, match=r"ScaledLlama\.logits differ"):
            check_head(model, output_head(model), IDS[0])
        model.factor = 1.0
        check_head(model, output_head(model), IDS[0])


def test_check_finds_logits_of_another_shape():
    model = ShortLlama(tiny_model().config).eval()
    with (
        torch.inference_mode(),
        pytest.raises(ScoringError, match=r"ShortLlama\.logits has shape \(1, 400\)"),
    ):
        check_head(model, output_head(model), IDS[0])


def test_refuses_a_model_without_a_separate_body():
    model = tiny_model()
    model.base_model_prefix = "nowhere"
    with pytest.raises(ScoringError, match="base_model_prefix"):
        hidden_states(model, IDS, MASK)


def test_exact_matmul_ignores_autocast_and_restores_settings():
    left, right = torch.randn(8, 8), torch.randn(8, 8)
    backend = torch.backends.cuda.matmul
    before = backend.fp32_precision
    try:
        # As Axolotl switches TF32 on: the legacy way and the new one.
        torch.set_float32_matmul_precision("high")
        backend.fp32_precision = "tf32"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (left @ right).dtype == torch.bfloat16
            with exact_matmul(torch.device("cpu")):
                assert (left @ right).dtype == torch.float32
                assert backend.fp32_precision == "ieee"
                assert not backend.allow_tf32  # raises where the two APIs disagree
            assert (left @ right).dtype == torch.bfloat16
        assert backend.fp32_precision == "tf32"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
        backend.fp32_precision = before
