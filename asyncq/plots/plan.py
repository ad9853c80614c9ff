"""Figures of a plan; computes nothing. Drawn on canvases of their own, without pyplot and its global state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from asyncq.planner import Plan, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "efficiency", "momentum_budget", "regimes", "time_to_target", "trade_off"]

FIGURES = ("efficiency", "momentum_budget", "time_to_target", "trade_off", "regimes")
HARDWARE, STATISTICAL, TOTAL, GREY = "#4c72b0", "#c44e52", "#2d2d2d", "#8c8c8c"
SORTS = ("o", "s", "^", "D", "v", "P", "X")


def efficiency(plan: Plan) -> Figure:
    """Hardware, statistical and total efficiency against workers in flight, as in Figure 1 of [AbM]: lower is
    better."""
    figure = _figure(3, width=11.0)
    panels = (
        ("hardware: T_m / T_1", HARDWARE, lambda row: row.hardware_efficiency),
        ("statistical: I_m / I_1", STATISTICAL, lambda row: row.statistical_efficiency),
        ("time to target over one worker's", TOTAL, lambda row: row.relative.mean),
    )
    for axes, (title, colour, value) in zip(figure.axes, panels, strict=True):
        _by_sort(plan, axes, value, colour)
        axes.set_title(title, fontsize=10)
        _scales(axes, log=True)
        axes.set_xlabel(_flight(plan))
    figure.axes[0].set_ylabel("lower is better")
    _legend(figure.axes[-1])
    return figure


def momentum_budget(plan: Plan) -> Figure:
    """The best explicit momentum against the additive rule's, as in Figures 2 and 3 of [AbM]."""
    figure = _figure(1)
    axes = figure.axes[0]
    bend = plan.regimes
    target = plan.problem.momentum
    axes.axhline(target, color=GREY, linewidth=1, linestyle="--", label=f"mu* = {target:.2f} (one worker, no noise)")
    implicit = [target - (1.0 - 1.0 / m) for m in bend.workers]
    axes.plot(bend.workers, implicit, color=HARDWARE, linewidth=1.2, label="additive rule: mu* - (1 - 1/M)")
    axes.plot(bend.workers, bend.momentum, ".:", color=STATISTICAL, label="best in mean square, exponential work")
    _by_sort(plan, axes, lambda row: row.tuned.momentum, TOTAL)
    axes.axhline(0.0, color="black", linewidth=0.6)
    _scales(axes)
    axes.set_xlim(0.9, 1.2 * max(2, *(_in_flight(row) for row in plan.rows)))
    axes.set_xlabel(_flight(plan))
    axes.set_ylabel("explicit momentum")
    _legend(axes)
    return figure


def time_to_target(plan: Plan) -> Figure:
    """Time to the target of every candidate that reaches it, over one worker's, with 95 % intervals."""
    rows = [row for row in plan.ranked if row.relative.mean < float("inf")]
    figure = _figure(1, height=1.6 + 0.32 * max(3, len(rows)))
    axes = figure.axes[0]
    for place, row in enumerate(rows):
        colour = {"exact": TOTAL, "replay": HARDWARE, "model": GREY}[row.source]
        axes.plot(row.relative.mean, place, "o", color=colour, markersize=5)
        if row.relative.ci95 is not None:
            axes.hlines(place, *row.relative.ci95, color=colour, linewidth=2)
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("time to target over one worker's\nblack: exact; blue: replayed, 95 %; grey: theory alone")
    return figure


def trade_off(plan: Plan) -> Figure:
    """Samples per second against the 99 % staleness, the marker as large as the share of time wasted or waited."""
    figure = _figure(1)
    axes = figure.axes[0]
    for row in plan.rows:
        lost = row.hardware.waiting + row.hardware.wasted
        samples = row.hardware.throughput.mean * row.candidate.samples
        axes.scatter(row.hardware.stale99, samples, s=20 + 400 * lost, color=HARDWARE, alpha=0.55, linewidth=0)
        axes.annotate(row.name, (row.hardware.stale99, samples), fontsize=7, xytext=(4, 4), textcoords="offset points")
    axes.set_xscale("symlog", linthresh=1)
    axes.margins(0.2)
    axes.set_xlabel("staleness that 99 % of the gradients do not exceed (updates)")
    axes.set_ylabel("batches per second")
    axes.set_title("larger discs: more machine time waited or thrown away", fontsize=9)
    return figure


def regimes(plan: Plan) -> Figure:
    """Updates to the target against asynchronous workers: flat where noise dominates, rising where curvature does."""
    figure = _figure(1)
    axes = figure.axes[0]
    bend = plan.regimes
    for values, colour, name in (
        (bend.without_noise, STATISTICAL, "no noise"),
        (bend.updates, TOTAL, "the plan's noise"),
        (bend.ten_times_noise, HARDWARE, "ten times the noise"),
    ):
        axes.plot(bend.workers, values, ".-", color=colour, label=name)
    axes.axhline(2.0, color=GREY, linewidth=0.8, linestyle="--")
    if bend.critical is not None:
        axes.axvline(bend.critical, color=GREY, linewidth=0.8, linestyle=":")
        axes.annotate(f"doubled at {bend.critical:.3g} workers", (bend.critical, 2.0), fontsize=8, xytext=(4, 6),
                      textcoords="offset points")  # fmt: skip
    _scales(axes, log=True)
    axes.set_xlabel("asynchronous workers (exponential work, one gradient an update)")
    axes.set_ylabel("updates to the target over one worker's")
    _legend(axes)
    return figure


# -- parts of figures -------------------------------------------------------------------------------------------------


def _figure(panels: int, *, width: float = 7.0, height: float = 4.2) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    for axes in figure.subplots(1, panels, squeeze=False)[0]:
        axes.grid(color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _in_flight(row: Row) -> int:
    return row.candidate.network.workers


def _flight(plan: Plan) -> str:
    return "groups" if any(row.candidate.groups for row in plan.rows) else "workers"


def _by_sort(plan: Plan, axes: Axes, value: Callable[[Row], float], colour: str) -> None:
    """One series for every protocol."""
    sorts: dict[str, list[Row]] = {}
    for row in plan.rows:
        given = row.candidate.scenario.protocol.parameters
        words = " ".join([row.candidate.scenario.protocol.kind, *(f"{key}={part}" for key, part in given.items())])
        sorts.setdefault(words, []).append(row)
    for number, (name, rows) in enumerate(sorts.items()):
        shown = sorted((row for row in rows if value(row) < float("inf")), key=_in_flight)
        points: Sequence[int] = [_in_flight(row) for row in shown]
        marker = SORTS[number % len(SORTS)]
        axes.plot(points, [value(row) for row in shown], f"{marker}-", color=colour, markersize=5, label=name)


def _scales(axes: Axes, *, log: bool = False) -> None:
    """Powers of two along, and figures that read as numbers."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    if not any(np.size(line.get_xdata()) for line in axes.lines):  # nothing to scale
        axes.text(0.5, 0.5, "no candidate reaches the target", ha="center", fontsize=8, transform=axes.transAxes)
        return
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        low, high = axes.get_ylim()
        axes.yaxis.set_minor_formatter(
            FuncFormatter(lambda y, _: f"{y:.2g}") if high < 12 * low else NullFormatter()
        )


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=8)
