"""Texts on their way to a judge: fills templates, shortens, makes them encodable.

Knows nothing of any judge.
"""

import re
from collections.abc import Iterable

_SLOT = re.compile(r"\{(prompt|response)\}")


def fill(template: str, prompt: str, response: str) -> str:
    """Put a prompt and a response into `{prompt}` and `{response}`.

    Both go in as they are: braces in them stay, and a slot named in them is no slot.
    """
    texts = {"prompt": prompt, "response": response}
    return _SLOT.sub(lambda slot: texts[slot[1]], template)


def has_slots(template: str) -> bool:
    """Whether a template takes a response; the prompt is optional."""
    return "{response}" in template


def shortened(text: str, max_chars: int) -> str:
    """Take what is too much out of the middle of a text, and say so in its place."""
    if len(text) <= max_chars:
        return text
    head = (max_chars + 1) // 2
    tail = max_chars - head
    mark = f"\n[… {len(text) - max_chars} characters left out …]\n"
    return text[:head] + mark + text[len(text) - tail :]


def encodable(text: str) -> str:
    """Replace halves of surrogate pairs, which no UTF-8 can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def defused(text: str, markers: Iterable[str]) -> str:
    """Break the marks by which a template would take a text for more than a text."""
    for marker in sorted(set(markers), key=len, reverse=True):
        if len(marker) > 1:
            text = text.replace(marker, f"{marker[0]} {marker[1:]}")
    return text


def excerpt(text: str, size: int = 200) -> str:
    """Show a text in a message: one line, the beginning of what is long."""
    line = " ".join(text.split())
    return repr(line if len(line) <= size else f"{line[:size]}…")
