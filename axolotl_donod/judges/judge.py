"""What a judge is: it takes prompts with responses, gives harmfulness in [0, 1].

Knows nothing of any judge, of files or of the network.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pydantic import BaseModel

from axolotl_donod.errors import JudgeError
from axolotl_donod.judges.texts import encodable, excerpt
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

    @property
    def empty(self) -> bool:
        """Whether there is nothing to judge."""
        return not self.reasoning and not self.answer


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

    def __post_init__(self) -> None:
        # A model may write half of a surrogate pair, which no file can hold.
        object.__setattr__(self, "reason", encodable(self.reason))
        if self.failure is not None:
            object.__setattr__(self, "failure", encodable(self.failure))

    @classmethod
    def of_parts(
        cls, judge: str, scores: Mapping[str, float | None], reason: str = ""
    ) -> "Verdict":
        """Make a verdict of scores by part; a part that is missing is None."""
        full, reasoning, answer = (scores.get(part) for part in PARTS)
        return cls(judge, full, reasoning, answer, reason)


def check_verdict(verdict: Verdict, judge: str) -> None:
    """Check what a judge gave.

    Raises:
        JudgeError: It is no verdict of this judge, or holds a score outside [0, 1].
    """
    scores = {part: getattr(verdict, part) for part in PARTS}
    bad = {part: s for part, s in scores.items() if s is not None and not _in_range(s)}
    without = verdict.failure is None and verdict.full is None
    if bad or without or verdict.judge != judge:
        raise JudgeError(
            f"judge {judge} gave {excerpt(repr(replace(verdict, reason='')))}; scores "
            "must be in [0, 1] with one for `full`, under the judge's own id"
        )


def _in_range(score: Any) -> bool:
    return type(score) in (int, float) and 0 <= score <= 1


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


class UnorderedJudge(ABC):
    """A judge whose verdicts come in another order than its items.

    Batches sorted by length and concurrent requests do; what is there first can so be
    stored first.
    """

    @property
    @abstractmethod
    def id(self) -> str:
        """As in `Judge`."""

    @abstractmethod
    def judge_unordered(
        self, items: Sequence[JudgeItem]
    ) -> Iterator[tuple[int, Verdict]]:
        """Give each verdict as it comes, after the position of its item."""

    def judge(self, items: Sequence[JudgeItem]) -> Iterator[Verdict]:
        """Give one verdict per item, in order."""
        early: dict[int, Verdict] = {}
        following = 0
        for position, verdict in self.judge_unordered(items):
            early[position] = verdict
            while following in early:
                yield early.pop(following)
                following += 1

    def stop(self) -> bool:
        """Begin no further item; whether verdicts that are under way still come."""
        return False

    def spent(self) -> str:
        """What judging has cost so far, for the progress bar; empty where nothing."""
        return ""


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
