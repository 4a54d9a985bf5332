"""Whether a model is its body and its head: takes both, gives an error if not.

It knows nothing of datasets, scores or configuration.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from axolotl_donod.errors import ScoringError
from axolotl_donod.pruning.scoring.head import (
    OutputHead,
    exact_matmul,
    head_logits,
    hidden_states,
    unwrap,
)

# Enough to tell, few enough that three tensors of logits cost no memory to speak of.
_CHECKED_TOKENS = 32


def check_head(model: nn.Module, head: OutputHead, input_ids: Tensor) -> None:
    """Compare body and head with the model's own logits on the start of one row.

    A model that gives no logits, as those with a fused loss do, is compared by its
    loss on the same tokens.

    Args:
        model: The model.
        head: Its output head.
        input_ids: (S,) token ids without padding; at most 32 of them are used.

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
    name = f"{type(unwrap(model)).__name__}.logits"
    if own is None:
        _check_loss(model, ours, ids, mask, hidden.dtype)
        return
    if own.shape[1:] != ours.shape:
        raise ScoringError(
            f"{name} has shape {tuple(own.shape[1:])} where the output head gives "
            f"{tuple(ours.shape)}; score with a model whose logits are the output "
            "head applied to the last hidden state"
        )
    difference = (own[0].to(ours) - ours).norm() / ours.norm().clamp_min(1e-30)
    # Rounding the logits to their type costs about eps/4; TensorFloat-32 3e-4.
    tolerance = max(2 * torch.finfo(own.dtype).eps, _least_tolerance(model))
    if not bool(difference <= tolerance):
        raise ScoringError(
            f"{name} differ from the output head applied to the last hidden state by "
            f"{float(difference):.2g} relative (tolerance {tolerance:.2g}): "
            f"{type(unwrap(model)).__name__} transforms them in a way that its "
            "config does not tell; score with a model whose logits are a linear head "
            "with at most a known scale and soft-cap"
        )


def _check_loss(
    model: Any, logits: Tensor, ids: Tensor, mask: Tensor, hidden_type: torch.dtype
) -> None:
    if ids.shape[1] < 2:
        return
    output = model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False)
    name = f"{type(unwrap(model)).__name__}.loss"
    if output.loss is None:
        raise ScoringError(
            f"{name} and logits are both None, so nothing shows that the output head "
            "describes this model; score without the fused-loss integration"
        )
    ours = F.cross_entropy(logits[:-1], ids[0, 1:].to(logits.device))
    difference = abs(float(output.loss) - float(ours)) / max(float(ours), 1e-3)
    # Models in half precision may round logits on the way to a float32 loss.
    types = (output.loss.dtype, hidden_type)
    rounding = max(2 * torch.finfo(dtype).eps for dtype in types)
    tolerance = max(rounding, _least_tolerance(model))
    if not difference <= tolerance:
        raise ScoringError(
            f"{name} is {float(output.loss):.6g}, but cross-entropy from the output "
            f"head is {float(ours):.6g} (tolerance {tolerance:.2g} relative): "
            f"{type(unwrap(model)).__name__} computes its logits in another way; score "
            "with a model whose logits are a linear head with at most a known scale "
            "and soft-cap"
        )


def _least_tolerance(model: nn.Module) -> float:
    """Kernels of quantised heads round the states too, as no weight can tell."""
    head = unwrap(model).get_output_embeddings()
    quantised = any(not p.is_floating_point() for p in head.parameters())
    return 0.05 if quantised else 1e-3
