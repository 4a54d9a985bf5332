"""Trained answers inside tokenised rows: takes ids and labels, gives texts and back.

It knows nothing of models, scores or of what becomes of a text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from axolotl_donod.pruning.rows import IGNORED_LABEL

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A role on a line of its own, as ChatML and Gemma write after their turn token.
_ROLE = re.compile(r"\w+\n")


@dataclass(frozen=True)
class Answer:
    """The text of a trained span, without what frames it.

    Attributes:
        start: Index of its first token in the row.
        end: Index after its last token.
        before: Text of these tokens that stays in front: spaces, a role.
        text: The answer.
        after: Spaces that stay behind.
        ids: These tokens.
    """

    start: int
    end: int
    before: str
    text: str
    after: str
    ids: list[int]


class AnswerReader:
    """Reads and rewrites the answers of rows that a tokenizer made.

    Args:
        tokenizer: The one that made the rows.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self._special = {index for index, token in added.items() if token.special}
        self._special.update(tokenizer.all_special_ids)
        self._anchor = self._encode("\n")

    def read(self, row: Mapping[str, Any]) -> list[Answer]:
        """Return the answer of each contiguous span of labels, in order.

        Special tokens and spaces around it, such as an end of turn, belong to the
        frame. Of a span with special tokens inside, as in rows that train on their
        prompt too, the answer is the last text. Spans without text have none.

        Args:
            row: `input_ids` and `labels` of S tokens.
        """
        ids = [int(index) for index in row["input_ids"]]
        found = []
        for start, end in _spans(row["labels"]):
            for first, last in reversed(self._texts(ids, start, end)):
                answer = self._answer(ids, first, last)
                if answer.text:
                    found.append(answer)
                    break
        return found

    def encode(self, answer: Answer, text: str) -> list[int]:
        """Return the ids of a text in an answer's place, frame included.

        Some tokenizers mark in the first token that a text begins; if the answer's
        own tokens show that it goes on a text, so does the new one.
        """
        whole = answer.before + answer.text + answer.after
        new = answer.before + text + answer.after
        begins = self._encode(whole) == answer.ids
        if not begins and self._go_on(whole) == answer.ids:
            return self._go_on(new)
        return self._encode(new)

    def _texts(self, ids: list[int], start: int, end: int) -> list[tuple[int, int]]:
        edges = [i for i in range(start, end) if ids[i] in self._special]
        starts, ends = [start, *(i + 1 for i in edges)], [*edges, end]
        return [(a, b) for a, b in zip(starts, ends, strict=True) if a < b]

    def _answer(self, ids: list[int], start: int, end: int) -> Answer:
        whole = self._tokenizer.decode(
            ids[start:end],
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        after_special = start == 0 or ids[start - 1] in self._special
        role = _ROLE.match(whole) if after_special else None
        head = role[0] if role else ""
        body = whole[len(head) :]
        lead = body[: len(body) - len(body.lstrip())]
        trail = body[len(body.rstrip()) :] if body.strip() else ""
        ids = ids[start:end]
        return Answer(start, end, head + lead, body.strip(), trail, ids)

    def _go_on(self, text: str) -> list[int]:
        ids, size = self._encode("\n" + text), len(self._anchor)
        return ids[size:] if ids[:size] == self._anchor else self._encode(text)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))


def _spans(labels: Sequence[int]) -> Iterator[tuple[int, int]]:
    trained = np.asarray(labels) != IGNORED_LABEL
    edges = np.flatnonzero(np.diff(trained, prepend=False, append=False))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
