"""Theory confirmed: the tuned setting replayed on the simulated trace, with an interval for its updates to the target.

The trace has what theory may leave out: staleness that depends on the staleness before it, and workers that differ.
Candidates are replayed with the same seeds (window r of each trace with noise r), so that their differences are known
better than their levels; how much better is measured, not assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncq.planner.tuning import Tuned
from asyncq.run import Run
from asyncq.sgd.objectives import NoisyQuadratic
from asyncq.sgd.replay import replay
from asyncq.staleness import StalenessLaw
from asyncq.theory.time_to_target import Quadratic, fresh_loss

__all__ = ["LONGEST", "Confirmation", "confirm", "horizon"]

Real = NDArray[np.float64]

WORK = 1_000_000  # updates replayed for one candidate, all replications together
FEWEST, MOST = 24, 192  # replications
LONGEST = 60_000  # updates to a target that are still replayed
GROUPS = 24  # of replications, for intervals
FEWEST_GROUPS = 8  # windows of the trace, below which groups share windows and intervals are of the noise alone
POINTS = 240
AGREE = 0.05
SMALLER = (0.7, 0.5, 0.35, 0.25)  # of the step, where the trace does not bear it


@dataclass(frozen=True, eq=False)
class Confirmation:
    """What the replay showed: ``updates`` to the target (infinite: not reached), the 95 % interval, and ``by_group``
    its logarithm as each group of replications would have it. ``tuned`` is the setting that was replayed:
    with a smaller step than theory's if ``lowered``."""

    updates: float
    ci95: tuple[float, float] | None
    by_group: Real
    replications: int
    tuned: Tuned
    lowered: bool

    @property
    def agrees(self) -> bool:
        """Whether theory lies within the interval, or within 5 % of the replay."""
        theory = self.tuned.updates
        if not np.isfinite(self.updates):
            return not np.isfinite(theory)
        inside = self.ci95 is not None and self.ci95[0] <= theory <= self.ci95[1]
        return not self.lowered and (inside or abs(theory - self.updates) <= AGREE * self.updates)


def horizon(updates: float) -> int:
    """Updates that a replay needs to see the target reached."""
    return int(1.25 * updates) + 32


def confirm(run: Run, tuned: Tuned, quadratic: Quadratic, *, seed: int, threads: int | None = None) -> Confirmation:
    """Replay the trace of ``run`` at the tuned setting on ``quadratic`` (noise of one gradient as it is computed)."""
    objective = NoisyQuadratic(quadratic.curvature, quadratic.noise, start=quadratic.start)
    level = quadratic.target * float(quadratic.loss.sum())

    def curves(steps: list[float], updates: int) -> tuple[Real, NDArray[np.int64]]:
        updates = min(updates if updates <= POINTS else -(-updates // POINTS) * POINTS, run.updates)
        replications = int(np.clip(WORK // updates, FEWEST, MOST))
        alike: dict[str, Any] = {
            "step": [step / quadratic.sharpness for step in steps], "momentum": tuned.momentum, "updates": updates,
            "replications": replications, "points": POINTS, "seed": seed, "threads": threads,
        }  # fmt: skip
        shown = replay(objective, run, **alike)
        loss = shown.loss[:, 0]
        if np.any(quadratic.noise > 0):
            averaged = quadratic.averaged(run.network.rows_per_update)
            alone = NoisyQuadratic(averaged.curvature, averaged.noise, start=averaged.start)
            fresh = replay(alone, StalenessLaw.constant(0), **alike).loss[:, 0]
            for i, step in enumerate(steps):
                loss[i] = _controlled(loss[i], fresh[i], fresh_loss(averaged, step, tuned.momentum, shown.updates))
        return loss, shown.updates

    loss, at = curves([tuned.step], horizon(tuned.updates))
    used, lowered = loss[0], False
    if not np.isfinite(_reaches(used.mean(axis=0), at, level)):
        loss, at = curves([tuned.step * part for part in SMALLER], 4 * horizon(tuned.updates))
        reached = [_reaches(part.mean(axis=0), at, level) for part in loss]
        i = int(np.argmin(reached))
        if not np.isfinite(reached[i]):
            return Confirmation(float("inf"), None, np.full(GROUPS, np.nan), used.shape[0], tuned, True)
        used, lowered = loss[i], True
        tuned = replace(tuned, step=tuned.step * SMALLER[i], margin=tuned.margin / SMALLER[i])
    windows = max(1, run.updates // int(at[-1]))
    group = np.arange(used.shape[0]) % windows  # replications of one window are of one group
    group = group % GROUPS if windows >= FEWEST_GROUPS else np.arange(used.shape[0]) % GROUPS
    value, by_group = _by_group(used, at, level, group)
    ci95 = None
    if np.all(np.isfinite(by_group)):
        from scipy.special import stdtrit

        half = float(stdtrit(by_group.size - 1, 0.975)) * float(np.std(by_group, ddof=1)) / by_group.size**0.5
        ci95 = (value * float(np.exp(-half)), value * float(np.exp(half)))
    return Confirmation(value, ci95, by_group, used.shape[0], tuned, lowered)


def _controlled(loss: Real, fresh: Real, expected: Real) -> Real:
    """The curves (R, P), less what the same noise did to SGD without staleness beyond what it does on average."""
    if not (np.all(np.isfinite(loss)) and np.all(np.isfinite(fresh))):
        return loss
    late = slice(loss.shape[1] // 2, None)  # where the target is met
    a, b = (part[:, late] - part[:, late].mean(axis=0) for part in (loss, fresh))
    square = float((b * b).sum())
    weight = float((a * b).sum()) / square if square > 0 else 0.0
    return np.asarray(loss - weight * (fresh - expected))


def _by_group(loss: Real, at: NDArray[np.int64], level: float, group: NDArray[np.int64]) -> tuple[float, Real]:
    """Updates to the target from all replications, and its logarithm as each group of them would move it: by its loss
    about there, over the slope of the mean (the delta method; not a number where the mean does not fall)."""
    mean = loss.mean(axis=0)
    value = _reaches(mean, at, level)
    near = np.abs(at / value - 1.0) <= 0.3 if value > 0 else at == 0
    groups = int(group.max()) + 1
    if near.sum() < 3:
        return value, np.full(groups, np.log(max(value, 1e-300)))
    slope = float(np.polyfit(at[near].astype(np.float64), mean[near], 1)[0])
    if slope >= 0:
        return value, np.full(groups, np.nan)
    here = np.abs(at / value - 1.0) <= 0.05
    here[int(np.argmin(np.abs(at - value)))] = True
    about = loss[:, here].mean(axis=1)
    late = np.array([about[group == g].mean() for g in range(groups)]) - about.mean()
    return value, np.log(value) - late / (slope * value)


def _reaches(mean: Real, at: NDArray[np.int64], level: float) -> float:
    """When the best falling curve through ``mean`` (isotonic regression) reaches the level."""
    from scipy.optimize import isotonic_regression

    if not np.all(np.isfinite(mean)):
        return float("inf")
    falling = np.maximum(np.asarray(isotonic_regression(mean, increasing=False).x), 1e-300)
    if falling[-1] > level:
        return float("inf")
    i = int(np.argmax(falling <= level))
    if i == 0:
        return float(at[0])
    part = np.log(falling[i - 1] / level) / np.log(falling[i - 1] / falling[i])
    return float(at[i - 1] + part * (at[i] - at[i - 1]))
