"""The picture of the replay page, drawn when the documentation is built: replay against Theorem 5's recursion."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asyncq import Scenario, simulate
from asyncq.sgd.objectives import NoisyQuadratic
from asyncq.sgd.replay import replay
from asyncq.theory.descent.exponential import exponential_workers

GENERATED = Path(__file__).parents[1] / "_generated"


def draw(*_: object) -> None:
    """Left: the mean position with 95 % intervals, and the recursion. Right: the mean square, and the exact one."""
    from matplotlib.figure import Figure

    pool = {"name": "gpu", "workers": 8, "work_time": {"law": "exponential", "mean": 1.0}}
    run = {"updates": 100_000, "seed": 1, "warmup": "none"}
    protocol = {"kind": "asynchronous"}
    traced = simulate(
        Scenario.from_dict({"schema": 1, "pool": [pool], "protocol": protocol, "run": run}), trace=True
    )
    step, noise, updates = 0.2, 0.1, 120
    curve = replay(
        NoisyQuadratic([1.0], noise), traced, step=step, updates=updates, points=range(updates + 1),
        keep_positions=True, seed=1,
    )  # fmt: skip
    assert curve.positions is not None
    w = curve.positions[0, 0, :, :, 0]
    mean = [1.0, 1.0 - step]
    while len(mean) <= updates:
        mean.append(mean[-1] + 7 / 8 * (mean[-1] - mean[-2]) - step / 8 * mean[-1])
    square = exponential_workers(8).moments(step, updates=updates, noise=noise)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, values, expected, words in (
        (figure.add_subplot(1, 2, 1), w, np.array(mean), ("Theorem 5", "mean position")),
        (figure.add_subplot(1, 2, 2), w**2, square, ("exact second moments", "mean square")),
    ):
        band = 1.96 * values.std(axis=0, ddof=1) / np.sqrt(values.shape[0])
        middle = values.mean(axis=0)
        axes.fill_between(curve.updates, middle - band, middle + band, alpha=0.35, linewidth=0)
        axes.plot(curve.updates, middle, linewidth=1, label=f"replay, {values.shape[0]} windows, 95 %")
        axes.plot(curve.updates, expected, "k--", linewidth=0.9, label=words[0])
        axes.set(xlabel="updates", ylabel=words[1])
        axes.legend(frameon=False, fontsize="small")
    GENERATED.mkdir(exist_ok=True)
    figure.savefig(GENERATED / "replay-against-theorem-5.svg", metadata={"Date": None})


if __name__ == "__main__":
    draw()
