"""A run over wall-clock time: how stale and how fast, while machines are slow or away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from asyncq.formats import unit_of
from asyncq.plots.palette import GRID, INK, PALE, RATE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from asyncq.statistics.collect.over_time import OverTime

__all__ = ["over_time"]

SHADES = ("#f3dcd5", "#efe6c8", "#dfe8d8", "#dcdff0")


def over_time(seen: OverTime, title: str) -> Figure:
    """Mean and 99 % staleness above, throughput below; shaded during disturbances."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    last = float(seen.edges[-1])
    size, _, unit = unit_of(last)
    edges = seen.edges / size
    _steps(above, edges, seen.quantile, color=PALE, linewidth=1.2, label="99 % of the gradients are no staler")
    _steps(above, edges, seen.mean, color=INK, linewidth=1.6, label="mean")
    _steps(below, edges, seen.throughput, color=RATE, linewidth=1.4)
    labels = dict.fromkeys(one.label for one in seen.disturbances)
    shades = {label: SHADES[i % len(SHADES)] for i, label in enumerate(labels)}
    for one in seen.disturbances:
        for axes in (above, below):
            axes.axvspan(one.begins / size, one.until / size, color=shades[one.label], zorder=0, linewidth=0)
    for phase in seen.phases:
        span = phase.begins / size, phase.until / size
        for axes, value in ((above, phase.staleness.mean), (below, phase.throughput.mean)):
            axes.hlines(value, *span, color="black", linewidth=0.9, linestyle=(0, (5, 3)))
    for label, color in list(shades.items())[:4]:
        above.fill_between([], [], [], color=color, label=label)
    above.set_ylabel(f"staleness ({seen.unit})")
    below.set_ylabel(f"{seen.unit}\nper second")
    below.set_xlabel(f"time ({unit}); dashed: mean from one change to the next")
    above.set_title(title, fontsize=11, loc="left")
    above.legend(frameon=False, fontsize=8, loc="upper right", ncols=2)
    highest = np.nanmax(seen.quantile) if np.isfinite(seen.quantile).any() else 1.0
    above.set_ylim(0, 1.3 * max(1.0, float(highest)))
    below.set_ylim(bottom=0)
    for axes in (above, below):
        axes.set_xlim(0, edges[-1])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    figure.align_ylabels()
    return figure


def _steps(axes: Axes, edges: Any, values: Any, **look: Any) -> None:
    axes.stairs(values, edges, baseline=None, **look)
