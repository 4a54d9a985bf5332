"""One tokenised preference row in, its segment columns out.

Runs inside `datasets.map`; knows nothing of models or training.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from axolotl_donod.aw_dpo.collator import WEIGHTS_COLUMN
from axolotl_donod.aw_dpo.segments import NO_REASONING, reasoning_length
from axolotl_donod.aw_dpo.weights import harm_gaps, row_name, segment_weights
from axolotl_donod.cot import THINK_CLOSE
from axolotl_donod.errors import DataError


def prepare_row(
    row: Mapping[str, Any],
    index: int,
    *,
    tokenizer: Any,
    epsilon: float,
    default: tuple[float, float],
    name: str,
) -> dict[str, Any]:
    """Lengths of the reasoning, segment weights, and the prompt without a second BOS.

    Args:
        row: Has `prompt_ids`, `chosen_ids` and `rejected_ids` beside the text columns,
            and optionally the judge's scores.
        index: Position of the row, for errors.
        tokenizer: The tokenizer that made the ids.
        epsilon: Smoothing of the weights.
        default: Reasoning and answer weight of a pair without scores.
        name: Names the data set in errors.

    Returns:
        The new columns; `segment_weights` are reasoning and answer, in [0, 1].

    Raises:
        DataError: The scores are unusable, or the text closes its reasoning with a tag
            that the tokens do not have.
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
        columns[f"{side}_reasoning_len"] = _side_length(row, side, tokenizer, where)
    return columns


def _side_length(row: Mapping[str, Any], side: str, tokenizer: Any, where: str) -> int:
    def decode(ids: Sequence[int]) -> str:
        text: str = tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    length = reasoning_length(row[f"{side}_ids"], decode)
    if length == NO_REASONING and THINK_CLOSE in _text(row[side]):
        raise DataError(
            f"{where}: {side} has {THINK_CLOSE}, but not after it was rendered and "
            "tokenised; use a dataset type that keeps reasoning, such as "
            "axolotl_donod.cot_pairs"
        )
    return length


def _one_bos(ids: Sequence[int], bos: int | None) -> list[int]:
    """Templates that write BOS get a second one from tokenizers that add it."""
    doubled = bos is not None and list(ids[:2]) == [bos, bos]
    return list(ids[1:]) if doubled else list(ids)


def _text(response: str | list[Mapping[str, Any]]) -> str:
    if isinstance(response, str):
        return response
    return "".join(str(message.get("content") or "") for message in response)
