"""One batch's segment log-probabilities in, named sums and counts out.

Pure torch: sums and counts add up over ranks, so one collective serves all metrics.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from axolotl_donod.aw_dpo.weights import SEGMENTS

Statistics = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class PairBatch:
    """What the loss of one batch was made of; every tensor is [B, S].

    `chosen` and `rejected` are policy log-probabilities per segment in nats, `ref_*`
    those of the reference, `valid` whether a segment has tokens on both sides, and
    `weights` the effective segment weights.
    """

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    valid: Tensor
    weights: Tensor
    names: tuple[str, ...] = SEGMENTS


def batch_statistics(batch: PairBatch, beta: float) -> Statistics:
    """Sum and count of every metric, over the pairs it is defined for.

    Rewards are β times the policy-reference log-ratio. Whole-response metrics are over
    all pairs, segment metrics over the pairs that have the segment on both sides, and
    the agreement of `margin_statistics` over the pairs that have every segment.

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
    for index, name in enumerate(batch.names):
        here = batch.valid[:, index]
        pair = (chosen[:, index], rejected[:, index])
        found |= _reward_statistics(f"rewards/{name}", *pair, here)
        pair = (batch.chosen[:, index], batch.rejected[:, index])
        found |= _logp_statistics(f"logps/{name}", *pair, here)
        found[f"weights/{name}"] = _masked(batch.weights[:, index], weighted)
        found[f"valid_segments/{name}"] = _masked(here, every)
    complete = batch.valid.all(dim=1)
    return found | margin_statistics(chosen - rejected, batch.names, complete)


def margin_statistics(
    margins: Tensor, names: tuple[str, ...], complete: Tensor
) -> Statistics:
    """How the margins of a pair's segments agree.

    `segment_disagreement` is the share of pairs with a positive and a negative margin.
    The answer is the last segment and all before it are reasoning: `margins/both` is
    the share of pairs in which the chosen side wins in both, `margins/answer_only` and
    `margins/reasoning_only` in one of them, `margins/neither` in none. They sum to 1.

    Args:
        margins: [B, S].
        names: Of the segments.
        complete: [B] bool, the pairs that count.
    """
    opposed = (margins > 0).any(dim=1) & (margins < 0).any(dim=1)
    reasoning = margins[:, :-1].sum(dim=1) > 0
    answer = margins[:, -1] > 0
    shares = {
        "both": reasoning & answer,
        f"{SEGMENTS[0]}_only": reasoning & ~answer,
        f"{names[-1]}_only": answer & ~reasoning,
        "neither": ~reasoning & ~answer,
    }
    found = {"segment_disagreement": _masked(opposed, complete)}
    return found | {
        f"margins/{name}": _masked(value, complete) for name, value in shares.items()
    }


def token_statistics(
    entropy: Tensor, correct: Tensor, masks: Tensor, names: tuple[str, ...]
) -> Statistics:
    """Entropy of all responses and accuracy of the chosen ones, per token.

    Args:
        entropy: [2B, L-1] in nats.
        correct: [2B, L-1], whether the token was the most likely one.
        masks: [2B, S, L-1] bool, the segments.
        names: Of the segments.

    Returns:
        `entropy` and `mean_token_accuracy` as stock DPO logs them, and each by segment.
    """
    n_pairs = len(entropy) // 2
    every = masks.any(dim=1)
    found = {
        "entropy": _masked(entropy, every),
        "mean_token_accuracy": _masked(correct[:n_pairs], every[:n_pairs]),
    }
    for index, name in enumerate(names):
        here = masks[:, index]
        found[f"entropy/{name}"] = _masked(entropy, here)
        accuracy = _masked(correct[:n_pairs], here[:n_pairs])
        found[f"mean_token_accuracy/{name}"] = accuracy
    return found


def stack_statistics(found: Statistics) -> Tensor:
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


def _masked(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    kept = values.detach().float().masked_fill(~mask, 0.0)
    return kept.sum(), mask.float().sum()


def _reward_statistics(
    prefix: str, chosen: Tensor, rejected: Tensor, mask: Tensor
) -> Statistics:
    return {
        f"{prefix}/chosen": _masked(chosen, mask),
        f"{prefix}/rejected": _masked(rejected, mask),
        f"{prefix}/margins": _masked(chosen - rejected, mask),
        f"{prefix}/accuracies": _masked(chosen > rejected, mask),
    }


def _logp_statistics(
    prefix: str, chosen: Tensor, rejected: Tensor, mask: Tensor
) -> Statistics:
    return {
        f"{prefix}/chosen": _masked(chosen, mask),
        f"{prefix}/rejected": _masked(rejected, mask),
    }
