"""One SFT row in, the messages before its response and the tagged response out.

Reads questions with reasoning and answer, tagged responses and conversations; knows
nothing of templates or tokenizers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from axolotl_donod.cot_messages import Message, shown
from axolotl_donod.errors import DataError
from axolotl_donod.think import THINK_CLOSE, THINK_OPEN

_MESSAGES = ("messages", "conversations")
_QUESTIONS = ("question", "prompt", "instruction")
_REASONINGS = ("reasoning", "reasoning_content", "thinking", "rationale")
_ANSWERS = ("response", "answer", "output", "completion")
_INPUT = "input"
_ROLES = {"human": "user", "gpt": "assistant"}


@dataclass(frozen=True)
class Fields:
    """Names of the columns; an empty reasoning is looked for in the response alone."""

    messages: str = ""
    question: str = ""
    reasoning: str = ""
    answer: str = ""

    @classmethod
    def of(cls, columns: Iterable[str], given: Mapping[str, Any]) -> "Fields":
        """Take the names that a data set's config gives, else the usual ones.

        Args:
            columns: The columns of the data set.
            given: Its config: `field_messages`, `field_human`, `field_thinking` and
                `field_model` name messages, question, reasoning and answer.

        Raises:
            DataError: A column is missing; names it.
        """
        known = list(columns)
        asked = {
            "messages": given.get("field_messages"),
            "question": given.get("field_human"),
            "reasoning": given.get("field_thinking"),
            "answer": given.get("field_model"),
        }
        missing = [name for name in asked.values() if name and name not in known]
        if missing:
            raise DataError(
                f"there is no column {missing[0]!r}, only {', '.join(known)}; correct "
                "field_messages, field_human, field_thinking or field_model"
            )
        messages = asked["messages"] or _first(_MESSAGES, known)
        if messages and not asked["question"]:
            return cls(messages=messages)
        question = asked["question"] or _first(_QUESTIONS, known)
        answer = asked["answer"] or _first(_ANSWERS, known)
        if not question or not answer:
            raise DataError(
                "there are neither messages nor a question with its answer in the "
                f"columns {', '.join(known)}; name them with field_messages, or with "
                "field_human, field_thinking and field_model"
            )
        reasoning = asked["reasoning"] or _first(_REASONINGS, known)
        return cls(question=question, reasoning=reasoning, answer=answer)


def read_row(row: Mapping[str, Any], fields: Fields) -> tuple[list[Message], str]:
    """Return the messages before the response, and the response with its tags.

    Raises:
        DataError: A part is empty or of another form.
    """
    if fields.messages:
        return _conversation(row.get(fields.messages), fields.messages)
    question = _text(row, fields.question)
    extra = row.get(_INPUT) if fields.question == "instruction" else None
    if isinstance(extra, str) and extra.strip():
        question = f"{question}\n\n{extra}"
    reasoning = row.get(fields.reasoning) if fields.reasoning else None
    response = _tagged(reasoning, _text(row, fields.answer), fields.reasoning)
    return [{"role": "user", "content": question}], response


def _first(names: Iterable[str], columns: list[str]) -> str:
    return next((name for name in names if name in columns), "")


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"column {column} must be a text and not empty, got {shown(value)}; fill "
            "it in or remove the row"
        )
    return value


def _tagged(reasoning: Any, answer: str, column: str) -> str:
    """Put the reasoning before the answer, between its tags."""
    if reasoning is None or (isinstance(reasoning, str) and not reasoning.strip()):
        return answer
    if not isinstance(reasoning, str):
        raise DataError(f"column {column} must be a text, got {shown(reasoning)}")
    if THINK_OPEN in answer or THINK_CLOSE in answer:
        raise DataError(
            f"the reasoning stands in column {column} and in the answer; remove it "
            f"from one of them: {shown(answer)}"
        )
    bare = reasoning.strip().removeprefix(THINK_OPEN).removesuffix(THINK_CLOSE)
    return f"{THINK_OPEN}{bare}{THINK_CLOSE}{answer}"


def _conversation(turns: Any, column: str) -> tuple[list[Message], str]:
    if not isinstance(turns, list) or len(turns) < 2:
        raise DataError(
            f"column {column} must be a list of messages, a response the last of "
            f"them, got {shown(turns)}"
        )
    messages = [_message(turn, column) for turn in turns]
    last = messages.pop()
    if last["role"] != "assistant":
        raise DataError(
            f"column {column} must end with a message of role assistant, got role "
            f"{last['role']!r}; add the response or remove the row"
        )
    return messages, last["content"]


def _message(turn: Any, column: str) -> Message:
    """One turn with its reasoning written into the content."""
    if not isinstance(turn, Mapping):
        raise DataError(f"column {column} holds {shown(turn)} in place of a message")
    role = turn.get("role") or turn.get("from")
    content = turn.get("content") or turn.get("value")
    if not isinstance(role, str) or not isinstance(content, str) or not content.strip():
        raise DataError(
            f"column {column}: a message needs a role and a text that is not empty, "
            f"got {shown(turn)}"
        )
    named = next((name for name in _REASONINGS if turn.get(name)), "")
    if named:
        content = _tagged(turn[named], content, f"{column}.{named}")
    return {"role": _ROLES.get(role, role), "content": content}
