"""One batch's segment log-probabilities in, named sums and counts out.

Pure torch: sums and counts add up over ranks, so one collective serves all metrics.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from axolotl_donod.aw_dpo.weights import SEGMENTS

Statistics = dict[str, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class PairBatch:
    """What the loss of one batch was made of; every tensor is [B, S].

    `chosen` and `rejected` are policy log-probabilities per segment in nats, `ref_*`
    those of the reference, `valid` whether a segment has tokens on both sides, and
    `weights` the effective segment weights.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    ref_chosen: torch.Tensor
    ref_rejected: torch.Tensor
    valid: torch.Tensor
    weights: torch.Tensor


def batch_statistics(batch: PairBatch, beta: float) -> Statistics:
    """Sum and count of every metric, over the pairs it is defined for.

    Rewards are β times the policy-reference log-ratio. Whole-response metrics are over
    all pairs, segment metrics over the pairs that have the segment on both sides, and
    `segment_disagreement` over the pairs that have both segments: the share whose two
    margins differ in sign.

    Args:
        batch: Of B pairs; no gradient is needed.
        beta: Strength of the reference.

    Returns:
        Metric name to a pair of scalars; the count may be 0.
    """
    chosen = beta * (batch.chosen - batch.ref_chosen)
    rejected = beta * (batch.rejected - batch.ref_rejected)
    every = torch.ones_like(batch.valid[:, 0])
    total = (chosen.sum(dim=1), rejected.sum(dim=1))
    found = _reward_statistics("rewards", *total, every)
    found |= _logp_statistics(
        "logps", batch.chosen.sum(dim=1), batch.rejected.sum(dim=1), every
    )
    weighted = batch.weights.sum(dim=1) > 0
    for index, name in enumerate(SEGMENTS):
        here = batch.valid[:, index]
        pair = (chosen[:, index], rejected[:, index])
        found |= _reward_statistics(f"rewards/{name}", *pair, here)
        pair = (batch.chosen[:, index], batch.rejected[:, index])
        found |= _logp_statistics(f"logps/{name}", *pair, here)
        found[f"weights/{name}"] = _masked(batch.weights[:, index], weighted)
        found[f"valid_segments/{name}"] = _masked(here, every)
    margins = chosen - rejected
    opposed = margins.sign().prod(dim=1) < 0
    found["segment_disagreement"] = _masked(opposed, batch.valid.all(dim=1))
    return found


def stack_statistics(found: Statistics) -> torch.Tensor:
    """Pack as [1, K, 2] float32, so that gathering adds ranks along dimension 0."""
    rows = [torch.stack((total, count)) for total, count in found.values()]
    return torch.stack(rows).unsqueeze(0)


def average_statistics(
    names: Mapping[str, object], sums: list[list[float]]
) -> dict[str, float]:
    """Averages of the metrics that have a count, in the order they were packed.

    Args:
        names: Names in packing order, such as the statistics themselves.
        sums: [K, 2] sum and count of each, added up over ranks.
    """
    return {
        name: total / count
        for name, (total, count) in zip(names, sums, strict=True)
        if count > 0
    }


def _masked(
    values: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    kept = values.detach().float().masked_fill(~mask, 0.0)
    return kept.sum(), mask.float().sum()


def _reward_statistics(
    prefix: str, chosen: torch.Tensor, rejected: torch.Tensor, mask: torch.Tensor
) -> Statistics:
    return {
        f"{prefix}/chosen": _masked(chosen, mask),
        f"{prefix}/rejected": _masked(rejected, mask),
        f"{prefix}/margins": _masked(chosen - rejected, mask),
        f"{prefix}/accuracies": _masked(chosen > rejected, mask),
    }


def _logp_statistics(
    prefix: str, chosen: torch.Tensor, rejected: torch.Tensor, mask: torch.Tensor
) -> Statistics:
    return {
        f"{prefix}/chosen": _masked(chosen, mask),
        f"{prefix}/rejected": _masked(rejected, mask),
    }
