"""Rules for settings with several workers: the theory's rule from three measured numbers, rivals, and regret."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from asyncq.papers.networks.grid import regret
from asyncq.papers.networks.problems import Problem
from asyncq.papers.networks.runs import law_of, train
from asyncq.theory.descent.coupled import TrainingProblem, threshold
from asyncq.theory.stability import exponential_workers
from asyncq.training import Measurement

__all__ = ["RIVALS", "Setting", "judged", "measured_rule"]

Setting = tuple[float, float]  # momentum and learning rate

# maps (momentum, learning rate) of one worker, and the number of workers, to a setting
RIVALS: dict[str, Callable[[float, float, int], Setting]] = {
    "keep": lambda momentum, rate, workers: (momentum, rate),
    "rate / M": lambda momentum, rate, workers: (momentum, rate / workers),
    "rate / sqrt(M)": lambda momentum, rate, workers: (momentum, rate / workers**0.5),
    "rate / (2 tau + 1)": lambda momentum, rate, workers: (momentum, rate / (2 * workers - 1)),
    "momentum - mu_S": lambda momentum, rate, workers: (momentum - (1 - 1 / workers), rate),
}


def measured_rule(
    problem: Problem, measurement: Measurement, workers: int, work: str, *, momentum: float = 0.0, share: float = 1.0
) -> Setting:
    """Take ``share`` of the coupled theory's threshold at ``momentum``, from sharpness, R2, s_1 measured at the target.

    Exact for exponential work, the independence model for others. Source: docs/theory/networks.md (10.1), (10.12).
    """
    here = measurement.nearest(problem.target)
    if here.sharpness is None or here.along is None:
        raise ValueError("the rule needs the sharpness and the noise along it: measure with curvature=True")
    model = TrainingProblem.of(
        here.sharpness.mean,
        proportional_noise=here.ratio.mean,
        noise_at_sharpness=min(here.along.mean, here.ratio.mean),
        batch_size=problem.batch,
    )
    exact = work == "exponential" and workers > 1
    return momentum, share * threshold(
        exponential_workers(workers) if exact else law_of(workers, work), model, momentum
    )


def judged(
    problem: Problem,
    workers: int,
    work: str,
    best: Setting,
    rules: Mapping[str, Setting],
    *,
    seeds: Sequence[int] = (101, 102, 103, 104, 105, 106),
    budget: int = 10_000,
    patience: float = 6.0,
) -> dict[str, dict[str, Any]]:
    """Regret of each rule against the ``best`` grid point, all trained on fresh ``seeds``. By name: the setting, the
    updates of each seed (None if the target was not reached within ``patience`` times the best's) and the regret (None
    if a seed did not reach it).

    Raises ``ValueError`` if the best point does not reach the target on every seed.
    """

    def updates(setting: Setting, seed: int, most: int) -> float:
        momentum, rate = setting
        run = train(problem, rate, momentum, workers=workers, work=work, seed=seed, budget=most)
        return float(run.reached[0])

    floor = np.array([updates(best, seed, budget) for seed in seeds])
    if np.isnan(floor).any():
        raise ValueError(f"{problem.name}: the best grid point does not reach the target on every fresh seed")
    found: dict[str, dict[str, Any]] = {}
    for name, setting in {"best grid point": best, **rules}.items():
        counts = np.array([
            updates(setting, seed, int(patience * most)) for seed, most in zip(seeds, floor, strict=True)
        ])  # fmt: skip
        cost = regret(counts, floor)
        found[name] = {
            "momentum": setting[0],
            "learning_rate": setting[1],
            "updates": [None if np.isnan(count) else int(count) for count in counts],
            "regret": cost if np.isfinite(cost) else None,
        }
    return found
