"""Section `aw_dpo`, the stock loss options and one batch in, the loss out.

Combines the pair losses of `loss`; knows nothing of models or data.
"""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from axolotl_donod.aw_dpo.loss import (
    PAIR_LOSSES,
    PairTerms,
    aw_dpo_losses,
    exchange,
    sft_loss,
)
from axolotl_donod.aw_dpo.metrics import PairBatch
from axolotl_donod.config import AwDpoConfig

LOG = logging.getLogger(__name__)
SFT_LOSS = "sft"


@dataclass(frozen=True)
class Objective:
    """Σ_k c_k mean_i p_i L_k(i), over loss types k and pairs i of weight p.

    Attributes:
        section: Mode, scale, alpha and what else section `aw_dpo` says.
        beta: Strength of the reference.
        types: Names of the losses, of `PAIR_LOSSES` or `sft`.
        coefficients: c, one per loss.
        label_smoothing: Used by `robust` alone, as in TRL.
    """

    section: AwDpoConfig
    beta: float
    types: tuple[str, ...]
    coefficients: tuple[float, ...]
    label_smoothing: float

    @classmethod
    def of(cls, section: AwDpoConfig, args: Any) -> "Objective":
        """Read the stock options from a TRL `DPOConfig`."""
        types = (args.loss_type,) if isinstance(args.loss_type, str) else args.loss_type
        if args.label_smoothing and "robust" not in types:
            LOG.warning(
                "dpo_label_smoothing: %s has no effect with dpo_loss_type: %s; use "
                "robust",
                args.label_smoothing,
                list(types),
            )
        coefficients = args.loss_weights or [1.0] * len(types)
        return cls(
            section, args.beta, tuple(types), tuple(coefficients), args.label_smoothing
        )

    def __call__(
        self,
        batch: PairBatch,
        masks: Tensor,
        signed_weights: Tensor,
        pair_weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            batch: Log-probabilities, validity and effective weights, each [B, S].
            masks: [2B, S, L] bool, the segments of the predicted tokens.
            signed_weights: [B, S], negative where the sides of a segment are exchanged.
            pair_weight: [B]; None is 1 for every pair.
        """
        terms = self._terms(batch, masks)
        if self.section.swap:
            terms = exchange(terms, signed_weights < 0)
        loss: Tensor | float = 0.0
        for name, coefficient in zip(self.types, self.coefficients, strict=True):
            if name == SFT_LOSS:
                value = self._sft(batch, masks, pair_weight)
            else:
                losses = self._losses(name, terms, batch)
                if pair_weight is not None:
                    losses = losses * pair_weight
                value = losses.mean()
            loss = loss + value * coefficient
        return torch.as_tensor(loss)

    def _terms(self, batch: PairBatch, masks: Tensor) -> PairTerms:
        counts = masks.sum(dim=2).to(batch.chosen.dtype)
        chosen_tokens, rejected_tokens = counts.chunk(2, dim=0)
        return PairTerms(
            batch.chosen - batch.ref_chosen,
            batch.rejected - batch.ref_rejected,
            chosen_tokens,
            rejected_tokens,
            self.beta,
            self.label_smoothing,
        )

    def _losses(self, name: str, terms: PairTerms, batch: PairBatch) -> Tensor:
        return aw_dpo_losses(
            terms,
            batch.weights,
            batch.valid,
            mode=self.section.mode,
            scale=self.section.scale,
            alpha=self.section.alpha,
            pair_loss=PAIR_LOSSES[name],
        )

    def _sft(
        self, batch: PairBatch, masks: Tensor, pair_weight: Tensor | None
    ) -> Tensor:
        logps = batch.chosen.sum(dim=1)
        tokens = masks[: len(logps)].sum(dim=(1, 2))
        weight = torch.ones_like(logps) if pair_weight is None else pair_weight
        return sft_loss(logps, tokens, weight)
