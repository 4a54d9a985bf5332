"""Rows worth reading: takes ranks and flags, gives indices; makes their texts harmless.

It knows nothing of files or pages.
"""

import unicodedata

import numpy as np

from axolotl_donod.pruning.donod import BoolArray, IntArray

BEST, WORST, NEAREST = "Most kept", "Most removed", "Nearest the threshold"
UNSCORED = "Without a score"
_HEAD_LETTERS, _TAIL_LETTERS = 1600, 800
# They turn the text that follows around, beyond their own row if left open.
_TURNING = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))


def pick_rows(
    rank: IntArray, kept: BoolArray, scored: BoolArray, cut: BoolArray, count: int
) -> dict[str, IntArray]:
    """Choose rows that show what a ranking does.

    Args:
        rank: (n,) places from 1 to n without gaps.
        kept: (n,) whether a row stays.
        scored: (n,) whether a row has a score; the others have the last places.
        cut: (n,) whether the cut of the ranking alone decided about a row.
        count: Most rows of each group.

    Returns:
        Group to indices: the best kept rows, best first; the worst removed ones,
        worst first; those on both sides of the cut, by rank; rows without a score.
    """
    line = np.empty(rank.size, dtype=np.int64)
    line[rank - 1] = np.arange(rank.size)
    stays, goes = line[kept[line]], line[(scored & ~kept)[line]]
    above, below = stays[cut[stays]], goes[cut[goes]]
    half = (count + 1) // 2
    near = [*above[max(0, above.size - half) :], *below[: count - half]]
    return {
        BEST: stays[:count],
        WORST: goes[::-1][:count],
        NEAREST: np.array(near, dtype=np.int64),
        UNSCORED: np.flatnonzero(~scored)[:count],
    }


def harmless(text: str) -> str:
    """Cut a long text in its middle and spell out what a page cannot show.

    Line feeds and tabs stay; other control characters, lone surrogates and those that
    turn the direction of writing become their code, such as <U+001B>.
    """
    left_out = len(text) - _HEAD_LETTERS - _TAIL_LETTERS
    if left_out > 0:
        text = (
            f"{text[:_HEAD_LETTERS]}\n[… {left_out:,} characters left out …]\n"
            f"{text[-_TAIL_LETTERS:]}"
        )
    return "".join(map(_shown, text.replace("\r\n", "\n")))


def _shown(letter: str) -> str:
    if letter in "\n\t":
        return letter
    if letter in _TURNING or unicodedata.category(letter) in ("Cc", "Cs"):
        return f"<U+{ord(letter):04X}>"
    return letter
