"""Section `aw_dpo` and a batch in, token scores of policy or reference out.

Chooses layout and path for each model it is handed, once, and says so when a model
does not allow what is configured. Knows nothing of losses.
"""

import inspect
import logging
from typing import Any

import torch
from torch import Tensor, nn
from trl.trainer.utils import selective_log_softmax

from axolotl_donod.aw_dpo.forward import (
    BatchScores,
    find_transform,
    ignores_pair_masks,
    score_batch,
)
from axolotl_donod.aw_dpo.layout import Batch, Layout, plain_layout, shared_layout
from axolotl_donod.aw_dpo.logps import LogitTransform, token_metrics
from axolotl_donod.config import AwDpoConfig
from axolotl_donod.errors import ConfigError

LOG = logging.getLogger(__name__)

_SKIPS_MASKED_ROWS = "row_mask" in inspect.signature(selective_log_softmax).parameters
# Attention that is handed masks as they are.
_MASKED_ATTENTION = ("sdpa", "eager")
_LOCAL_LAYERS = ("sliding_attention", "chunked_attention")


class BatchScorer:
    """Runs models on batches as `aw_dpo.logps` and `aw_dpo.shared_prompt` ask for."""

    def __init__(self, section: AwDpoConfig, *, sharded: bool) -> None:
        """Take the settings.

        Args:
            section: The settings.
            sharded: Whether weights are spread over ranks, so that a head has them
                during its own forward pass only.
        """
        self._section = section
        self._sharded = sharded
        self._transforms: dict[int, LogitTransform | None] = {}

    def score(
        self,
        model: nn.Module,
        inner: nn.Module,
        batch: Batch,
        *,
        metrics: bool = False,
        **extra: Any,
    ) -> BatchScores:
        """Scores of the completion tokens of a batch.

        Args:
            model: The model, possibly wrapped for several ranks.
            inner: The model without that wrapper.
            batch: Of `AwDpoCollator`.
            metrics: Whether entropy and correctness are wanted.
            **extra: More arguments of the forward pass.

        Raises:
            ConfigError: `shared_prompt` does not go with this model.
        """
        transform = self._transform(inner)
        if transform is None:
            return self.score_in_full(model, batch, metrics=metrics, **extra)[0]
        layout = self._layout(inner, batch)
        return score_batch(model, inner, layout, transform, metrics=metrics, **extra)

    def score_in_full(
        self, model: nn.Module, batch: Batch, *, metrics: bool = False, **extra: Any
    ) -> tuple[BatchScores, Any]:
        """The same from the logits of every token, and the model's outputs."""
        outputs = model(**plain_layout(batch).model_inputs, **extra)
        labels = batch["input_ids"][:, 1:]
        mask = batch["completion_mask"][:, 1:]
        options = {"row_mask": mask} if _SKIPS_MASKED_ROWS else {}
        logits = outputs.logits[:, :-1]
        logps = selective_log_softmax(logits, labels, **options)
        found = _full_metrics(logits.detach(), labels, mask.bool()) if metrics else {}
        aux_loss = getattr(outputs, "aux_loss", None)
        return BatchScores(logps, aux_loss=aux_loss, **found), outputs

    def _layout(self, inner: nn.Module, batch: Batch) -> Layout:
        if self._section.shared_prompt:
            return shared_layout(batch, _dtype(inner))
        return plain_layout(batch)

    def _transform(self, inner: nn.Module) -> LogitTransform | None:
        if id(inner) not in self._transforms:
            self._transforms[id(inner)] = self._choose(inner)
        return self._transforms[id(inner)]

    def _choose(self, inner: nn.Module) -> LogitTransform | None:
        if self._section.logps == "full":
            return None
        transform = None if self._sharded else find_transform(inner)
        if transform is None:
            why = (
                "weights are sharded" if self._sharded else "its head stands not alone"
            )
            LOG.warning(
                "aw_dpo.logps: chunked does not go with this %s (%s); using full",
                type(_causal_model(inner)).__name__,
                why,
            )
        if self._section.shared_prompt:
            _refuse_shared_prompt(inner, transform)
        return transform


def _full_metrics(logits: Tensor, labels: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Entropy and correctness, each [2B, L-1], a row at a time."""
    entropy = logits.new_zeros(mask.shape, dtype=torch.float32)
    correct = torch.zeros_like(mask)
    for row, here in enumerate(mask):
        chosen = logits[row][here].float()
        found = token_metrics(chosen, chosen.logsumexp(dim=1), labels[row][here])
        entropy[row, here], correct[row, here] = found
    return {"entropy": entropy, "correct": correct}


def _refuse_shared_prompt(inner: nn.Module, transform: LogitTransform | None) -> None:
    model: Any = _causal_model(inner)
    config = model.config.get_text_config()
    attention = config._attn_implementation
    reason = None
    if attention not in _MASKED_ATTENTION:
        reason = f"attn_implementation: {attention} takes no mask per pair"
    elif transform is None:
        reason = "its log-probabilities cannot be chunked"
    elif set(_LOCAL_LAYERS) & set(getattr(config, "layer_types", None) or ()):
        reason = "some of its layers see a window only"
    elif getattr(config, "layer_types", None) is None and (
        getattr(config, "sliding_window", None) is not None
    ):
        reason = f"its layers see a window of {config.sliding_window} only"
    elif ignores_pair_masks(
        inner, lambda batch: (plain_layout(batch), shared_layout(batch, _dtype(inner)))
    ):
        reason = "it does not follow a mask and positions per pair"
    if reason is not None:
        raise ConfigError(
            f"aw_dpo.shared_prompt: true does not work with {type(model).__name__}: "
            f"{reason}; set it to false, or use attn_implementation: sdpa"
        )


def _dtype(inner: nn.Module) -> torch.dtype:
    return next(p.dtype for p in inner.parameters() if p.is_floating_point())


def _causal_model(inner: nn.Module) -> nn.Module:
    unwrap = getattr(inner, "get_base_model", None)
    return unwrap() if unwrap is not None else inner
