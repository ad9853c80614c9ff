"""The step and momentum that minimise the worst contraction over a range of curvatures.

The objective is a maximum of spectral radii: kinked, and not known to have one minimum only. It is minimised by
deterministic grids refined around every competitive local minimum; nothing is drawn at random. Two models of the
decay answer the same three questions: how stable, how fast at given steps, and which step is best at a given
momentum. Source: theory.md sections 6 and 8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asyncq.staleness import StalenessLaw
from asyncq.theory.bracketing import bracketed_root
from asyncq.theory.characteristic import Characteristic
from asyncq.theory.exponential import ExponentialWorkers
from asyncq.theory.mean_square import Gain, gain, unit_gain
from asyncq.theory.stability import rate

__all__ = ["ExactDecay", "LawDecay", "best_momentum", "polyak", "worst"]

Real = NDArray[np.float64]


class Decay(Protocol):
    """A model of the decay of E[w^2]. Steps are alpha h, the largest curvature of the range at ``step``."""

    def threshold(self, momentum: float) -> float:
        """The mean-square threshold."""

    def rates(self, steps: Real, momentum: float) -> Real:
        """Contraction of E[w^2] per update at each step."""

    def best_step(self, momentum: float, condition: float) -> tuple[float, float]:
        """(alpha h_max, worst contraction over h_max / condition .. h_max) at the best step."""


def polyak(condition: float) -> tuple[float, float]:
    """(mu*, alpha h_max) of one worker: mu* = ((sqrt k - 1)/(sqrt k + 1))^2, alpha h_max = (1 + sqrt mu*)^2; the
    contraction of E[w^2] is mu* itself."""
    root = (np.sqrt(condition) - 1.0) / (np.sqrt(condition) + 1.0)
    return float(root**2), float((1.0 + root) ** 2)


def worst(decay: Decay, step: float, momentum: float, condition: float, *, modes: int = 25) -> float:
    """The slowest contraction among ``modes`` curvatures between step / condition and step, evenly in the
    logarithm."""
    return float(decay.rates(step * np.geomspace(1.0, 1.0 / condition, modes if condition > 1 else 1), momentum).max())


class ExactDecay:
    """The exact recursion for exponential work."""

    def __init__(self, pool: ExponentialWorkers, curvature_variance: float = 0.0) -> None:
        self.pool, self.variance = pool, curvature_variance
        self.rounds = 7 if pool.homogeneous else 4

    def threshold(self, momentum: float) -> float:
        """The exact mean-square threshold."""
        return self.pool.threshold(momentum, curvature_variance=self.variance)

    def rates(self, steps: Real, momentum: float) -> Real:
        """The exact contraction at each step."""
        return self.pool.rates(steps, momentum, curvature_variance=self.variance)

    def best_step(self, momentum: float, condition: float) -> tuple[float, float]:
        """A grid on which the curvature range is a whole number of cells, then zooms on its best point."""
        edge = self.threshold(momentum) * (1.0 - 1e-9)
        span = max(1, int(np.ceil(np.log(condition) / np.log(1.3)))) if condition > 1 else 0
        ratio = condition ** (1.0 / span) if span else 1.25
        below = max(2, int(np.ceil(np.log(30.0) / np.log(ratio))))
        steps = edge * ratio ** -np.arange(span + below + 1.0)
        values = self.rates(steps, momentum)
        windows = np.lib.stride_tricks.sliding_window_view(values, span + 1).max(axis=1)
        i = int(np.argmin(windows))
        low, high = steps[min(i + 1, below)], steps[max(i - 1, 0)]
        best = (float(steps[i]), float(windows[i]))
        for _ in range(self.rounds):
            tops = np.linspace(low, high, 9)
            ends = self.rates(np.concatenate([tops, tops / condition]), momentum)
            inner = [float(values[(steps < u) & (steps > u / condition)].max(initial=0.0)) for u in tops]
            totals = np.maximum(np.maximum(ends[:9], ends[9:]), inner)
            j = int(np.argmin(totals))
            if totals[j] < best[1]:
                best = (float(tops[j]), float(totals[j]))
            low, high = tops[max(j - 1, 0)], tops[min(j + 1, 8)]
        return best


class LawDecay:
    """Independent staleness with a given law: a model."""

    def __init__(self, law: StalenessLaw, curvature_variance: float = 0.0) -> None:
        self.law, self.variance = law, curvature_variance
        self.guess: dict[float, float] = {}

    def threshold(self, momentum: float) -> float:
        """The mean-square threshold."""
        system = Characteristic(self.law, momentum)
        return unit_gain(system, system.first_crossing(), curvature_variance=self.variance)

    def rates(self, steps: Real, momentum: float) -> Real:
        """The contraction at each step."""
        return np.array([rate(self.law, float(c), momentum=momentum, curvature_variance=self.variance) for c in steps])

    def best_step(self, momentum: float, condition: float) -> tuple[float, float]:
        """The smallest rho at which the steps that contract at least as fast span the whole curvature range."""
        system = Characteristic(self.law, momentum)
        slow, fast, best = 0.0, np.inf, 0.0  # in log(1 - rho): slow is feasible, fast is not
        trial = self.guess.get(condition, float(np.log(0.5 / condition)))
        stride = 0.1 if condition in self.guess else 1.0
        for _ in range(60):
            low, high = self._window(system, -float(np.expm1(trial)))
            if high >= condition * low > 0:
                slow, best = trial, high
            else:
                fast = trial
            if slow and np.isfinite(fast):
                if abs(fast - slow) < 1e-4:
                    break
                trial = 0.5 * (slow + fast)
            else:
                trial, stride = (trial + stride if slow else trial - stride), 2 * stride
                if trial >= 0.0:
                    fast, trial = 0.0, 0.5 * slow
        if slow:
            self.guess[condition] = slow
        return best, -float(np.expm1(slow)) if slow else 1.0

    def _window(self, system: Characteristic, rho: float) -> tuple[float, float]:
        """The first interval of steps on which the contraction is rho or faster, or (0, 0)."""
        if rho <= 0.0 or -0.5 * np.log(rho) * system.length > 300.0:
            return 0.0, 0.0
        curve = system.curve(rho**-0.5)
        unstable, last = curve.winding_of_a(), 0.0
        for crossing in curve.crossings(8):
            if unstable == 0 and crossing.k > last:
                break
            unstable += crossing.roots if crossing.entering else -crossing.roots
            last = crossing.k
        else:
            return 0.0, 0.0
        if system.constant and self.variance == 0.0:
            return last, crossing.k
        return self._inside(system, rho, last, crossing.k)

    def _inside(self, system: Characteristic, rho: float, left: float, right: float) -> tuple[float, float]:
        grids: dict[int, Gain] = {}

        def excess(log: float) -> float:
            g = gain(system, float(np.exp(log)), rho=rho, curvature_variance=self.variance, grids=grids)[0]
            return float(np.log(min(g, 1e30))) if g > 0 else -70.0

        left = max(left, right * 1e-9)
        logs = np.linspace(np.log(left), np.log(right), 11)[1:-1]
        values = np.array([excess(log) for log in logs])
        i = int(np.argmin(values))
        if values[i] >= 0.0:
            return 0.0, 0.0
        first, final = i, i
        while first > 0 and values[first - 1] < 0.0:
            first -= 1
        while final < logs.size - 1 and values[final + 1] < 0.0:
            final += 1
        tiny = 1e-4 * (np.log(right) - np.log(left))
        before = logs[first - 1] if first else np.log(left) + tiny
        after = logs[final + 1] if final < logs.size - 1 else np.log(right) - tiny
        low = (
            bracketed_root(excess, float(before), float(logs[first]), rtol=1e-5)
            if excess(float(before)) > 0
            else before
        )
        high = (
            bracketed_root(excess, float(logs[final]), float(after), rtol=1e-5) if excess(float(after)) > 0 else after
        )
        return float(np.exp(low)), float(np.exp(high))


def best_momentum(
    objective: Callable[[float], float], *, lowest: float, highest: float, points: int = 33, rounds: int = 6
) -> tuple[float, float]:
    """(momentum, value) of the global minimum of ``objective`` on [lowest, highest]: a grid even in atanh(momentum),
    then zooms by four around each of its three best local minima. Deterministic."""
    grid = np.tanh(np.linspace(np.arctanh(lowest), np.arctanh(highest), points))
    values = np.array([objective(float(mu)) for mu in grid])
    padded = np.concatenate(([np.inf], values, [np.inf]))
    minima = np.flatnonzero((values <= padded[:-2]) & (values <= padded[2:]) & np.isfinite(values))
    best = (float(grid[int(np.argmin(values))]), float(values.min()))
    for i in minima[np.argsort(values[minima])][:3]:
        low, middle, high = grid[max(i - 1, 0)], grid[i], grid[min(i + 1, points - 1)]
        top = float(values[i])
        for turn in range(rounds):
            if turn > 1 and top > best[1] * (1 + 1e-3):
                break
            trial = np.linspace(low, high, 9)
            found = np.array([top if mu == middle else objective(float(mu)) for mu in trial])
            j = int(np.argmin(found))
            if found[j] <= top:
                middle, top = float(trial[j]), float(found[j])
            low, high = trial[max(j - 1, 0)], trial[min(j + 1, 8)]
            if top < best[1]:
                best = (float(middle), top)
    return best
