"""Training with stale gradients whose noise falls with the loss: threshold, rate, floor and time to a target.

The loss in all modes feeds the noise of every mode, so that no mode's threshold is the network's. The second moments
stay bounded iff every mode is stable by itself and a unit of noise returns as less than a unit (loop gain below 1).
Learning rates are not multiplied by a curvature; the update is heavy ball without dampening.

``staleness`` is a `StalenessLaw`, drawn independently for each gradient: a model; or a pool of exponential workers
(`exponential_workers`): exact. Source: docs/theory/networks.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asyncq.errors import AsyncqError
from asyncq.staleness import StalenessLaw
from asyncq.theory.descent.bracketing import bracketed_root
from asyncq.theory.descent.coupled_exponential import CoupledWorkers
from asyncq.theory.descent.coupled_law import CoupledLaw
from asyncq.theory.descent.exponential import ExponentialWorkers
from asyncq.theory.descent.problem import TrainingProblem

__all__ = ["Coupled", "TrainingProblem", "coupled", "floor", "losses", "rate", "threshold", "time_to_target"]

Real = NDArray[np.float64]
Coupled = CoupledLaw | CoupledWorkers

SHARES = (0.1, 0.3, 0.5, 0.65, 0.8, 0.9, 0.999)  # of the edge for soft modes
LOWEST = 12  # factors of 1/8 tried before no rate is called stable
NEAREST = 25.0  # largest -log(1 - rate / edge): nearer counts as the edge of the sharpest mode


def coupled(
    staleness: StalenessLaw | ExponentialWorkers | Coupled, problem: TrainingProblem, *, gradients: int = 1
) -> Coupled:
    """The model behind the functions of this module; keep it for several questions on the same staleness.

    ``gradients`` independent draws of a law are averaged in each update; a pool has its contributors."""
    if isinstance(staleness, StalenessLaw):
        return CoupledLaw(staleness, problem, gradients=gradients)
    if gradients != 1:
        raise ValueError("a pool of exponential workers says itself how many gradients an update averages")
    if isinstance(staleness, ExponentialWorkers):
        return CoupledWorkers(staleness, problem)
    return staleness


def threshold(
    staleness: StalenessLaw | ExponentialWorkers | Coupled,
    problem: TrainingProblem,
    momentum: float = 0.0,
    *,
    gradients: int = 1,
) -> float:
    """Smallest learning rate at which the second moments of the weights are unbounded.

    Raises ``ValueError`` for abs(momentum) >= 1 and for laws that no threshold is named for, ``AsyncqError`` if none
    could be verified. Source: docs/theory/networks.md (10.1), (10.12).
    """
    model = coupled(staleness, problem, gradients=gradients)
    edge = model.edge(momentum)
    soft = min(edge, problem.noise_edge * (1.0 - momentum) * gradients * _contributors(model))
    low, rates = 0.0, soft * np.array(SHARES)
    while True:
        beyond = np.flatnonzero(model.loop(rates, momentum) >= 1.0)
        if beyond.size:
            i = int(beyond[0])
            return _unit_loop(model, momentum, float(rates[i - 1]) if i else low, float(rates[i]))
        low = float(rates[-1])
        near = -np.log1p(-min(low / edge, 1.0 - 1e-16))
        if near > NEAREST:
            return edge
        # the gain by staleness grows like 1 / (1 - rate / edge): go on in the logarithm of that
        rates = -edge * np.expm1(-np.maximum(near, 0.2) * np.geomspace(1.2, 3.0, len(SHARES)))


def _contributors(model: Coupled) -> int:
    return model.pool.contributors if isinstance(model, CoupledWorkers) else 1


def _unit_loop(model: Coupled, momentum: float, low: float, high: float) -> float:
    """Learning rate with loop gain 1, below an unstable rate and, unless it is 0, above a stable one."""

    def excess(log: float) -> float:
        value = float(model.loop(np.array([np.exp(log)]), momentum)[0])
        return float(np.log(min(max(value, 1e-30), 1e30)))

    if low == 0.0:
        for _ in range(LOWEST):
            low = high / 8.0
            if excess(float(np.log(low))) < 0.0:
                break
            high = low
        else:
            raise AsyncqError(f"no learning rate above {low:.3g} is stable at momentum {momentum:g}")
    return float(np.exp(bracketed_root(excess, float(np.log(low)), float(np.log(high)), rtol=1e-9)))


def rate(
    staleness: StalenessLaw | ExponentialWorkers | Coupled,
    problem: TrainingProblem,
    learning_rate: float,
    momentum: float = 0.0,
    *,
    gradients: int = 1,
) -> float:
    """Contraction per update of E[loss] above its limit: below 1 it converges, above 1 it grows.

    Raises ``AsyncqError`` if it grows by more than a factor of 4 per update. Source: docs/theory/networks.md
    (10.5).
    """
    _check(learning_rate)
    model = coupled(staleness, problem, gradients=gradients)
    slowest = model.slowest(learning_rate, momentum)
    rates = np.array([learning_rate])

    def excess(rho: float) -> float:
        value = float(model.loop(rates, momentum, rho)[0])
        return float(np.log(value)) if 0 < value < np.inf else (80.0 if value > 0 else -80.0)

    # the loop gain falls from infinity at the decay of the slowest mode by itself
    gap = 1e-9 * max(1.0 - slowest, 1e-3)
    low, high = slowest + gap, slowest + 16 * gap
    if excess(low) <= 0.0:
        return slowest
    while excess(high) > 0.0:
        low, high = high, slowest + 4.0 * (high - slowest)
        if high > 4.0:
            raise AsyncqError(f"learning rate {learning_rate:g} at momentum {momentum:g} diverges at once")
    return bracketed_root(excess, low, high, rtol=1e-12)


def floor(
    staleness: StalenessLaw | ExponentialWorkers | Coupled,
    problem: TrainingProblem,
    learning_rate: float,
    momentum: float = 0.0,
    *,
    gradients: int = 1,
) -> float:
    """Limit of the expected loss above its minimum due to constant noise; infinite at or above the threshold, 0
    without constant noise. Source: docs/theory/networks.md (10.9)."""
    _check(learning_rate)
    model = coupled(staleness, problem, gradients=gradients)
    if not _stable(model, learning_rate, momentum):
        return float("inf")
    if isinstance(model, CoupledWorkers):
        return model.floor(learning_rate, momentum)
    rates = np.array([learning_rate])
    return float(model.floors(rates, momentum)[0] / (1.0 - model.loop(rates, momentum)[0]))


def losses(
    staleness: StalenessLaw | ExponentialWorkers | Coupled,
    problem: TrainingProblem,
    learning_rate: float,
    momentum: float = 0.0,
    *,
    updates: int,
    gradients: int = 1,
) -> Real:
    """E[loss] above its floor after 0 .. ``updates`` updates from rest at the start. Source: (10.10), (10.12)."""
    _check(learning_rate)
    model = coupled(staleness, problem, gradients=gradients)
    if isinstance(model, CoupledWorkers):
        return model.losses(learning_rate, momentum, updates + 1)
    return np.asarray(model.losses(np.array([learning_rate]), np.array([float(momentum)]), updates + 1)[0])


def time_to_target(
    staleness: StalenessLaw | ExponentialWorkers | Coupled,
    problem: TrainingProblem,
    learning_rate: ArrayLike,
    momentum: ArrayLike = 0.0,
    *,
    target: float,
    gradients: int = 1,
) -> Real:
    """Updates until E[loss] above its floor has fallen, for good, to ``target`` times that at the start, for each
    learning rate and momentum (broadcast); infinite where it never does or diverges.

    Raises ``ValueError`` unless 0 < target < 1 and learning rates are positive.
    """
    model = coupled(staleness, problem, gradients=gradients)
    if not 0 < target < 1:
        raise ValueError(f"target must lie between 0 and 1, a share of the loss at the start (got {target!r})")
    rates, momenta = np.broadcast_arrays(np.asarray(learning_rate, np.float64), np.asarray(momentum, np.float64))
    shape, rates, momenta = rates.shape, rates.ravel(), momenta.ravel()
    _check(rates)
    out, stable = np.full(rates.size, np.inf), np.zeros(rates.size, dtype=bool)
    for mu in np.unique(momenta):
        chosen = np.flatnonzero((momenta == mu) & (rates < model.edge(float(mu))))
        stable[chosen] = model.loop(rates[chosen], float(mu)) < 1.0
    if isinstance(model, CoupledWorkers):
        for i in np.flatnonzero(stable):
            out[i] = model.updates(float(rates[i]), float(momenta[i]), target)
    elif stable.any():
        out[stable] = model.updates(rates[stable], momenta[stable], target)
    return out.reshape(shape)


def _stable(model: Coupled, learning_rate: float, momentum: float) -> bool:
    fine = learning_rate < model.edge(momentum)
    return fine and bool(model.loop(np.array([learning_rate]), momentum)[0] < 1.0)


def _check(learning_rate: ArrayLike) -> None:
    values = np.asarray(learning_rate, dtype=np.float64)
    if not np.all(np.isfinite(values) & (values > 0)):
        raise ValueError(f"learning rates must be positive and finite (got {learning_rate!r})")
