"""Figures of results; computes nothing. Drawn on canvases of their own, without pyplot and its global state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq.staleness import StalenessLaw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from asyncq.run import Run

__all__ = ["momentum", "staleness"]

MEASURED, MODEL, AGAINST = "#4c72b0", "#c44e52", "#8c8c8c"


def staleness(run: Run) -> Figure:
    """The measured staleness law with the fitted geometric over it, and below the measured less the fitted."""
    from matplotlib.figure import Figure

    law, fit = run.staleness.law, run.fit
    shown = min(law.pmf.size, max(int(law.quantile(0.999)[0]) + 2, 8))
    geometric = StalenessLaw.geometric(mean=law.mean).pmf
    model = [float(geometric[i]) if i < geometric.size else 0.0 for i in range(shown)]
    figure = Figure(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.bar(range(shown), law.pmf[:shown], width=0.9, color=MEASURED, label="simulated")
    above.plot(range(shown), model, "o-", color=MODEL, markersize=3, linewidth=1, label=f"geometric, p = {fit.p:.4g}")
    above.set_ylabel("share of gradients")
    above.set_title(f"{run.scenario.name}: mean staleness {law.mean:.4g}, geometric law {fit.verdict}")
    above.legend(frameon=False)
    below.bar(range(shown), law.pmf[:shown] - model, width=0.9, color=AGAINST)
    below.axhline(0, color="black", linewidth=0.6)
    below.set_ylabel("residual")
    below.set_xlabel(f"staleness ({run.staleness.unit})")
    return figure


def momentum(run: Run) -> Figure:
    """The momentum budget: what is wanted, what asynchrony contributes, what is left to set by hand."""
    from matplotlib.figure import Figure

    budget = run.momentum
    parts = [("target", budget.target, AGAINST), ("implicit", budget.implicit, MEASURED)]
    parts.append(("explicit", budget.explicit, MODEL))
    known = [(name, value, colour) for name, value, colour in parts if value is not None]
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([name for name, _, _ in known], [v for _, v, _ in known], color=[c for _, _, c in known])
    axes.bar_label(bars, fmt="%+.3f", padding=4)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set_xlabel("momentum")
    if budget.is_delay:
        axes.set_title("Staleness is a delay here: these figures hold only to first order", fontsize=10)
    else:
        axes.set_title(f"{run.scenario.name}: target = implicit + explicit ({budget.basis})", fontsize=10)
    return figure
