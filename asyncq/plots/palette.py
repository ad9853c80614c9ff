"""One colour per quantity in all figures, from those that colour-blind readers can tell apart (Okabe and Ito)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq.formats import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "AGAINST", "BEST", "FITTED", "GRID", "INK", "KNOWN", "MODEL", "OTHER", "PALE", "RATE", "SERIES", "label", "literal",
]  # fmt: skip

KNOWN = "#0072b2"  # what is simulated, measured or known exactly; hardware
PALE = "#8fbfdc"  # the same as bars and areas
INK = "#1f3a5f"  # the same as marks on those: means, commits
MODEL = "#d55e00"  # a model or a recommendation against it; statistics
FITTED = RATE = BEST = "#009e73"  # other fitted laws; throughput; the best there is
OTHER = "#e69f00"  # a second choice
AGAINST = "#7f7f7f"  # what something is compared with: targets, chance, what was left out
GRID = "#e6e6e6"
SERIES = (KNOWN, MODEL, RATE, "#cc79a7", OTHER, "#56b4e9", "#5b4a3f", "#b8a800")  # of lines without a meaning


def label(text: str) -> str:
    """A name as the label of a tick: without control characters, and dollars are no mathematics."""
    return printable(text, lines=True).replace("$", r"\$")


def literal(figure: Figure) -> None:
    """Let all words of a figure stand for themselves: names of files and workers may hold dollars or worse."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        words = text.get_text()
        if "$" in words and "mathdefault" not in words and r"\$" not in words:  # matplotlib's numbers, and labels
            text.set_parse_math(False)
        text.set_text(printable(words, lines=True))
