"""Figures of a plan, drawn without pyplot and its global state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from asyncq.planner import Plan, PlanRow
from asyncq.plots.palette import AGAINST, GRID, KNOWN, MODEL, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "efficiency", "momentum_budget", "regimes", "time_to_target", "trade_off"]

FIGURES = ("efficiency", "momentum_budget", "time_to_target", "trade_off", "regimes")
TOTAL = "#2d2d2d"
SORTS = ("o", "s", "^", "D", "v", "P", "X")
STYLES = ("-", "--", "-.", ":")


def efficiency(plan: Plan) -> Figure:
    """Hardware, statistical and total efficiency against workers in flight, as in Figure 1 of [AbM]: lower is
    better. Candidates with equally many in flight are listed, the fastest first."""
    panels: tuple[tuple[str, str, Callable[[PlanRow], float]], ...] = (
        ("hardware: T_m / T_1", KNOWN, lambda row: row.hardware_efficiency),
        ("statistical: I_m / I_1", MODEL, lambda row: row.statistical_efficiency),
        ("total: time over one worker's", TOTAL, lambda row: row.relative.mean),
    )
    level = len({_in_flight(row) for row in plan.rows}) == 1
    rows = [row for row in plan.ranked if row.relative.mean < float("inf")]
    figure = _figure(3, width=11.0, height=1.6 + 0.32 * max(3, len(rows)) if level else 4.6)
    for axes, (title, colour, value) in zip(figure.axes, panels, strict=True):
        axes.set_title(title, fontsize=10)
        if level:
            axes.plot([value(row) for row in rows], range(len(rows)), "o", color=colour, markersize=5)
            _logarithmic(axes.xaxis)
            names = [label(row.name) if axes is figure.axes[0] else "" for row in rows]
            axes.set_yticks(range(len(rows)), names, fontsize=8)
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.set_xlabel("lower is better")
        else:
            _by_sort(plan, axes, value, colour)
            _powers_of_two(axes)
            _logarithmic(axes.yaxis)
            axes.set_xlabel(_flight(plan))
    if not level:
        figure.axes[0].set_ylabel("lower is better")
        _legend(figure, figure.axes[-1], columns=4)
    return figure


def momentum_budget(plan: Plan) -> Figure:
    """Best explicit momentum against that of the additive rule, as in Figures 2 and 3 of [AbM]."""
    figure = _figure(1, height=5.4)
    axes = figure.axes[0]
    bend = plan.regimes
    target = plan.problem.momentum
    axes.axhline(target, color=AGAINST, linewidth=1, linestyle="--", label=f"mu* = {target:.2f} (one worker, no noise)")
    implicit = [target - (1.0 - 1.0 / m) for m in bend.workers]
    axes.plot(bend.workers, implicit, "-.", color=KNOWN, linewidth=1.2, label="additive rule: mu* - (1 - 1/M)")
    axes.plot(bend.workers, bend.momentum, ".:", color=MODEL, label="best in mean square, exponential work")
    _by_sort(plan, axes, lambda row: row.tuned.momentum, TOTAL)
    axes.axhline(0.0, color="black", linewidth=0.6)
    _powers_of_two(axes)
    axes.set_xlim(0.9, 1.2 * max(2, *(_in_flight(row) for row in plan.rows)))
    axes.set_xlabel(_flight(plan))
    axes.set_ylabel("explicit momentum")
    _legend(figure, axes, columns=2)
    return figure


def time_to_target(plan: Plan) -> Figure:
    """Time to the target of every candidate that reaches it, over one worker's, with 95 % intervals."""
    rows = [row for row in plan.ranked if row.relative.mean < float("inf")]
    figure = _figure(1, height=1.6 + 0.32 * max(3, len(rows)))
    axes = figure.axes[0]
    for place, row in enumerate(rows):
        marker, colour, fill = {
            "exact": ("o", TOTAL, TOTAL), "replay": ("s", KNOWN, KNOWN), "model": ("D", AGAINST, "white"),
        }[row.source]  # fmt: skip
        axes.plot(row.relative.mean, place, marker, color=colour, markerfacecolor=fill, markersize=5)
        if row.relative.ci95 is not None:
            axes.hlines(place, *row.relative.ci95, color=colour, linewidth=2)
    axes.set_yticks(range(len(rows)), [label(row.name) for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("time to target over one worker's\ndisc: exact; square: replayed, 95 %; open diamond: theory alone")
    return figure


def trade_off(plan: Plan) -> Figure:
    """Batches per second against the 99 % staleness; the size of a disc is the share of time waited or wasted, its
    number that in the list, the fastest candidate first."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    figure = _figure(1, width=9.0, height=max(4.2, 1.4 + 0.22 * len(plan.rows)))
    axes = figure.axes[0]
    top = 0.0
    for number, row in enumerate(plan.ranked, 1):
        lost = row.hardware.waiting + row.hardware.wasted
        samples = row.hardware.throughput.mean * row.candidate.samples
        top = max(top, samples)
        axes.scatter(row.hardware.stale99, samples, s=20 + 400 * lost, color=KNOWN, alpha=0.5, edgecolor=TOTAL,
                     linewidth=0.6, label=f"{number}  {row.name}: {100 * lost:.0f} % lost")  # fmt: skip
        side = 1 if number % 2 else -1
        axes.annotate(f"{number}", (row.hardware.stale99, samples), fontsize=8, xytext=(9 * side, 7),
                      textcoords="offset points", ha="center")  # fmt: skip
    axes.set_xscale("symlog", linthresh=1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(0.1)
    axes.set_ylim(0.0, 1.12 * top)
    axes.set_xlabel("staleness that 99 % of the gradients do not exceed (updates)")
    axes.set_ylabel("batches per second")
    axes.set_title("larger discs: more machine time waited or thrown away", fontsize=9)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8, handlelength=0, markerscale=0.0)
    return figure


def regimes(plan: Plan) -> Figure:
    """Updates to the target against the number of asynchronous workers: flat in noise, rising in curvature."""
    figure = _figure(1)
    axes = figure.axes[0]
    bend = plan.regimes
    for values, colour, style, name in (
        (bend.without_noise, MODEL, "^--", "no noise"),
        (bend.updates, TOTAL, "o-", "the plan's noise"),
        (bend.ten_times_noise, KNOWN, "s:", "ten times the noise"),
    ):
        axes.plot(bend.workers, values, style, color=colour, markersize=4, label=name)
    axes.axhline(2.0, color=AGAINST, linewidth=0.8, linestyle="--")
    if bend.critical is not None:
        axes.axvline(bend.critical, color=AGAINST, linewidth=0.8, linestyle=":")
        late = bend.critical > 16
        axes.annotate(f"doubled at {bend.critical:.3g} workers", (bend.critical, 0.97), fontsize=8, va="top",
                      xycoords=("data", "axes fraction"), xytext=(-4 if late else 4, 0), textcoords="offset points",
                      ha="right" if late else "left")  # fmt: skip
    _powers_of_two(axes)
    _logarithmic(axes.yaxis)
    axes.set_xlabel("asynchronous workers (exponential work, one gradient an update)")
    axes.set_ylabel("updates to the target over one worker's")
    _legend(figure, axes, columns=3)
    return figure


# -- parts of figures -------------------------------------------------------------------------------------------------


def _figure(panels: int, *, width: float = 7.0, height: float = 4.2) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    for axes in figure.subplots(1, panels, squeeze=False)[0]:
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _in_flight(row: PlanRow) -> int:
    return row.candidate.network.workers


def _flight(plan: Plan) -> str:
    return "groups" if any(row.candidate.groups for row in plan.rows) else "workers"


def _by_sort(plan: Plan, axes: Axes, value: Callable[[PlanRow], float], colour: str) -> None:
    """A series for every protocol, with its name."""
    spelled = [
        [row.candidate.scenario.protocol.kind]
        + [f"{key}={part}" for key, part in row.candidate.scenario.protocol.parameters.items()]
        for row in plan.rows
    ]
    common = set.intersection(*map(set, spelled)) if len({tuple(words) for words in spelled}) > 1 else set()
    sorts: dict[str, list[PlanRow]] = {}
    for row, words in zip(plan.rows, spelled, strict=True):
        sorts.setdefault(" ".join(word for word in words if word not in common), []).append(row)
    for number, (name, rows) in enumerate(sorts.items()):
        shown = sorted((row for row in rows if value(row) < float("inf")), key=_in_flight)
        points: Sequence[int] = [_in_flight(row) for row in shown]
        axes.plot(points, [value(row) for row in shown], color=colour, marker=SORTS[number % len(SORTS)],
                  linestyle=STYLES[number % len(STYLES)], markersize=5, label=name)  # fmt: skip


def _powers_of_two(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter

    if not any(np.size(line.get_xdata()) for line in axes.lines):  # nothing to scale
        axes.text(0.5, 0.5, "no candidate reaches the target", ha="center", fontsize=8, transform=axes.transAxes)
        return
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def _logarithmic(axis: Axis) -> None:
    """Label with plain numbers at 1, 2 and 5, or closer if these would be fewer than two."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    (axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale)("log")
    low, high = axis.get_view_interval()
    wide = high > 6.0 * low
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if wide else MaxNLocator(4, steps=[1, 2, 5, 10]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


def _legend(figure: Figure, axes: Axes, *, columns: int) -> None:
    """Place the legend below the figure."""
    lines, names = axes.get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
