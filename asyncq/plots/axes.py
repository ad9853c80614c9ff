"""Drawings of results on given axes, for their ``plot`` methods."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from asyncq.plots.palette import AGAINST, KNOWN, MODEL, PALE
from asyncq.plots.theory import framed
from asyncq.staleness import StalenessLaw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from asyncq.planner import Plan
    from asyncq.results.replications import Replications
    from asyncq.results.run import Run
    from asyncq.theory.prediction import Prediction
    from asyncq.theory.recommendation.recommendation import Recommendation

__all__ = ["plan", "prediction", "recommendation", "replications", "run"]


def run(result: Run, axes: Axes) -> None:
    """The measured staleness law with the geometric law of its mean over it."""
    seen = result.staleness
    _law(axes, seen.law, "simulated", seen.pmf_ci95)
    axes.set_title(f"{result.scenario.name}: geometric law {result.fit.verdict}", fontsize=11)


def replications(result: Replications, axes: Axes) -> None:
    """The staleness law over all runs with the geometric law of its mean over it."""
    seen = result.staleness
    _law(axes, seen.law, f"{len(result.runs)} runs", seen.pmf_ci95)
    axes.set_title(result.runs[0].scenario.name, fontsize=11)


def prediction(result: Prediction, axes: Axes) -> None:
    """The exact law with the geometric law of its mean over it; raises ``ValueError`` without a law."""
    if result.law is None:
        raise ValueError(f"no law is known, so that there is nothing to draw: {result.no_law}")
    _law(axes, result.law, "exact")
    axes.set_title(f"{result.scenario.name}: predicted, no simulation", fontsize=11)


def recommendation(result: Recommendation, axes: Axes) -> None:
    """The largest stable learning rate at every momentum; today's pair and the best pair."""
    ceiling = [point for point in result.ceiling if isfinite(point.learning_rate)]
    momenta, rates = [point.momentum for point in ceiling], [point.learning_rate for point in ceiling]
    axes.plot(momenta, rates, color=KNOWN, label="ceiling")
    axes.plot([result.today.momentum], [result.today.learning_rate], "o", color=AGAINST, label="today")
    axes.plot([result.best.momentum], [result.best.learning_rate], "o", color=MODEL, label="recommended")
    axes.set_xlabel("momentum")
    axes.set_ylabel("learning rate")
    axes.set_yscale("log")
    axes.legend(frameon=False)
    framed(axes)


def plan(result: Plan, axes: Axes) -> None:
    """Time to the target of every candidate that reaches it, relative to one worker's; the winner is highlighted."""
    rows = [row for row in result.ranked if isfinite(row.relative.mean)]
    for place, row in enumerate(rows):
        low, high = row.relative.ci95 or (row.relative.mean, row.relative.mean)
        colour = MODEL if row is result.winner else KNOWN
        axes.plot([low, high], [place, place], color=colour, linewidth=1.5)
        axes.plot([row.relative.mean], [place], "o", color=colour)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("time to the target, relative to one worker's")
    framed(axes)


def _law(axes: Axes, law: StalenessLaw, words: str, intervals: NDArray[Any] | None = None) -> None:
    shown = min(law.pmf.size, max(int(law.quantile(0.999)[0]) + 2, 8))
    model = StalenessLaw.geometric(mean=law.mean).pmf[:shown]
    axes.bar(range(shown), law.pmf[:shown], width=0.85 if shown <= 80 else 1.0, color=PALE, label=words)
    if intervals is not None and shown <= 80:
        cells = min(shown, intervals.shape[1])
        axes.vlines(range(cells), *intervals[:, :cells], color=KNOWN, linewidth=1.2, label="95 % of each cell")
    axes.plot(range(model.size), model, color=MODEL, linewidth=1.2, label="geometric law of the same mean")
    axes.axvline(law.mean, color=AGAINST, linewidth=1, linestyle=(0, (4, 3)), label=f"mean {law.mean:.4g}")
    axes.set_xlabel(f"staleness ({law.unit})")
    axes.set_ylabel("share of gradients")
    axes.legend(frameon=False)
    framed(axes)
