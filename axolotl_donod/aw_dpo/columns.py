"""One tokenised preference row in, the columns that the loss reads out.

Adds to `rows` what section `aw_dpo` asks for: ablations, exchanged segments, segments
of the user's own, and a weight per pair. Runs inside `datasets.map`.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from axolotl_donod.aw_dpo.collator import (
    ENDS_COLUMNS,
    PAIR_WEIGHT_COLUMN,
    WEIGHTS_COLUMN,
)
from axolotl_donod.aw_dpo.rows import prepare_row
from axolotl_donod.aw_dpo.segments import segment_ends
from axolotl_donod.aw_dpo.weights import drop_undecided, harm_gaps, row_name
from axolotl_donod.config import AwDpoConfig
from axolotl_donod.errors import DataError

_SIDES = ("chosen", "rejected")


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
        columns |= _tagged_ends(columns, tokenizer, settings.segments, where)
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
    weights = _judged(_gaps(row, settings, where), settings)
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


def _gaps(
    row: Mapping[str, Any], settings: AwDpoConfig, where: str
) -> Sequence[float] | None:
    if not settings.tagged:
        return harm_gaps(row, where)
    names = harm_columns(settings)
    found = {name: row.get(name) for name in names}
    missing = [name for name in names if found[name] is None]
    if len(missing) == len(names):
        return None
    if missing:
        raise DataError(
            f"{where}: column {missing[0]} is empty while other scores are present; a "
            f"pair needs all of {', '.join(names)}, or none of them to get "
            "aw_dpo.segment_weights"
        )
    for name, value in found.items():
        if not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
            raise DataError(
                f"{where}: column {name} must be a harmfulness in [0, 1], got "
                f"{value!r}; judge the pair again or remove the row"
            )
    return [
        float(row[f"rejected_harm_{name}"]) - float(row[f"chosen_harm_{name}"])
        for name in settings.segment_names
    ]


def harm_columns(settings: AwDpoConfig) -> tuple[str, ...]:
    """The score columns of segments that the user named."""
    return tuple(
        f"{side}_harm_{name}" for side in _SIDES for name in settings.segment_names
    )


def drop_unusable(dataset: Any, settings: AwDpoConfig, name: str) -> tuple[Any, int]:
    """Remove the scored pairs whose chosen response is better in no segment.

    Returns:
        The data set without those rows, and how many there were.

    Raises:
        DataError: A row has unusable scores, or no pair is left.
    """
    if not settings.tagged:
        return drop_undecided(dataset, name)
    present = [
        column for column in harm_columns(settings) if column in dataset.features
    ]
    if not present:
        return dataset, 0
    read = dataset.select_columns(present)
    better = partial(_better_somewhere, settings=settings, name=name)
    kept = [index for index, row in enumerate(read) if better(row, index)]
    if not kept:
        raise DataError(
            f"the {name} dataset: in all {len(dataset)} pairs the chosen response is "
            "at least as harmful as the rejected one in every segment; check that "
            "chosen_harm_* and rejected_harm_* are not swapped"
        )
    return dataset.select(kept), len(dataset) - len(kept)


def _better_somewhere(
    row: Mapping[str, Any], index: int, settings: AwDpoConfig, name: str
) -> bool:
    gaps = _gaps(row, settings, row_name(index, name, row))
    return gaps is None or max(gaps) > 0.0


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


def _tagged_ends(
    columns: Mapping[str, Any], tokenizer: Any, tags: Sequence[str], where: str
) -> dict[str, list[int]]:
    decode = partial(
        tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    found = {}
    for side, column in zip(_SIDES, ENDS_COLUMNS, strict=True):
        try:
            found[column] = segment_ends(columns[f"{side}_ids"], decode, tags)
        except ValueError as error:
            raise DataError(f"{where}: {side}: {error}") from error
    return found
