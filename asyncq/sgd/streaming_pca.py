"""Async-MSGD for streaming PCA ([PCA]): its ODE, diffusions, phases, and largest harmless delay.

    v_{k+1} = v_k + mu (v_k - v_{k-1}) + eta (I - v_{k-tau} v_{k-tau}') X_k X_k' v_{k-tau}     (eq. 5)

is `replay(StreamingPCA(eigenvalues), StalenessLaw.constant(tau), step=eta, momentum=mu)`. Coordinates are
those of the eigenvectors, with eigenvalues l_1 > l_2 >= ... >= l_d and normal samples (alpha_ij^2 = E[Y_i^2 Y_j^2] =
l_i l_j). Time is t = k eta. Source: [PCA] section 3; docs/theory/streaming-pca.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asyncq.sgd.objectives import StreamingPCA
from asyncq.sgd.replay import replay
from asyncq.staleness import StalenessLaw
from asyncq.theory.stability import Criterion, noise_floor, threshold

__all__ = [
    "FIGURE_1",
    "Diffusion",
    "Figure1",
    "HarmlessRule",
    "Phases",
    "delay_bound",
    "delay_grid",
    "diffusion",
    "harmless_delay",
    "ode",
    "phases",
    "simulated_harmless_delays",
    "stationary_variance",
]

Real = NDArray[np.float64]
Form = Literal["paper", "corrected"]


# -- the limits of small steps ----------------------------------------------------------------------------------------


def ode(eigenvalues: ArrayLike, start: ArrayLike, time: ArrayLike, *, momentum: float = 0.0) -> Real:
    """Solution H(t) of eq. 7, (times, d): H_i(0) e^{l_i t / (1 - mu)}, normalised. ``start`` (d,) has length 1."""
    values, h = _eigenvalues(eigenvalues), np.asarray(start, dtype=np.float64)
    t = np.atleast_1d(np.asarray(time, dtype=np.float64))[:, None]
    if h.shape != values.shape or abs(float(h @ h) - 1.0) > 1e-9:
        raise ValueError(f"start must have {values.size} coordinates and length 1")
    grown = h * np.exp((values - values[0]) * t / (1.0 - _momentum(momentum)))
    return np.asarray(grown / np.sqrt(np.square(grown).sum(axis=1, keepdims=True)))


@dataclass(frozen=True, eq=False)
class Diffusion:
    """Diffusion dU_i = drift_i U_i dt + noise_i dB of U = (H - e_j) / sqrt(eta), i != j (Theorems 5 and 9). Entry j is
    0: along e_j the noise is of second order."""

    drift: Real
    noise: Real

    @property
    def stationary_variance(self) -> Real:
        """Variance noise^2 / (2 abs(drift)), (d,); infinite where the drift is positive (saddles)."""
        away = self.drift > 0
        safe = np.where(self.drift < 0, -2.0 * self.drift, 1.0)
        return np.where(away, np.inf, np.square(self.noise) / safe)


def diffusion(eigenvalues: ArrayLike, *, momentum: float = 0.0, near: int = 0) -> Diffusion:
    """Diffusion around eigenvector number ``near`` (0: the optimum, Theorem 5; else a saddle, Theorem 9)."""
    values, slow = _eigenvalues(eigenvalues), 1.0 - _momentum(momentum)
    if not 0 <= near < values.size:
        raise ValueError(f"near must be from 0 to {values.size - 1} (got {near!r})")
    noise = np.sqrt(values * values[near]) / slow
    noise[near] = 0.0
    return Diffusion((values - values[near]) / slow, noise)


def stationary_variance(eigenvalues: ArrayLike, eta: float, *, momentum: float = 0.0, delay: int = 0) -> Real:
    """Linearised variance of U_i around the optimum at a finite step and delay, (d,): the value of Theorem 5 as
    eta delay -> 0, larger otherwise. Entry 0, along e_1, is 0. Source: docs/theory/stability.md (6.1)."""
    values = _eigenvalues(eigenvalues)
    law = StalenessLaw.constant(delay)
    gaps = values[0] - values[1:]
    floors = [
        noise_floor(law, eta * gap, momentum=momentum, noise=values[0] * value, curvature=gap)
        for gap, value in zip(gaps, values[1:], strict=True)
    ]
    return np.append(0.0, floors) / eta


# -- phases -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Phases:
    """Times T1 (escape from the saddle e_2), T2 (from it to the optimum), T3 (into the noise around it), in t = k eta.
    ``form``: "paper" or "corrected"."""

    escape: float
    traverse: float
    converge: float
    form: str

    def iterations(self, eta: float, delay: int) -> tuple[float, float, float]:
        """Iterations per worker N_i = T_i / (eta tau), with tau = ``delay`` workers (1 without delay)."""
        unit = eta * max(delay, 1)
        return self.escape / unit, self.traverse / unit, self.converge / unit


def phases(
    eigenvalues: ArrayLike,
    eta: float,
    *,
    momentum: float = 0.0,
    delta: float,
    epsilon: float,
    nu: float = 0.1,
    form: Form = "corrected",
) -> Phases:
    """Times of the three phases (Propositions 10, 8 and 6). After T1, H_2^2 <= 1 - delta^2 with probability 1 - ``nu``;
    T2 later, H_1^2 >= 1 - delta^2; T3 later, the other squares add up to at most ``epsilon`` with probability 3/4.

    ``form``: the "paper" prints a T2 that only reaches H_1^2 = 1/2 and a T3 of too small a probability; "corrected"
    is docs/theory/streaming-pca.md (7.5) to (7.7) (T1 is the same). Raises ``ValueError`` where the denominator of T3
    is not positive: the noise alone exceeds ``epsilon``, take a smaller eta.
    """
    values, slow = _eigenvalues(eigenvalues), 1.0 - _momentum(momentum)
    if form not in ("paper", "corrected"):
        raise ValueError(f'form must be "paper" or "corrected" (got {form!r})')
    if not (0 < delta < 1 and 0 < nu < 1 and epsilon > 0 and eta > 0):
        raise ValueError("need 0 < delta < 1, 0 < nu < 1, epsilon > 0, eta > 0")
    from scipy.special import ndtri

    gap = float(values[0] - values[1])
    quantile = float(ndtri((1.0 + nu) / 2.0))
    escape = slow / (2 * gap) * np.log(2 * slow * delta**2 * gap / (eta * quantile**2 * values[0] * values[1]) + 1)
    half = slow / (2 * gap) * np.log((1 - delta**2) / delta**2)
    phi = float(values[0] * values[1:].sum())
    left = slow * gap * epsilon - 2 * eta * phi
    if left <= 0:
        raise ValueError(
            f"no time ensures epsilon = {epsilon:g}: the noise exceeds it; take eta < "
            f"{slow * gap * epsilon / (2 * phi):g}"
        )
    factor = 1.0 if form == "paper" else 4.0
    converge = slow / (2 * gap) * np.log(factor * slow * gap * delta**2 / left)
    return Phases(float(escape), float(half if form == "paper" else 2 * half), float(converge), form)


def delay_bound(
    eigenvalues: ArrayLike, eta: float, *, momentum: float = 0.0, gamma: float, theorem: int, bound: float = 0.0
) -> float:
    """Order of the delay that a theorem allows. Its constant is unknown: only ratios are meaningful.

    Theorem 3 (gamma in (0, 1]): (1 - mu)^2 / (l_1 eta^{1 - gamma}); Theorem 5 (gamma in (0, 1/2]): (1 - mu)^2 /
    ((l_1 + C_d) eta^{1/2 - gamma}), where ``bound`` is C_d, the bound on the samples' length."""
    values, slow = _eigenvalues(eigenvalues), 1.0 - _momentum(momentum)
    most = {3: 1.0, 5: 0.5}
    if theorem not in most:
        raise ValueError(f"theorem must be 3 or 5 (got {theorem!r})")
    if not (0 < gamma <= most[theorem] and eta > 0 and bound >= 0):
        raise ValueError(f"need 0 < gamma <= {most[theorem]:g}, eta > 0, bound >= 0")
    scale = values[0] + (bound if theorem == 5 else 0.0)
    return float(slow**2 / (scale * eta ** (most[theorem] - gamma)))


# -- the largest harmless delay ---------------------------------------------------------------------------------------


def harmless_delay(
    eigenvalues: ArrayLike, eta: float, *, momentum: float = 0.0, criterion: Criterion = "mean-square"
) -> int:
    """Predict the largest constant delay at which the radial direction is stable; -1 if none is. Its curvature at the
    optimum is 2 l_1; in mean square the curvature 2 Y_1^2 varies with V_h = 8 l_1^2. Source:
    docs/theory/streaming-pca.md (7.8)."""
    values = _eigenvalues(eigenvalues)
    variance = 2.0 if criterion == "mean-square" else 0.0

    def stable(delay: int) -> bool:
        law = StalenessLaw.constant(delay)
        edge = threshold(law, momentum=momentum, criterion=criterion, curvature_variance=variance)
        return edge > eta * 2.0 * float(values[0])

    if not stable(0):
        return -1
    high = 1
    while stable(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if stable(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class HarmlessRule:
    """Rule for a harmless simulated delay, the same for all momenta and fixed before the first run.

    The error is the squared distance to the nearer optimum, averaged over ``runs`` and the last ``share`` of
    ``updates``. A delay is harmless if its error is at most ``tolerance`` times the error without delay. The largest
    harmless delay is the last on the grid before the first harmful one."""

    runs: int = 100
    updates: int = 40_000
    share: float = 0.25
    tolerance: float = 2.0


def delay_grid(largest: int = 160) -> NDArray[np.int64]:
    """Grid of delays: all up to 20, then steps of at most 10 %."""
    grid = list(range(21))
    while grid[-1] < largest:
        grid.append(grid[-1] + max(1, int(0.1 * grid[-1])))
    return np.array(grid)


@dataclass(frozen=True)
class Figure1:
    """Problem of [PCA] Figure 1, and the largest harmless delays read from it."""

    eigenvalues: tuple[float, ...] = (4.0, 3.0, 2.0, 1.0)
    eta: float = 5e-4
    momenta: tuple[float, ...] = (0.7, 0.8, 0.85, 0.9, 0.95)
    delays: tuple[int, ...] = (120, 80, 60, 30, 10)


FIGURE_1 = Figure1()


def simulated_harmless_delays(
    problem: Figure1 = FIGURE_1,
    *,
    rule: HarmlessRule | None = None,
    grid: ArrayLike | None = None,
    seed: int = 1,
    progress: Callable[[float], None] | None = None,
) -> tuple[NDArray[np.int64], Real]:
    """Simulate the largest harmless delay at each momentum, (momenta,), and the errors, (grid, momenta). ``grid``
    begins with 0. The result is -1 if the last delay is harmless. ``progress`` is called with the share done."""
    rule = rule or HarmlessRule()
    delays = delay_grid() if grid is None else np.asarray(grid)
    objective = StreamingPCA(np.array(problem.eigenvalues))
    first = int(rule.updates * (1.0 - rule.share))
    marks = range(first, rule.updates + 1, max(1, (rule.updates - first) // 100))
    errors = np.empty((delays.size, len(problem.momenta)))
    for row, delay in enumerate(delays):
        curve = replay(
            objective, StalenessLaw.constant(int(delay)), step=problem.eta, momentum=problem.momenta,
            updates=rule.updates, replications=rule.runs, points=marks, seed=seed,
        )  # fmt: skip
        errors[row] = curve.mean[0].mean(axis=-1)
        if progress is not None:
            progress((row + 1) / delays.size)
    harmful = ~(errors <= rule.tolerance * errors[0])
    first_harmful = np.argmax(harmful, axis=0)
    return np.where(harmful.any(axis=0), delays[first_harmful - 1], -1), errors


def _eigenvalues(values: ArrayLike) -> Real:
    return StreamingPCA(np.asarray(values, dtype=np.float64)).eigenvalues


def _momentum(momentum: float) -> float:
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must lie in [0, 1) (got {momentum!r})")
    return momentum
