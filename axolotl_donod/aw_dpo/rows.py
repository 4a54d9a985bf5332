"""One tokenised preference row in, its segment columns out.

Runs inside `datasets.map`; knows nothing of models or training.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from axolotl_donod.aw_dpo.collator import WEIGHTS_COLUMN
from axolotl_donod.aw_dpo.segments import NO_REASONING, reasoning_length
from axolotl_donod.aw_dpo.weights import harm_gaps, row_name, segment_weights
from axolotl_donod.cot import (
    SOURCE_COLUMN,
    check_reasoning,
    opens_reasoning,
)
from axolotl_donod.errors import DataError
from axolotl_donod.think import THINK_CLOSE, THINK_OPEN


def prepare_row(
    row: Mapping[str, Any],
    index: int,
    *,
    tokenizer: Any,
    epsilon: float,
    default: tuple[float, float],
    name: str,
) -> dict[str, Any]:
    """Lengths of the reasoning, segment weights, and ids with one BOS and one end.

    A response whose reasoning has no text is all answer, and one whose answer has none
    is all reasoning, so that the other segment of the pair takes its weight.

    Args:
        row: Has `prompt_ids`, `chosen_ids` and `rejected_ids` beside the text columns,
            and optionally the judge's scores.
        index: Position of the row, for errors.
        tokenizer: The tokenizer that made the ids.
        epsilon: Smoothing of the weights.
        default: Reasoning and answer weight of a pair without scores.
        name: Names the data set in errors.

    Returns:
        The new columns; `segment_weights` are reasoning and answer, in [0, 1], and a
        reasoning that was cut before it closed is one token longer than the response.

    Raises:
        DataError: The scores are unusable, the text closes its reasoning with a tag
            that the tokens do not have, or the reasoning does not close once.
    """
    where = row_name(index, name, row)
    weights = segment_weights(harm_gaps(row, where), epsilon, default)
    if weights is None:
        raise DataError(f"{where}: the chosen response is better in no segment")
    columns: dict[str, Any] = {
        "prompt_ids": _one_bos(row["prompt_ids"], tokenizer.bos_token_id),
        WEIGHTS_COLUMN: list(weights),
    }
    for side in ("chosen", "rejected"):
        ids = _one_end(row[f"{side}_ids"], tokenizer)
        columns[f"{side}_ids"] = ids
        columns[f"{side}_reasoning_len"] = _side_length(
            row, ids, side, tokenizer, where
        )
    return columns


def _side_length(
    row: Mapping[str, Any], ids: Sequence[int], side: str, tokenizer: Any, where: str
) -> int:
    decode = partial(
        tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    text: str = decode(ids)
    if THINK_CLOSE not in text and THINK_CLOSE in _text(row[side]):
        raise DataError(
            f"{where}: {side} has {THINK_CLOSE}, but not after it was rendered and "
            "tokenised; use a dataset type that keeps reasoning, such as "
            "axolotl_donod.cot_pairs"
        )
    opened = opens_reasoning(decode(row["prompt_ids"]))
    unclosed = THINK_CLOSE not in text and (opened or THINK_OPEN in text)
    if unclosed and row.get(SOURCE_COLUMN):
        # The dataset type saw it closed, so excess_length_strategy has cut it since.
        return len(ids) + 1
    try:
        check_reasoning(text, side, opened=opened)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    length = reasoning_length(ids, decode)
    reasoning, _, answer = text.partition(THINK_CLOSE)
    if length == NO_REASONING or not reasoning.rpartition(THINK_OPEN)[2].strip():
        return NO_REASONING
    return length if _without_ends(answer, tokenizer) else len(ids)


def _without_ends(answer: str, tokenizer: Any) -> str:
    for token in _special_tokens(tokenizer).values():
        answer = answer.replace(token, "")
    return answer.strip()


def _one_end(ids: Sequence[int], tokenizer: Any) -> list[int]:
    """Take away the EOS that TRL puts after a turn end of another name."""
    special = _special_tokens(tokenizer)
    eos = tokenizer.eos_token_id
    doubled = len(ids) > 1 and ids[-1] == eos and ids[-2] != eos and ids[-2] in special
    return list(ids[:-1]) if doubled else list(ids)


def _special_tokens(tokenizer: Any) -> dict[int, str]:
    added = tokenizer.added_tokens_decoder.items()
    return {number: token.content for number, token in added if token.special}


def _one_bos(ids: Sequence[int], bos: int | None) -> list[int]:
    """Templates that write BOS get a second one from tokenizers that add it."""
    doubled = bos is not None and list(ids[:2]) == [bos, bos]
    return list(ids[1:]) if doubled else list(ids)


def _text(response: str | list[Mapping[str, Any]]) -> str:
    if isinstance(response, str):
        return response
    return "".join(str(message.get("content") or "") for message in response)
