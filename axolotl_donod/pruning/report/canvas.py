"""An empty figure and its style: takes a drawing function, gives PNG bytes.

It knows nothing of what is drawn; the same drawing gives the same bytes every time.
"""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "savefig.dpi": 120,
    # Names of files and scores are text, whatever dollars they hold.
    "text.parse_math": False,
}
_LABEL_LETTERS = 36


def png(draw: Callable[[Figure], None], width: float, height: float) -> bytes:
    """Draw on an empty figure of `width` by `height` inches."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure((width, height), layout="constrained")
        draw(figure)
        buffer = BytesIO()
        # Tight, since long labels may reach beyond the layout.
        figure.savefig(
            buffer, format="png", bbox_inches="tight", metadata={"Software": None}
        )
    return buffer.getvalue()


def as_percent(value: float, _: Any) -> str:
    """Write a share in per cent at a tick."""
    return f"{round(100 * value, 6):g} %"


def drawable(text: str) -> str:
    """Shorten a name in its middle; what the font lacks becomes a box."""
    known = get_font(findfont("DejaVu Sans")).get_charmap()
    if len(text) > _LABEL_LETTERS:
        text = f"{text[:12]}…{text[13 - _LABEL_LETTERS :]}"
    return "".join(c if c.isprintable() and ord(c) in known else "□" for c in text)
