"""Texts of sampled answers: from token ids, and whether their reasoning has closed.

Knows nothing of models or of how ids are drawn.
"""

from collections.abc import Callable, Sequence
from typing import Any

from axolotl_donod.think import THINK_CLOSE, THINK_OPEN

Decoder = Callable[[Sequence[int]], str]


def decoder(tokenizer: Any) -> Decoder:
    """Give a function that decodes ids without special tokens, but for think tags.

    Models mark `<think>` and `</think>` as special or as plain tokens; they are part
    of an answer either way.
    """
    hidden = {
        number
        for number in special_ids(tokenizer)
        if tokenizer.decode([number]).strip() not in (THINK_OPEN, THINK_CLOSE)
    }

    def decode(ids: Sequence[int]) -> str:
        kept = [number for number in ids if number not in hidden]
        text: str = tokenizer.decode(
            kept, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    return decode


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of special tokens, those without a role such as EOS among them."""
    added = tokenizer.added_tokens_decoder
    marked = {number for number, token in added.items() if token.special}
    return marked | set(tokenizer.all_special_ids)


def is_unclosed(text: str) -> bool:
    """Whether an answer opens reasoning that it does not close."""
    return THINK_OPEN in text and THINK_CLOSE not in text
