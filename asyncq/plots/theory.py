"""Figures of theory: law and momentum without a simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncq.plots.palette import AGAINST, GRID, INK, KNOWN, MODEL, PALE
from asyncq.staleness import StalenessLaw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from asyncq.theory.momentum import MomentumLine
    from asyncq.theory.prediction import Prediction

__all__ = ["framed", "law", "momentum"]


def law(found: Prediction) -> Figure:
    """The exact law with the geometric law of the same mean over it."""
    from matplotlib.figure import Figure

    known = found.law
    if known is None:
        raise ValueError("no law is known, so that there is nothing to draw")
    shown = min(known.pmf.size, max(int(known.quantile(0.999)[0]) + 2, 8))
    model = StalenessLaw.geometric(mean=known.mean).pmf[:shown]
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    if shown <= 80:
        axes.bar(range(shown), known.pmf[:shown], width=0.85, color=PALE, label=f"exact law ({known.name})")
    else:
        axes.fill_between(range(shown), known.pmf[:shown], step="mid", color=PALE, label=f"exact law ({known.name})")
    marker = "o" if shown <= 80 else ""
    name = "geometric law of the same mean"
    axes.plot(range(model.size), model, color=MODEL, marker=marker, markersize=3.5, linewidth=1.2, label=name)
    axes.axvline(known.mean, color=INK, linewidth=1, linestyle=(0, (4, 3)), label=f"mean {known.mean:.4g}")
    axes.set_ylim(bottom=0)
    axes.set_xlim(-0.6, max(shown, 8) - 0.4)
    axes.set_xlabel(f"staleness ({found.unit})")
    axes.set_ylabel("share of gradients")
    axes.set_title(f"{found.scenario.name}: predicted, no simulation", fontsize=11, loc="left")
    axes.legend(frameon=False)
    framed(axes)
    return figure


def momentum(name: str, line: MomentumLine) -> Figure:
    """Momentum budget: target, implicit and explicit part."""
    from matplotlib.figure import Figure

    parts = [("target", line.target, AGAINST), ("implicit", line.implicit, KNOWN), ("explicit", line.explicit, MODEL)]
    known = [(part, value, colour) for part, value, colour in parts if value is not None]
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([part for part, _, _ in known], [v for _, v, _ in known], color=[c for _, _, c in known])
    axes.bar_label(bars, fmt="%+.3f", padding=4)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set_xlabel("momentum")
    if line.is_delay:
        axes.set_title("Staleness is a delay here: these figures hold only to first order", fontsize=10)
    else:
        axes.set_title(f"{name}: target = implicit + explicit ({line.basis})", fontsize=10)
    return figure


def framed(axes: Axes) -> None:
    """Frame the axes with two lines and a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
