"""One preference row in, its prompt as messages and its two responses as texts out.

Reads texts and messages alike; knows nothing of templates, tokenizers or reasoning.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from axolotl_donod.errors import DataError

SIDES = ("chosen", "rejected")
_SEPARATE_REASONING = ("reasoning_content", "reasoning", "thinking")

Message = dict[str, Any]


def read_pair(sample: Mapping[str, Any]) -> tuple[list[Message], dict[str, str]]:
    """Prompt messages and responses of one row.

    A response is a text, one assistant message, or a whole conversation that ends with
    it. Conversations share all turns but the last; `prompt` may then be left out, and
    where it is there it has to say the same.

    Args:
        sample: Has `chosen`, `rejected` and, unless those are conversations, `prompt`.

    Returns:
        The messages before the response, and the response by side.

    Raises:
        DataError: A part is empty or of another form, or the turns differ.
    """
    turns = {side: _turns(sample.get(side), side) for side in SIDES}
    shared = turns["chosen"][:-1]
    if turns["rejected"][:-1] != shared:
        raise DataError(
            "chosen and rejected must share all messages but the last, got "
            f"{shown(shared)} and {shown(turns['rejected'][:-1])}; put the shared "
            "ones into prompt or remove the row"
        )
    responses = {side: _response(turns[side][-1], side) for side in SIDES}
    prompt = sample.get("prompt")
    if not shared:
        return _prompt(prompt), responses
    if prompt and not _says_the_same(prompt, shared):
        raise DataError(
            "prompt must repeat the messages before the response, or be left out: got "
            f"{shown(prompt)} and {shown(shared)}"
        )
    return shared, responses


def shown(value: Any) -> str:
    """A value as errors quote it, at most 200 characters of it."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _turns(response: Any, side: str) -> list[Message]:
    """Messages that end with the response; a text is one message."""
    if isinstance(response, str):
        return [{"role": "assistant", "content": response}]
    messages = [response] if isinstance(response, Mapping) else response
    if not _is_conversation(messages):
        raise DataError(
            f"{side} must be a text or a list of messages and not empty, got "
            f"{shown(response)}; fill it in or remove the row"
        )
    turns = [_without_none(message) for message in messages]
    if turns[-1].get("role", "assistant") != "assistant":
        raise DataError(
            f"{side} must end with a message of role assistant, got role "
            f"{turns[-1]['role']!r}; add the response or remove the row: "
            f"{shown(turns[-1])}"
        )
    return turns


def _response(message: Message, side: str) -> str:
    for name in _SEPARATE_REASONING:
        if message.get(name):
            raise DataError(
                f"{side} keeps its reasoning in the field {name}; write it into the "
                f"content as <think>…</think>: {shown(message)}"
            )
    content = message.get("content")
    if not isinstance(content, str) or not content.strip():
        raise DataError(
            f"{side} must be a text and not empty, got {shown(content)}; fill it in "
            "or remove the row"
        )
    return content


def _prompt(prompt: Any) -> list[Message]:
    if isinstance(prompt, str) and prompt.strip():
        return [{"role": "user", "content": prompt}]
    if not isinstance(prompt, str) and _is_conversation(prompt):
        return [_without_none(message) for message in prompt]
    raise DataError(
        "prompt must be a text or a list of messages and not empty, got "
        f"{shown(prompt)}; fill it in or remove the row"
    )


def _says_the_same(prompt: Any, shared: list[Message]) -> bool:
    if isinstance(prompt, str):
        content = shared[-1].get("content")
        return isinstance(content, str) and content.strip() == prompt.strip()
    return _is_conversation(prompt) and _prompt(prompt) == shared


def _is_conversation(value: Any) -> bool:
    """Whether it is a sequence of one message or more."""
    return (
        isinstance(value, Sequence)
        and len(value) > 0
        and all(isinstance(message, Mapping) for message in value)
    )


def _without_none(message: Mapping[str, Any]) -> Message:
    """A column of messages pads absent fields with None, which templates print."""
    return {key: value for key, value in message.items() if value is not None}
