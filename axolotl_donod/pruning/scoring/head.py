"""The output head of a causal language model, and the hidden states that feed it.

Takes any Hugging Face model, gives weight, norm, hidden states and logits; knows
nothing of rows, labels or scores.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftMixedModel, PeftModel
from torch import Tensor, nn
from torch.nn import functional as F

from axolotl_donod.errors import ScoringError
from axolotl_donod.pruning.scoring.head_weight import effective_weight

# Settings of transformers' models that stand between head and logits.
_MULTIPLIERS = ("logit_scale", "lm_head_multiplier", "output_multiplier")
_DIVISORS = ("logits_scaling",)
_SOFT_CAPS = (
    "final_logit_softcapping",
    "final_logit_soft_cap",
    "logits_soft_cap",
    "output_logit_soft_cap",
)
# Models that multiply by what others divide by.
_MULTIPLYING_TYPES = ("hyperclovax",)
# Rows of the weight that are upcast at a time when it is not float32 already.
_VOCABULARY_BLOCK = 16384


@dataclass(frozen=True)
class OutputHead:
    """A virtual untied copy of the output projection.

    With y = scale (W h + b), the logits are z = y, or cap tanh(y / cap) with a cap.

    Attributes:
        weight: W, (V, d); the model's own where it has one, and never changed.
        bias: b, (V,), or None.
        norm: Frobenius norm of W, accumulated in float64.
        scale: Factor of the logits.
        soft_cap: Bound that the logits approach, or None.
    """

    weight: Tensor
    bias: Tensor | None
    norm: float
    scale: float = 1.0
    soft_cap: float | None = None


def output_head(model: nn.Module) -> OutputHead:
    """Find the head of a causal language model, tied to the embeddings or not.

    A head that PEFT adapts is the sum of its weight and its active adapters; one that
    is quantised is taken as the numbers it stands for.

    Args:
        model: A Hugging Face causal language model, or a PEFT model around one.

    Returns:
        The head; its weight is the model's own tensor unless adapted or quantised.

    Raises:
        ScoringError: The model is an encoder-decoder, or its head is missing, not
            linear, or adapted or quantised in a way that has no plain weight.
    """
    base = unwrap(model)
    name = type(base).__name__
    if base.config.is_encoder_decoder:
        raise ScoringError(
            f"{name}.config.is_encoder_decoder is True; scoring needs a decoder-only "
            "causal language model"
        )
    module = base.get_output_embeddings()
    path = next((n for n, m in base.named_modules() if m is module), "lm_head")
    weight, bias = effective_weight(module, f"{name}.{path}")
    config = base.config.get_text_config()
    return OutputHead(
        weight, bias, _frobenius_norm(weight), _scale(config), _soft_cap(config)
    )


def hidden_states(model: nn.Module, input_ids: Tensor, mask: Tensor) -> Tensor:
    """Run the body of a model, without its head.

    Args:
        model: The model given to `output_head`.
        input_ids: (B, S) token ids, padded on the right.
        mask: (B, S), 1 on tokens and 0 on padding.

    Returns:
        (B, S, d) hidden states after the final norm.

    Raises:
        ScoringError: The model does not expose its body as `base_model`.
    """
    base = unwrap(model)
    body = base.base_model
    if body is base:
        raise ScoringError(
            f"{type(base).__name__}.base_model is the whole model; its "
            "base_model_prefix must name the part below the output head"
        )
    output = body(input_ids=input_ids, attention_mask=mask, use_cache=False)
    states: Tensor = output.last_hidden_state
    return states


def head_products(
    head: OutputHead, hidden: Tensor, out: Tensor | None = None
) -> Tensor:
    """Give W h + b in float32, or in float64 for float64 states.

    Args:
        head: The output head.
        hidden: (T, d) hidden states.
        out: (T, V) tensor of that type to write to; unset makes one.

    Returns:
        (T, V) products, which `to_logits` turns into logits.
    """
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    hidden = hidden.to(head.weight.device, dtype)
    if out is None:
        out = hidden.new_empty(hidden.shape[0], head.weight.shape[0])
    if head.weight.dtype == dtype:
        torch.mm(hidden, head.weight.T, out=out)
    else:
        for start in range(0, out.shape[1], _VOCABULARY_BLOCK):
            block = slice(start, start + _VOCABULARY_BLOCK)
            out[:, block] = F.linear(hidden, head.weight[block].to(dtype))
    if head.bias is not None:
        out += head.bias.to(dtype)
    return out


def to_logits(head: OutputHead, products: Tensor) -> Tensor:
    """Scale and cap products of the head in place, and return them."""
    if head.scale != 1:
        products *= head.scale
    if head.soft_cap is not None:
        products.div_(head.soft_cap).tanh_().mul_(head.soft_cap)
    return products


def head_logits(head: OutputHead, hidden: Tensor) -> Tensor:
    """Give the (T, V) logits of (T, d) hidden states, in `head_products`' type."""
    return to_logits(head, head_products(head, hidden))


@contextmanager
def exact_matmul(device: torch.device) -> Iterator[None]:
    """Switch autocast and reduced-precision float32 products off, and back after."""
    mkldnn: Any = torch.backends.mkldnn
    backends = (torch.backends.cuda.matmul, mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    # Axolotl's `tf32` sets the legacy switch too, and torch refuses to multiply when
    # the two disagree.
    legacy = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(legacy)
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def unwrap(model: nn.Module) -> Any:
    """Return the transformers model inside a PEFT model, or the model itself."""
    if isinstance(model, PeftModel | PeftMixedModel):
        return model.get_base_model()
    return model


def _scale(config: Any) -> float:
    scale = 1.0
    for name in _MULTIPLIERS + _DIVISORS:
        value = getattr(config, name, None)
        if value is None:
            continue
        divides = name in _DIVISORS and config.model_type not in _MULTIPLYING_TYPES
        scale *= 1 / value if divides else value
    return scale


def _soft_cap(config: Any) -> float | None:
    caps = [getattr(config, name, None) for name in _SOFT_CAPS]
    return next((float(cap) for cap in caps if cap), None)


def _frobenius_norm(weight: Tensor) -> float:
    total = 0.0
    for block in torch.split(weight, _VOCABULARY_BLOCK):
        total += float(block.double().square().sum())
    return math.sqrt(total)
