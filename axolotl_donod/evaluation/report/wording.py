"""How numbers read in a report: takes estimates, tests and settings, gives cells.

Knows nothing of sections.
"""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from axolotl_donod.evaluation.pairing import Test
from axolotl_donod.evaluation.statistics import Estimate
from axolotl_donod.pruning.report.document import Picture, Table

_PNG_WIDTH = slice(16, 20)
# Share of its width to which a picture may shrink before its letters are too small.
_SHRINK = 0.65
_DASH = "-"
RULES = (
    "Rules for English alone tell refusals and other kinds of replies, whatever the "
    "judge of harmfulness; they miss refusals in other languages."
)


def rate(one: Estimate) -> str:
    """An estimate with its bounds, in per cent."""
    if not one.rows:
        return _DASH
    return f"{100 * one.value:.1f} % ({100 * one.low:.1f} to {100 * one.high:.1f})"


def change(one: Estimate) -> str:
    """A difference with its bounds, in percentage points."""
    if not one.rows:
        return _DASH
    return f"{100 * one.value:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"


def p_value(value: float) -> str:
    """A p-value with as many digits as mean something."""
    if not math.isfinite(value):
        return _DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def rows_of(one: Estimate) -> str:
    """Rows and base prompts an estimate rests on."""
    if one.rows == one.clusters:
        return f"{one.rows:,}"
    return f"{one.rows:,} of {one.clusters:,} prompts"


def value(found: Any) -> str:
    """A setting as text."""
    if found is None:
        return _DASH
    if isinstance(found, dict | list | tuple):
        return json.dumps(found, ensure_ascii=False, sort_keys=True, default=str)
    return str(found)


def test_table(tests: Sequence[Test], what: str) -> Table:
    """Differences with p-values, one line per test."""
    several = len({test.model for test in tests}) > 1
    header = [what, *(["model"] if several else []), "difference (95 %), points"]
    header += ["rows", "more", "fewer", "test", "p", "p, Holm"]
    lines = [
        [
            test.what,
            *([test.model] if several else []),
            change(test.estimate),
            rows_of(test.estimate),
            f"{test.gained:,}",
            f"{test.lost:,}",
            test.method,
            p_value(test.p_value),
            p_value(test.adjusted) + ("*" if test.adjusted < 0.05 else ""),
        ]
        for test in tests
    ]
    return Table(header, lines, texts=2 if several else 1)


def picture(name: str, png: bytes, caption: str) -> Picture:
    """A picture that narrow screens scroll."""
    width = int.from_bytes(png[_PNG_WIDTH], "big")
    return Picture(name, png, caption, least_width=round(_SHRINK * width))


def scope_name(scope: str) -> str:
    """A scope as people say it."""
    kind, _, name = scope.partition(" ")
    return f"{kind}: {name}" if name else scope


def ordered(groups: Iterable[Iterable[str]]) -> list[str]:
    """Every name once, in the order of first sight."""
    return list(dict.fromkeys(name for group in groups for name in group))
