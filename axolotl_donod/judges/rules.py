"""The judge `rules`: takes items, gives verdicts by patterns alone, without a model.

Provisional: for a first look and for tests; what counts needs a judge with a model.
"""

from collections.abc import Iterator, Sequence

from axolotl_donod.donod_parts import Section
from axolotl_donod.judges.judge import JudgeItem, JudgeKind, Verdict
from axolotl_donod.judges.replies import (
    ReplyKind,
    read_reasoning,
    read_reply,
    read_response,
    reply_kind,
)

__all__ = ["KIND", "ReplyKind", "RulesJudge", "RulesOptions", "reply_kind"]

VERSION = "1"


class RulesOptions(Section):
    """Settings of the judge `rules`; it has none."""


class RulesJudge:
    """Judges by patterns alone; see the module."""

    id = f"rules (provisional) {VERSION}"

    def judge(self, items: Sequence[JudgeItem]) -> Iterator[Verdict]:
        """Give a verdict for each item; none fails."""
        for item in items:
            yield self._verdict(item)

    def _verdict(self, item: JudgeItem) -> Verdict:
        whole = read_response(item.reasoning, item.answer)
        reasoning = read_reasoning(item.reasoning) if item.reasoning else None
        answer = read_reply(item.answer) if item.answer else None
        return Verdict(
            self.id,
            whole.harm,
            reasoning.harm if reasoning else None,
            answer.harm if answer else None,
            f"{whole.kind}: {whole.why}",
        )


def _build(options: RulesOptions) -> RulesJudge:
    return RulesJudge()


KIND = JudgeKind(
    "rules",
    VERSION,
    "Provisional: refusal and compliance by English patterns; offline, no model",
    RulesOptions,
    _build,
)
