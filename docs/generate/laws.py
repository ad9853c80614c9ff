"""The figures of the theory pages, made when the documentation is built: exact laws, and simulated shares over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from asyncq import Scenario, simulate
from asyncq.theory import staleness_law

GENERATED = Path(__file__).parents[1] / "_generated"
UPDATES = 200_000


def case(workers: int, work: dict[str, Any], **tables: Any) -> Scenario:
    """One pool of equal workers."""
    pool = {"name": "gpu", "workers": workers, "work_time": work}
    return Scenario.from_dict({"schema": 1, "pool": [pool], **tables})


EXPONENTIAL = {"law": "exponential", "mean": 1.0}
FIGURES = {
    "renewal": {
        f"gamma work, cv {cv}": case(8, {"law": "gamma", "mean": 1.0, "cv": cv}) for cv in (0.2, 0.5, 2.0)
    },
    "closed-network": {
        f"{seats} seat{'s' if seats > 1 else ''}": case(
            16, EXPONENTIAL, server={"service_time": {"law": "exponential", "mean": seats / 16}, "seats": seats}
        )
        for seats in (1, 4)
    },
}


def figure(cases: dict[str, Scenario], cells: int = 30) -> Figure:
    """Lines for the exact laws, points for the shares of a simulation."""
    drawing = Figure(figsize=(7, 3.5), layout="constrained")
    axes = drawing.subplots()
    for number, (name, scenario) in enumerate(cases.items()):
        law, run = staleness_law(scenario), simulate(scenario, updates=UPDATES, seed=1)
        axes.plot(law.pmf[:cells], color=f"C{number}", label=name, linewidth=1)
        axes.plot(run.staleness.pmf[:cells], ".", color=f"C{number}", markersize=4)
    axes.set(xlabel="staleness, updates", ylabel="share of gradients", xlim=(-0.5, cells - 0.5), ylim=(0, None))
    axes.legend(frameon=False)
    return drawing


def draw_all(*_: object) -> None:
    """Write one SVG for every figure."""
    GENERATED.mkdir(exist_ok=True)
    for name, cases in FIGURES.items():
        figure(cases).savefig(GENERATED / f"{name}.svg", metadata={"Date": None})
