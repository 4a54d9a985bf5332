"""The funnel as a picture: takes its numbers, gives PNG bytes.

The same numbers give the same bytes every time.
"""

from matplotlib.figure import Figure

from axolotl_donod.preference.funnel import BINS, Funnel
from axolotl_donod.pruning.report.canvas import png

_WIDTH, _HEIGHT = 13.0, 3.6
_COLOUR, _FAINT = "#3b6ea5", "#c8d4e3"


def funnel_chart(funnel: Funnel) -> bytes:
    """Draw the steps, the histogram of gaps, and the weights of the pairs."""
    return png(lambda figure: _draw(figure, funnel), _WIDTH, _HEIGHT)


def _draw(figure: Figure, funnel: Funnel) -> None:
    steps, gaps, weights = figure.subplots(1, 3)
    names = [step.name for step in funnel.steps]
    counts = [step.count for step in funnel.steps]
    bars = steps.barh(names, counts, color=_COLOUR)
    steps.bar_label(bars, padding=3)
    steps.invert_yaxis()
    steps.set_title("From prompts to pairs")
    steps.margins(x=0.15)

    starts = [place / BINS for place in range(BINS)]
    above = [start + 1 / BINS > funnel.threshold + 1e-9 for start in starts]
    colours = [_COLOUR if one else _FAINT for one in above]
    gaps.bar(starts, funnel.gap_counts(), width=0.9 / BINS, align="edge", color=colours)
    gaps.axvline(funnel.threshold, color="black", linewidth=1, linestyle="--")
    gaps.set_title("Widest gap per prompt")
    gaps.set_xlabel(f"gap of the full score; pairs are above {funnel.threshold:g}")
    gaps.set_ylabel("prompts")
    gaps.set_xlim(0, 1)

    reasoning = [one for one, _ in funnel.weights]
    weights.hist(reasoning, bins=BINS, range=(0, 1), rwidth=0.9, color=_COLOUR)
    weights.set_title("Weight of the reasoning in AW-DPO")
    weights.set_xlabel("0: the answer alone, 1: the reasoning alone")
    weights.set_ylabel("pairs")
    weights.set_xlim(0, 1)
    for axes in (gaps, weights):
        axes.yaxis.get_major_locator().set_params(integer=True)
