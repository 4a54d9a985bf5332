"""The weight of an output head: takes a module, gives the matrix it multiplies by.

Knows plain, PEFT-adapted and bitsandbytes-quantised linear modules; knows nothing of
models, rows or scores.
"""

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn

from axolotl_donod.errors import ScoringError

_QUANTISED = ("Params4bit", "Int8Params")


def effective_weight(module: Any, place: str) -> tuple[Tensor, Tensor | None]:
    """Give W and b of the map h -> W h + b that a module is.

    Args:
        module: An output head.
        place: What to call it in errors.

    Returns:
        (V, d) weight, the module's own where it is plain, and (V,) bias or None.

    Raises:
        ScoringError: The module is missing, not linear, or adapted or quantised in a
            way that has no such weight.
    """
    if isinstance(module, ModulesToSaveWrapper):
        if module.disable_adapters or not module.active_adapters:
            return effective_weight(module.original_module, place)
        (active,) = module.active_adapters[:1]
        return effective_weight(module.modules_to_save[active], place)
    if isinstance(module, LoraLayer):
        return _with_adapters(module, place)
    if type(module).__module__.startswith("peft."):
        raise ScoringError(
            f"{place} is adapted by PEFT ({type(module).__name__}); only plain LoRA "
            "and lora_modules_to_save can be scored: merge the adapter first, or take "
            "the head out of the adapter's targets"
        )
    if not isinstance(module, nn.Linear):
        raise ScoringError(
            f"{place} is {type(module).__name__}, but scoring needs an output head "
            "of type torch.nn.Linear; use a causal language model that has one"
        )
    weight = _dequantised(module, place)
    if not weight.is_floating_point() or weight.ndim != 2 or not weight.numel():
        raise ScoringError(
            f"{place}.weight is {weight.dtype} of shape {tuple(weight.shape)}; load "
            "the model with an output head that is neither sharded nor quantised "
            "(other than by bitsandbytes)"
        )
    bias = None if module.bias is None else module.bias.detach()
    return weight, bias


def _with_adapters(layer: Any, place: str) -> tuple[Tensor, Tensor | None]:
    """Sum the base weight and the LoRA adapters that the layer's forward adds."""
    weight, bias = effective_weight(layer.get_base_layer(), place)
    if layer.disable_adapters or layer.merged:
        return weight, bias
    for name in layer.active_adapters:
        if name not in layer.lora_A:
            continue
        if name in layer.lora_variant or layer.lora_bias[name]:
            variant = layer.lora_variant.get(name, "lora_bias")
            kind = variant if isinstance(variant, str) else type(variant).__name__
            raise ScoringError(
                f"{place} has adapter {name!r} of kind {kind}, which is more than "
                "W + scaling * B A; merge the adapter before scoring, or take the head "
                "out of its targets"
            )
        # In half precision the sum would lose most of the adapter.
        dtype = torch.promote_types(weight.dtype, torch.float32)
        delta = layer.get_delta_weight(name).detach()
        weight = weight.to(dtype) + delta.to(weight.device, dtype)
    return weight, bias


def _dequantised(module: nn.Linear, place: str) -> Tensor:
    if type(module.weight).__name__ not in _QUANTISED:
        return module.weight.detach()
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight

    state = getattr(module.weight, "quant_state", None)
    if getattr(state, "packing_format_for_cpu", False):
        raise ScoringError(
            f"{place} is quantised, and bitsandbytes packed it for the CPU when the "
            "model first ran; load the model again, or leave the head out of "
            "quantisation with llm_int8_skip_modules, which is the default"
        )
    try:
        weight: Tensor = dequantize_bnb_weight(
            module.weight, getattr(module, "state", None)
        )
    except (RuntimeError, NotImplementedError, AttributeError, TypeError) as error:
        raise ScoringError(
            f"{place} is quantised ({type(module.weight).__name__}) and bitsandbytes "
            f"cannot give its weight here ({error}); leave the head out of "
            "quantisation with llm_int8_skip_modules, which is the default"
        ) from error
    return weight.detach()
