"""One tokenised preference row in, the columns that the loss reads out.

Adds to `rows` what section `aw_dpo` asks for: ablations, exchanged segments, segments
of the user's own, and a weight per pair. Runs inside `datasets.map`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from axolotl_donod.aw_dpo.collator import (
    ENDS_COLUMNS,
    PAIR_WEIGHT_COLUMN,
    WEIGHTS_COLUMN,
)
from axolotl_donod.aw_dpo.rows import prepare_row, segment_ends
from axolotl_donod.aw_dpo.weights import harm_gaps, row_name
from axolotl_donod.config import AwDpoConfig
from axolotl_donod.cot_messages import SIDES
from axolotl_donod.errors import DataError


def add_columns(
    dataset: Any, tokenizer: Any, section: AwDpoConfig, **options: Any
) -> Any:
    """Put segments and weights beside the tokens of a data set.

    Args:
        dataset: A tokenised `datasets.Dataset`.
        tokenizer: The tokenizer that made the ids.
        section: The settings.
        **options: `name` of the data set, `num_proc` for `map`.

    Raises:
        DataError: A row cannot be used.
    """
    name = options.pop("name")
    return dataset.map(
        pair_columns,
        with_indices=True,
        fn_kwargs={
            "tokenizer": tokenizer,
            "section": section.model_dump(mode="json"),
            "name": name,
        },
        desc=f"Finding segments in {name} dataset",
        **options,
    )


def pair_columns(
    row: Mapping[str, Any],
    index: int,
    *,
    tokenizer: Any,
    section: Mapping[str, Any],
    name: str,
) -> dict[str, Any]:
    """The columns of one row; `segment_weights` is negative for an exchanged segment.

    Args:
        row: Tokens and texts, optionally scores and `pair_weight`.
        index: Position of the row, for errors.
        tokenizer: The tokenizer that made the ids.
        section: Section `aw_dpo` as JSON values.
        name: Names the data set in errors.

    Raises:
        DataError: Scores, weight or tags are unusable.
    """
    settings = AwDpoConfig.model_validate(section)
    where = row_name(index, name, row)
    default = settings.default_weights
    plain = row
    if settings.tagged:
        plain = {key: value for key, value in row.items() if "_harm_" not in key}
    columns = prepare_row(
        plain,
        index,
        tokenizer=tokenizer,
        epsilon=settings.epsilon,
        default=(default.reasoning, default.answer),
        name=name,
    )
    if settings.tagged:
        prepared = {**row, **columns}
        for side, column in zip(SIDES, ENDS_COLUMNS, strict=True):
            columns[column] = segment_ends(
                prepared, side, settings.tags, tokenizer=tokenizer, where=where
            )
    if settings.tagged or settings.swap or settings.weighting != "judged":
        columns[WEIGHTS_COLUMN] = signed_weights(row, settings, where)
    if PAIR_WEIGHT_COLUMN in row:
        columns[PAIR_WEIGHT_COLUMN] = pair_weight(row, where)
    return columns


def signed_weights(
    row: Mapping[str, Any], settings: AwDpoConfig, where: str
) -> list[float]:
    """Weights of the segments; their absolute values sum to one.

    u_s = max(d_s, 0), or |d_s| with `swap`, where the weight is negative if d_s is.

    Args:
        row: One pair, with scores or without.
        settings: The settings.
        where: Names the row in errors.

    Raises:
        DataError: The scores are unusable.
    """
    names = settings.segment_names
    if settings.weighting == "uniform":
        return [1 / len(names)] * len(names)
    if settings.weighting in ("answer_only", "reasoning_only"):
        return [float(settings.weighting == f"{name}_only") for name in names]
    weights = _judged(harm_gaps(row, where, settings.tags), settings)
    if settings.weighting == "inverted":
        return [(1 - weight) / (len(names) - 1) for weight in weights]
    return weights


def _judged(gaps: Sequence[float] | None, settings: AwDpoConfig) -> list[float]:
    if gaps is None:
        return list(settings.unscored_weights)
    clipped = [abs(gap) if settings.swap else max(gap, 0.0) for gap in gaps]
    total = sum(clipped) + settings.epsilon * len(clipped)
    weights = [(gap + settings.epsilon) / total for gap in clipped]
    signs = [-1.0 if settings.swap and gap < 0 else 1.0 for gap in gaps]
    return [sign * weight for sign, weight in zip(signs, weights, strict=True)]


def pair_weight(row: Mapping[str, Any], where: str) -> float:
    """The factor on a pair's loss; 1 where the column is empty.

    Raises:
        DataError: It is not a finite number of at least 0.
    """
    value = row.get(PAIR_WEIGHT_COLUMN)
    if value is None:
        return 1.0
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise DataError(
            f"{where}: column {PAIR_WEIGHT_COLUMN} must be a finite number of at least "
            f"0, got {value!r}; correct it, or remove the column for equal weights"
        )
    return float(value)
