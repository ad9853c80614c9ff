"""The picture of the stability page, drawn when the documentation is built: expectation against mean square."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asyncq.staleness import StalenessLaw
from asyncq.theory.stability import constant_threshold, exponential_workers, rate, threshold

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GENERATED = Path(__file__).parents[1] / "_generated"


def draw(*_: object) -> None:
    """Left: the largest stable step against the number of workers. Right: contraction against step, 8 workers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    workers = np.array([2, 3, 4, 6, 8, 12, 16, 24, 32])
    pools = [exponential_workers(int(m)) for m in workers]
    left.loglog(workers, [pool.expectation_threshold() for pool in pools], "--", label="in expectation")
    left.loglog(workers, [pool.threshold() for pool in pools], label="mean square, exact")
    model = [threshold(StalenessLaw.geometric(workers=int(m))) for m in workers]
    left.loglog(workers, model, ":", label="mean square, independent")
    left.loglog(workers, [constant_threshold(m - 1) for m in workers], "-.", label="constant staleness M - 1")
    left.set_xticks([2, 4, 8, 16, 32], ["2", "4", "8", "16", "32"])
    left.set_xticks([], minor=True)
    left.set(xlabel="workers M", ylabel="largest stable step times curvature")
    steps = np.geomspace(0.01, 1.0, 60)
    law = StalenessLaw.geometric(workers=8)
    mean = [rate(law, float(c), criterion="expectation") for c in steps]
    right.semilogx(steps, mean, "--", label="in expectation")
    right.semilogx(steps, exponential_workers(8).rates(steps), label="mean square, exact")
    right.axhline(1.0, color="black", linewidth=0.6)
    right.set(xlabel="step times curvature, 8 workers", ylabel="contraction per update", ylim=(0.85, 1.1))
    for axes in (left, right):
        axes.legend(frameon=False, fontsize="small")
    GENERATED.mkdir(exist_ok=True)
    figure.savefig(GENERATED / "expectation-against-mean-square.svg", metadata={"Date": None})
    _of_a_recommendation()


def _of_a_recommendation() -> None:
    """The pictures that ``asyncq recommend --out`` draws, for eight exponential workers."""
    from asyncq import plots
    from asyncq.results.advice import figure_data, recommend

    pool = exponential_workers(8)
    found = recommend(pool, momentum=0.9, learning_rate=0.01, condition_number=100.0, sharpness=20.0)
    near, against_workers = figure_data(pool, found)
    figures = {
        "stability-map": plots.stability_map(near, found),
        "momentum-budget": plots.momentum_budget(against_workers, 8),
    }
    figures["second-moments"] = _second_moments()
    for name, figure in figures.items():
        figure.savefig(GENERATED / f"{name}.svg", metadata={"Date": None})


def _second_moments() -> Figure:
    """E[w^2] after every update: the exact recursion, and windows of a simulated trace that all start from rest."""
    from matplotlib.figure import Figure

    from asyncq import Scenario, simulate

    windows, shown = 2000, 80
    pool = [{"name": "gpu", "workers": 8, "work_time": {"law": "exponential", "mean": 1.0}}]
    scenario = Scenario.from_dict({"schema": 1, "pool": pool})
    trace = simulate(scenario, engine="simpy", updates=shown * windows + 1000, seed=1, trace=True).trace
    staleness = trace.staleness[1000:].reshape(windows, shown).T
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    rng = np.random.default_rng(1)
    for momentum, colour in ((0.5, "#c44e52"), (0.0, "#4c72b0"), (-0.3, "#2e8b57")):
        workers = exponential_workers(8)
        step = 0.5 * workers.threshold(momentum)
        w = np.ones((shown + 2, windows))
        for t in range(shown):
            read = w[np.maximum(t + 1 - staleness[t], 0), np.arange(windows)] + 0.3 * rng.normal(size=windows)
            w[t + 2] = w[t + 1] + momentum * (w[t + 1] - w[t]) - step * read
        square = w[1:] ** 2
        at = np.arange(0, shown + 1, 4)
        error = 4 * square.std(axis=1) / np.sqrt(windows)
        exact = workers.moments(step, momentum, updates=shown, noise=0.09)
        axes.plot(exact, color=colour, linewidth=1.4, label=f"momentum {momentum:g}")
        axes.errorbar(at, square.mean(axis=1)[at], error[at], fmt=".", color=colour, elinewidth=1)
    axes.set_yscale("log")
    axes.set(xlabel="updates", ylabel="E w²")
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    draw()
