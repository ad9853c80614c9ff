"""The picture of the stability page, drawn when the documentation is built: expectation against mean square."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asyncq.staleness import StalenessLaw
from asyncq.theory.stability import constant_threshold, exponential_workers, rate, threshold

GENERATED = Path(__file__).parent / "_generated"


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
    from asyncq.advice import recommend, surroundings

    pool = exponential_workers(8)
    found = recommend(pool, momentum=0.9, learning_rate=0.01, condition_number=100.0, sharpness=20.0)
    near, against_workers = surroundings(pool, found)
    figures = {
        "stability-map": plots.stability_map(near, found),
        "momentum-budget": plots.momentum_budget(against_workers, 8),
    }
    for name, figure in figures.items():
        figure.savefig(GENERATED / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    draw()
