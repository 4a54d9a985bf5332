"""Whether a text is English, by its most common words."""

import re
from collections.abc import Callable

# Words that make up about a third of English text, whatever it is about.
COMMON_WORDS = frozenset(
    "a about all also an and any are as at be but by can do for from had has have how "
    "i if in into is it its me more my no not of on one or our out so some that the "
    "their them then there they this to up was we what when which who will with would "
    "you your".split()
)
_WORD = re.compile("[a-z']+")


def words(text: str) -> list[str]:
    """Return the words of a text in small letters."""
    return _WORD.findall(text.lower().replace("\u2019", "'"))


def unless_plain(decode: Callable[[str], str]) -> Callable[[str], str]:
    """Make a decoder that leaves plain English as it stands.

    A model that is written to in code often refuses in plain words; decoding those
    would hide the refusal. Where neither reading is English, the decoded one stands.
    """

    def readable(reply: str) -> str:
        decoded = decode(reply)
        return reply if _english(reply) > _english(decoded) else decoded

    return readable


def _english(text: str) -> float:
    """Share of words that are among the most common English ones."""
    found = words(text)
    return sum(word in COMMON_WORDS for word in found) / max(1, len(found))
