"""The largest stable learning rate of a real network, by bisection.

A network has no single edge: stability depends on the state of training. A search has a start and a level. From
weights at the target: the largest rate at which the loss does not rise much above it. From the initial weights: the
largest rate at which the loss falls below half that of the best constant prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncq.papers.networks.problems import Problem
from asyncq.papers.networks.runs import chance_loss, train

__all__ = ["checkpoints", "edge"]


def checkpoints(
    problem: Problem,
    levels: Sequence[float],
    *,
    rate: float,
    momentum: float = 0.0,
    seed: int = 1,
    budget: int = 20_000,
) -> list[NDArray[np.float32]]:
    """Weights of a one-worker run when its running loss first reaches each of the falling ``levels``; fewer if the
    budget ends first. After each level the velocity restarts at 0."""
    weights, found = None, []
    for number, level in enumerate(levels):
        run = train(problem, rate, momentum, seed=seed + 1000 * number, budget=budget, target=level, hold=0.0,
                    start=problem.start(seed) if weights is None else weights)  # fmt: skip
        if np.isnan(run.reached[0]):
            break
        weights = run.weights[0]
        found.append(weights)
    return found


def edge(
    problem: Problem,
    momentum: float,
    *,
    guess: float,
    level: float,
    start: NDArray[np.float32] | None = None,
    workers: int = 1,
    work: str = "exponential",
    updates: int = 1500,
    seeds: Sequence[int] = (11, 12, 13),
    steps: int = 6,
    limit: float | None = None,
) -> float:
    """Largest rate at which ``updates`` updates end with a running loss at or below ``level``, geometric mean over the
    seeds. Searched in factors of 2 from ``guess``, then by ``steps`` bisections. ``start``: initial weights (default:
    those of the seed). A run is unstable if its running loss exceeds ``limit`` (default: three times the loss of the
    best constant prediction). nan if a thousandth of ``guess`` is unstable: the level is too near the start."""

    def stable(rate: float, seed: int) -> bool:
        run = train(problem, rate, momentum, workers=workers, work=work, seed=seed, budget=updates, target=-1.0,
                    start=start, limit=3 * chance_loss(problem) if limit is None else limit)  # fmt: skip
        return bool(run.loss[0] <= level)

    logs: list[Any] = []
    for seed in seeds:
        low = high = guess
        while not stable(low, seed):
            low /= 2
            if low < 1e-3 * guess:
                return float("nan")
        if low == guess:
            high = 2 * guess
            while stable(high, seed) and high < 1e6 * guess:
                low, high = high, 2 * high
        else:
            high = 2 * low
        for _ in range(steps):
            middle = np.sqrt(low * high)
            low, high = (middle, high) if stable(middle, seed) else (low, middle)
        logs.append(np.log(low))
    return float(np.exp(np.mean(logs)))
