"""Scoring time against training time saved: takes counts and speeds, gives estimates.

It knows nothing of models, clocks or configuration; the caller measures.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from axolotl_donod.errors import ConfigError

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@dataclass(frozen=True)
class CostPreview:
    """What scoring is expected to cost and to save, in seconds of wall time.

    Attributes:
        scoring_seconds: Scoring what is not scored yet.
        training_seconds_all: Training on all rows.
        training_seconds_kept: Training on the kept rows.
        saved_seconds: Training that pruning saves, scoring not yet taken off.
        pays: Whether that is at least as long as scoring takes.
    """

    scoring_seconds: float
    training_seconds_all: float
    training_seconds_kept: float
    saved_seconds: float
    pays: bool

    def text(self) -> str:
        """Say it in three lines for a log."""
        scoring = _duration(self.scoring_seconds)
        whole, kept = self.training_seconds_all, self.training_seconds_kept
        return (
            f"an estimate from a warm-up batch: scoring takes {scoring}.\n"
            f"Training takes {_duration(whole)} on all rows and {_duration(kept)} on "
            f"the kept ones, which saves {_duration(self.saved_seconds)}.\n"
            f"{self._verdict()}"
        )

    def _verdict(self) -> str:
        gain = self.saved_seconds - self.scoring_seconds
        if self.pays:
            return (
                f"Together pruning saves {_duration(gain)}; the true figure may be "
                "half or twice that."
            )
        return (
            f"SCORING COSTS {_duration(-gain)} MORE THAN IT SAVES: prune for better "
            "data, not for speed, or let a smaller model score "
            "(donod.scoring.base_model)."
        )


def preview(
    *,
    scoring_tokens: int,
    cached_tokens: int,
    seconds_per_token: float,
    training_tokens: int,
    epochs: float,
    kept_share: float,
    training_cost: float,
    ranks: int = 1,
) -> CostPreview:
    """Estimate scoring time and training times before the work starts.

    Args:
        scoring_tokens: Padded tokens of all rows and clones that need a score.
        cached_tokens: Those of them that are scored already.
        seconds_per_token: Seconds that one rank takes to score a padded token.
        training_tokens: Tokens of all rows that an epoch trains on, padding included.
        epochs: Epochs of training.
        kept_share: Share of the training tokens that stay, in [0, 1].
        training_cost: Cost of training on a token over that of scoring one, see
            `relative_training_cost`.
        ranks: Processes that share the work, in scoring and in training.

    Returns:
        The estimate; both kinds of work are taken to speed up by `ranks`.

    Raises:
        ConfigError: A number is negative, not finite or out of its range.
    """
    _check(
        {
            "scoring_tokens": scoring_tokens,
            "cached_tokens": cached_tokens,
            "seconds_per_token": seconds_per_token,
            "training_tokens": training_tokens,
            "epochs": epochs,
            "kept_share": kept_share,
            "training_cost": training_cost,
        }
    )
    if kept_share > 1 or cached_tokens > scoring_tokens or ranks < 1:
        raise ConfigError(
            "cost preview: kept_share must be <= 1, cached_tokens <= scoring_tokens "
            f"and ranks >= 1, got {kept_share}, {cached_tokens} of {scoring_tokens} "
            f"and {ranks}"
        )
    per_token = seconds_per_token / ranks
    training = training_tokens * epochs * training_cost * per_token
    scoring = (scoring_tokens - cached_tokens) * per_token
    saved = training - training * kept_share
    return CostPreview(
        scoring_seconds=scoring,
        training_seconds_all=training,
        training_seconds_kept=training * kept_share,
        saved_seconds=saved,
        pays=saved >= scoring,
    )


def _check(numbers: Mapping[str, float]) -> None:
    for name, value in numbers.items():
        if not 0 <= value < math.inf:
            raise ConfigError(
                f"cost preview: {name} must be finite and >= 0, got {value}"
            )


def relative_training_cost(*, adapter: bool, gradient_checkpointing: bool) -> float:
    """Forward passes that training on a token is worth.

    A forward pass counts 1, gradients of the activations 1, gradients of the weights
    1; an adapter (LoRA, QLoRA) leaves nearly all of the latter out, and gradient
    checkpointing adds a second forward pass.
    """
    return 2.0 + (not adapter) + gradient_checkpointing


def _duration(seconds: float) -> str:
    if seconds == 0:
        return "no time"
    if seconds < 1:
        return "under a second"
    # Rounded first, so that 59.7 s is a minute and never 60 s.
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    minutes = round(seconds / _MINUTE)
    if minutes < _HOUR // _MINUTE:
        return f"{minutes} min"
    if minutes < _DAY // _MINUTE:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / _HOUR)
    return f"{hours // 24} d {hours % 24} h"
