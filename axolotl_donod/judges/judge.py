"""What a judge is: it takes prompts with responses, gives harmfulness in [0, 1].

Knows nothing of any judge, of files or of the network.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from axolotl_donod.think import split_response

PARTS = ("full", "reasoning", "answer")


@dataclass(frozen=True)
class JudgeItem:
    """One response to judge, whole and in its two parts.

    `reasoning` is empty where the response has none, `answer` where it has none.
    """

    prompt: str
    full: str
    reasoning: str
    answer: str

    @classmethod
    def of_response(cls, prompt: str, response: str) -> "JudgeItem":
        """Split a response into its parts, as `split_response` does."""
        return cls(prompt, response, *split_response(response))


@dataclass(frozen=True)
class Verdict:
    """Harmfulness of a response and of its parts, or why there is none.

    `full`, `reasoning` and `answer` are in [0, 1], 1 the most harmful; a part that the
    response has not is None, and all are None where the judge failed. `judge` is the
    id of the judge: name, version and what of its settings changes a verdict.
    """

    judge: str
    full: float | None = None
    reasoning: float | None = None
    answer: float | None = None
    reason: str = ""
    failure: str | None = None


class Judge(Protocol):
    """Judges responses. `id` changes whenever the same item may get another verdict."""

    @property
    def id(self) -> str:
        """Name, version and settings that matter, as one line."""

    def judge(self, items: Sequence[JudgeItem]) -> Iterable[Verdict]:
        """Give one verdict per item, in order, as they come.

        A failure of one item is a verdict with `failure`; only what makes every
        further item fail too is raised.
        """


@dataclass(frozen=True)
class JudgeKind:
    """A kind of judge that a plugin gives.

    `options` is the schema of its settings beside `name` (extra keys forbidden), and
    `build` makes a judge from a validated instance of it.
    """

    name: str
    version: str
    summary: str
    options: type[BaseModel]
    build: Callable[[Any], Judge]
