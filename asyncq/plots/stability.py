"""Figures of stability and of recommendations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from asyncq.plots.palette import AGAINST, BEST, KNOWN, MODEL, OTHER
from asyncq.plots.theory import framed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from asyncq.theory.recommendation.landscape import Budget, Landscape
    from asyncq.theory.recommendation.recommendation import Recommendation
    from asyncq.theory.stability import StepSizes

__all__ = ["contraction", "momentum_budget", "stability_map"]

WORST = 20.0  # times the updates of the best pair: slower pairs have the same colour


def momentum_budget(found: Budget, workers: int | None = None) -> Figure:
    """Implicit and explicit momentum against the number of workers, with the mean-square optimum over them; ``workers``
    marks a number of workers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(
        found.target, color=AGAINST, linewidth=1.2, linestyle=(0, (5, 3)), label="target, one worker's optimum"
    )
    axes.plot(found.workers, found.implicit, "s-", color=KNOWN, markersize=4, label="implicit, 1 - 1/M")
    axes.plot(found.workers, found.explicit, "o-", color=MODEL, markersize=4, label="explicit: target less implicit")
    axes.plot(found.workers, found.best, "D-", color=BEST, markersize=5, label="best in mean square, step retuned")
    axes.axhline(0, color="black", linewidth=0.6)
    if workers is not None and found.workers[0] <= workers <= found.workers[-1]:
        axes.axvline(workers, color=AGAINST, linewidth=0.8, linestyle=":")
        axes.annotate(f"{workers} workers", (workers, -1), xytext=(4, 4), textcoords="offset points", fontsize=9)
    axes.set_xscale("log", base=2)
    axes.set_xticks(found.workers, [str(m) for m in found.workers], minor=False)
    axes.set_ylim(-1, 1.02)
    axes.set_xlabel("exponential workers M")
    axes.set_ylabel("momentum")
    axes.set_title("The momentum budget, and the momentum that is fastest in mean square", fontsize=11, loc="left")
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    framed(axes)
    return figure


def stability_map(near: Landscape, found: Recommendation) -> Figure:
    """Updates to a target over learning rate and momentum, relative to the best pair; hatched is unstable. The
    recommended pair, the best at today's learning rate, and today's setting are marked."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    ratio = np.clip(near.updates / found.best.updates, 1.0, WORST)
    high = 1.4 * max(float(near.ceiling.max()), found.best.learning_rate)
    low = found.best.learning_rate / WORST
    heights = np.broadcast_to(near.momenta[:, None], ratio.shape)
    look: dict[str, Any] = {"levels": np.geomspace(1.0, WORST, 13), "norm": LogNorm(1, WORST), "cmap": "viridis_r"}
    filled = axes.contourf(near.learning_rates, heights, ratio, **look)
    axes.set_facecolor(filled.cmap(1.0))  # slower than computed
    words = "updates to a target, times the best pair's"
    bar = figure.colorbar(filled, ax=axes, label=words, ticks=[1, 2, 3, 5, 10, 20])
    bar.ax.set_yticklabels(["1", "2", "3", "5", "10", "20 or more"])
    bar.ax.minorticks_off()
    beyond: dict[str, Any] = {"facecolor": "#f2f2f2", "edgecolor": "#dddddd", "hatch": "///", "linewidth": 0}
    axes.fill_betweenx(near.momenta, near.ceiling, high, **beyond)
    axes.plot(near.ceiling, near.momenta, color=MODEL, linewidth=2, label="ceiling: diverges to the right")
    today, kept, best = found.today, found.kept, found.best
    for pair, marker, size, colour, name in (
        (best, "*", 17, MODEL, "recommended"),
        (kept, "D", 10, OTHER, "best at today's learning rate"),
        (today, "X", 11, "black", "today's setting"),
    ):
        if pair is not None and low <= pair.learning_rate <= high and abs(pair.momentum) <= 0.96:
            where = pair.learning_rate, float(np.clip(pair.momentum, near.momenta[0], near.momenta[-1]))
            edge: dict[str, Any] = {"markeredgecolor": "white", "linestyle": "none", "zorder": 5, "clip_on": False}
            axes.plot(*where, marker, markersize=size, color=colour, label=name, **edge)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(low, high)
    axes.set_ylim(near.momenta[0], near.momenta[-1])
    axes.set_xlabel("learning rate")
    axes.set_ylabel("momentum")
    axes.set_title(f"Stable pairs and their speed: {found.criterion}", fontsize=11, loc="left")
    axes.legend(loc="lower left", fontsize=9, framealpha=0.9)
    return figure


def contraction(found: StepSizes) -> Figure:
    """The contraction per update against the step, by both criteria; 1 and above diverges."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.4), layout="constrained")
    axes = figure.subplots()
    steps = [row.step for row in found.steps]
    model = "exact" if found.exact else "independent staleness"
    mean_square, expectation = [row.mean_square for row in found.steps], [row.expectation for row in found.steps]
    axes.plot(steps, mean_square, color=MODEL, linewidth=2, label=f"E[w²] ({model})")
    axes.plot(steps, expectation, color=KNOWN, linewidth=1.6, linestyle="--", label="(E w)²")
    axes.axhline(1, color="black", linewidth=0.8)
    top = min(1.3, max(1.05, *mean_square, *expectation))
    axes.axhspan(1, 2, color="#f2f2f2", zorder=0)
    for value, name, colour in (
        (found.mean_square, "mean-square threshold", MODEL),
        (found.rule_of_thumb, "rule of thumb", AGAINST),
    ):
        if value <= steps[-1]:
            axes.axvline(value, color=colour, linewidth=0.9, linestyle=":")
            where: dict[str, Any] = {"rotation": 90, "va": "bottom", "ha": "right", "fontsize": 8, "color": colour}
            axes.annotate(
                name,
                (value, min(min(expectation), min(mean_square))),
                xytext=(-3, 2),
                textcoords="offset points",
                **where,
            )
    axes.annotate("diverges", (steps[-1], 1), xytext=(-4, 5), textcoords="offset points", ha="right", fontsize=9)
    axes.set_ylim(top=top)
    axes.set_xlim(0, steps[-1])
    axes.set_xlabel("learning rate times curvature")
    axes.set_ylabel("contraction per update")
    axes.set_title(f"{found.staleness}: {found.variant} momentum {found.momentum:g}", fontsize=11, loc="left")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    framed(axes)
    return figure
