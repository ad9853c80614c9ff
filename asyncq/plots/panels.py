"""Figure of a reproduced claim: its panels side by side, the paper's numbers marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncq.plots.palette import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from asyncq.papers.claim import Line, Panel, Reproduction

__all__ = ["draw"]

PAPER = "#6b6b6b"


def draw(seen: Reproduction) -> Figure:
    """Draw all panels of a claim, at most three in a row."""
    from matplotlib.figure import Figure

    panels = seen.findings.panels
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=((6.4, 9.8, 12.0)[across - 1], 0.5 + 3.7 * down), layout="constrained")
    for axes, panel in zip(figure.subplots(down, across, squeeze=False).flat, panels, strict=False):
        _panel(axes, panel)
    for axes in figure.axes[len(panels) :]:
        axes.remove()
    claim = seen.claim
    figure.suptitle(f"{claim.paper} {claim.place}: {seen.verdict}", fontsize=11, x=0.01, ha="left")
    return figure


def _panel(axes: Axes, panel: Panel) -> None:
    axes.set_xscale(panel.xscale)
    axes.set_yscale(panel.yscale)
    for number, line in enumerate(panel.lines):
        _line(axes, line, SERIES[(number if line.group is None else line.group) % len(SERIES)])
    if panel.xlim is not None:
        axes.set_xlim(*panel.xlim)
    if panel.ylim is not None:
        axes.set_ylim(*panel.ylim)
    mark: dict[str, Any] = {"color": PAPER, "linewidth": 1.0, "linestyle": (0, (4, 3)), "zorder": 1}
    words: dict[str, Any] = {"color": PAPER, "fontsize": 8, "textcoords": "offset points"}
    for value, text in panel.across:
        axes.axhline(value, **mark)
        axes.annotate(text, (1, value), xycoords=("axes fraction", "data"), xytext=(-3, 3), ha="right", **words)
    for value, text in panel.upright:
        axes.axvline(value, **mark)
        axes.annotate(text, (value, 0), xycoords=("data", "axes fraction"), xytext=(4, 5), **words)
    for axis, scale in ((axes.xaxis, panel.xscale), (axes.yaxis, panel.yscale)):
        if scale == "log":
            _plain_numbers(axis)
    axes.set_title(panel.title, fontsize=10, loc="left")
    axes.set_xlabel(panel.xlabel, fontsize=9)
    axes.set_ylabel(panel.ylabel, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#ececec", linewidth=0.7)
    axes.set_axisbelow(True)
    if any(line.label for line in panel.lines):
        axes.legend(frameon=False, fontsize=8)


def _plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis of less than two decades at 1, 2 and 5, in plain numbers."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = axis.get_view_interval()
    if high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:g}")


def _line(axes: Axes, line: Line, colour: str) -> None:
    if line.whose == "paper":
        look: dict[str, Any] = {"color": PAPER, "zorder": 2, "label": line.label}
        if line.look == "points":
            axes.plot(line.x, line.y, linestyle="none", marker="x", markersize=6, markeredgewidth=1.4, **look)
        else:
            axes.plot(line.x, line.y, linestyle=(0, (5, 3)), linewidth=1.3, **look)
        return
    look = {"color": colour, "zorder": 3, "label": line.label}
    if line.look == "area":
        axes.fill_between(line.x, line.y, color=colour, alpha=0.25, linewidth=0, label=line.label)
    elif line.look == "points":
        if line.low is not None and line.high is not None:
            axes.vlines(line.x, line.low, line.high, color=colour, linewidth=1.2, zorder=3)
        axes.plot(line.x, line.y, linestyle="none", marker="o", markersize=3.4, **look)
    else:
        if line.low is not None and line.high is not None:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
        thin = {"linewidth": 1.0, "linestyle": (0, (1, 1))} if line.whose == "theory" else {"linewidth": 1.4}
        axes.plot(line.x, line.y, **thin, **look)
