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

# Settings that put something between the head and the logits, and the one value of
# each, besides None, that does nothing.
_LOGIT_TRANSFORMS: dict[str, float | None] = {
    "final_logit_softcapping": None,
    "final_logit_soft_cap": None,
    "logit_scale": 1.0,
    "logits_scaling": 1.0,
    "lm_head_multiplier": 1.0,
}
# Rows of the weight that are upcast at a time when it is not float32 already.
_VOCABULARY_BLOCK = 16384
_CHECKED_TOKENS = 128


@dataclass(frozen=True)
class OutputHead:
    """A virtual untied copy of the output projection: z = W h + b.

    Attributes:
        weight: W, (V, d), shared with the model and never changed.
        bias: b, (V,), or None.
        norm: Frobenius norm of W, accumulated in float64.
    """

    weight: Tensor
    bias: Tensor | None
    norm: float


def output_head(model: nn.Module) -> OutputHead:
    """Find the head of a causal language model, tied to the embeddings or not.

    Args:
        model: A Hugging Face causal language model, or a PEFT model around one.

    Returns:
        The head; its weight is the model's own tensor.

    Raises:
        ScoringError: The model is an encoder-decoder, transforms its logits, or has
            a head that is missing, adapted by PEFT, quantised or not linear.
    """
    base = _unwrap(model)
    _refuse_logit_transforms(base)
    module = base.get_output_embeddings()
    name = next((n for n, m in base.named_modules() if m is module), "lm_head")
    place = f"{type(base).__name__}.{name}"
    if type(module).__module__.startswith("peft."):
        raise ScoringError(
            f"{place} is adapted by PEFT ({type(module).__name__}); remove it from "
            "lora_target_modules and lora_modules_to_save to score with this model"
        )
    if not isinstance(module, nn.Linear):
        raise ScoringError(
            f"{place} is {type(module).__name__}, but scoring needs an output head "
            "of type torch.nn.Linear; use a causal language model that has one"
        )
    if not module.weight.is_floating_point() or module.weight.ndim != 2:
        raise ScoringError(
            f"{place}.weight is {module.weight.dtype} of shape "
            f"{tuple(module.weight.shape)}; load the model with an output head that "
            "is neither quantised nor sharded"
        )
    weight = module.weight.detach()
    bias = None if module.bias is None else module.bias.detach()
    return OutputHead(weight, bias, _frobenius_norm(weight))


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
    base = _unwrap(model)
    body = base.base_model
    if body is base:
        raise ScoringError(
            f"{type(base).__name__}.base_model is the whole model; its "
            "base_model_prefix must name the part below the output head"
        )
    output = body(input_ids=input_ids, attention_mask=mask, use_cache=False)
    states: Tensor = output.last_hidden_state
    return states


def head_logits(head: OutputHead, hidden: Tensor) -> Tensor:
    """Apply the head in float32, or in float64 to float64 states.

    Args:
        head: The output head.
        hidden: (T, d) hidden states.

    Returns:
        (T, V) logits, bias included.
    """
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    hidden = hidden.to(head.weight.device, dtype)
    logits = hidden.new_empty(hidden.shape[0], head.weight.shape[0])
    for start in range(0, head.weight.shape[0], _VOCABULARY_BLOCK):
        block = slice(start, start + _VOCABULARY_BLOCK)
        bias = None if head.bias is None else head.bias[block].to(dtype)
        logits[:, block] = F.linear(hidden, head.weight[block].to(dtype), bias)
    return logits


def check_head(model: nn.Module, head: OutputHead, input_ids: Tensor) -> None:
    """Compare body and head with the model's own logits on the start of one row.

    Args:
        model: The model.
        head: Its output head.
        input_ids: (S,) token ids without padding; at most 128 of them are used.

    Raises:
        ScoringError: They differ by more than rounding explains, so the closed forms
            would not describe this model.
    """
    ids = input_ids[None, :_CHECKED_TOKENS]
    mask = torch.ones_like(ids)
    hidden = hidden_states(model, ids, mask)[0]
    with exact_matmul(head.weight.device):
        ours = head_logits(head, hidden)
    own = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    name = f"{type(_unwrap(model)).__name__}.logits"
    if own is None or own.shape[1:] != ours.shape:
        got = None if own is None else tuple(own.shape[1:])
        raise ScoringError(
            f"{name} has shape {got} where the output head gives "
            f"{tuple(ours.shape)}; score with a model whose logits are the output "
            "head applied to the last hidden state"
        )
    difference = (own[0].to(ours) - ours).norm() / ours.norm().clamp_min(1e-30)
    # Rounding the logits to their type costs about eps/4; TensorFloat-32 3e-4.
    tolerance = max(2 * torch.finfo(own.dtype).eps, 1e-3)
    if not bool(difference <= tolerance):
        raise ScoringError(
            f"{name} differ from hidden @ W.T + b by {float(difference):.2g} relative "
            f"(tolerance {tolerance:.2g}): {type(_unwrap(model)).__name__} transforms "
            "them; score with a model whose logits are a plain linear head"
        )


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


def _unwrap(model: nn.Module) -> Any:
    if isinstance(model, PeftModel | PeftMixedModel):
        return model.get_base_model()
    return model


def _refuse_logit_transforms(base: Any) -> None:
    name = type(base).__name__
    if base.config.is_encoder_decoder:
        raise ScoringError(
            f"{name}.config.is_encoder_decoder is True; scoring needs a decoder-only "
            "causal language model"
        )
    config = base.config.get_text_config()
    for attribute, neutral in _LOGIT_TRANSFORMS.items():
        value = getattr(config, attribute, None)
        if value is not None and value != neutral:
            raise ScoringError(
                f"{name}.config.{attribute} is {value}: the logits are not a linear "
                "head of the last hidden state; score with a model without it"
            )


def _frobenius_norm(weight: Tensor) -> float:
    total = 0.0
    for block in torch.split(weight, _VOCABULARY_BLOCK):
        total += float(block.double().square().sum())
    return math.sqrt(total)
