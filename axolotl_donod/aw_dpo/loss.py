"""Segment log-probabilities and weights in, one loss per pair out.

Pure torch: knows nothing of models, data or configuration files.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

PairLoss = Callable[[torch.Tensor], torch.Tensor]


def _sigmoid(margins: torch.Tensor) -> torch.Tensor:
    return -F.logsigmoid(margins)


PAIR_LOSSES: dict[str, PairLoss] = {"sigmoid": _sigmoid}


def segment_logps(token_logps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Sum token log-probabilities within each segment.

    Args:
        token_logps: [N, L] in nats; values outside the masks may be anything.
        masks: [N, S, L] bool, of the same positions.

    Returns:
        [N, S] in float32 or better; 0 with zero gradient for an empty segment.
    """
    if token_logps.dtype not in (torch.float32, torch.float64):
        token_logps = token_logps.float()
    sums = [
        token_logps.masked_fill(~mask, 0.0).sum(dim=1) for mask in masks.unbind(dim=1)
    ]
    return torch.stack(sums, dim=1)


def segment_margins(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    ref_chosen: torch.Tensor,
    ref_rejected: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """D_s = β (Σ r(chosen) - Σ r(rejected)) with r the policy-reference log-ratio.

    The ratio of the answer is conditional on the reasoning before it, and the two
    responses reason differently: D of one segment is a surrogate, and only their sum
    is the logit of a Bradley-Terry model (arXiv 2602.21346).

    Args:
        chosen: [B, S] policy log-probabilities of the chosen segments, in nats.
        rejected: [B, S], likewise.
        ref_chosen: [B, S], of the reference.
        ref_rejected: [B, S], of the reference.
        beta: Strength of the reference, as in DPO.

    Returns:
        [B, S].
    """
    return beta * ((chosen - ref_chosen) - (rejected - ref_rejected))


def effective_weights(weights: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Put the weight of missing segments on the others.

    Args:
        weights: [B, S], not negative.
        valid: [B, S] bool, whether a segment has tokens on both sides of the pair.

    Returns:
        [B, S] with rows that sum to 1, or to 0 where no weighted segment is valid.
    """
    kept = weights * valid.to(weights.dtype)
    total = kept.sum(dim=1, keepdim=True)
    # Dividing only where something is missing keeps given weights bit for bit.
    rescaled = kept / total.clamp_min(torch.finfo(kept.dtype).tiny)
    return torch.where(valid.all(dim=1, keepdim=True), kept, rescaled)


def aw_dpo_losses(
    margins: torch.Tensor,
    weights: torch.Tensor,
    valid: torch.Tensor,
    *,
    mode: str = "separate",
    scale: str = "sum_one",
    alpha: float = 1.0,
    pair_loss: PairLoss = _sigmoid,
) -> torch.Tensor:
    """Alignment-Weighted DPO (arXiv 2602.21346), one loss per pair.

    `separate` is alpha · k Σ_s w_s l(D_s), with k = 1 for `sum_one` (the paper) and
    k = n for `mean_one`; `joint` is alpha · l(n Σ_s w_s D_s). n is the number of valid
    segments, so that uniform weights in `joint` are DPO whether the pair has both
    segments or one: two give l(D_r + D_a), a single one l(D).

    Args:
        margins: [B, S] of `segment_margins`.
        weights: [B, S], applied as they are; see `effective_weights`.
        valid: [B, S] bool, which segments count in n.
        mode: `separate` or `joint`.
        scale: `sum_one` or `mean_one`; no effect in `joint`.
        alpha: Factor on the loss.
        pair_loss: l, element-wise on margins.

    Returns:
        [B]. A pair whose weights are all 0 has loss 0 and no gradient.
    """
    count = valid.sum(dim=1).to(margins.dtype)
    if mode == "joint":
        losses = pair_loss(count * (weights * margins).sum(dim=1))
        losses = losses * (weights.sum(dim=1) > 0).to(losses.dtype)
    else:
        losses = (weights * pair_loss(margins)).sum(dim=1)
        if scale == "mean_one":
            losses = losses * count
    return alpha * losses
