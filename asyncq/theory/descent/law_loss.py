"""Updates to a target under independent staleness of any law: E[w_t^2] by power series. A model.

Source: docs/theory/planning.md (P.3) to (P.7).
"""

from __future__ import annotations

import copy
import itertools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asyncq.staleness import StalenessLaw
from asyncq.theory.descent.bracketing import bracketed_root
from asyncq.theory.descent.characteristic import Characteristic
from asyncq.theory.descent.exponential import ExponentialWorkers
from asyncq.theory.descent.mean_square import Gain, gain, unit_gain
from asyncq.theory.descent.power_series import DIRECT, reciprocal
from asyncq.theory.descent.time_to_target import Quadratic, crossing, stable_steps

__all__ = ["LawLoss", "UnequalLoss"]

Real = NDArray[np.float64]

DOUBLINGS = 24  # longer than 2^24 updates is never
SHORTEST = 128  # terms of a power series
ONE_RATE = 2e-4  # relative difference of two rates that are one
GEOMETRIC = 1e-6  # the same of an impulse's
STILL = 1e-6  # relative change of a mode that has settled
LONGEST = 1024  # terms of a power series; beyond, each mode decays to its floor at its last rate


class LawLoss:
    """Independent staleness of one law, ``gradients`` = K independent draws averaged in each update: a model.

    With P = (1 - x)(1 - mu x) + c x Q, k = 1/P its series, m the mean path, V_t the variance of what update t adds,
    S = m^2 + x k^2 * V and V (1 - (c^2/K) x (Q k^2 - (Q k)^2)) = (c^2/K)(Q m^2 - (Q m)^2) + alpha^2 s^2 / K,
    squares taken term by term, and everything before the start at rest. docs/theory/planning.md (P.4) to (P.7).
    """

    def __init__(self, law: StalenessLaw, quadratic: Quadratic, *, gradients: int = 1) -> None:
        self.law, self.quadratic, self.averaged = law, quadratic, gradients
        self.longest = LONGEST
        self._systems: dict[float, tuple[Characteristic, dict[int, Gain]]] = {}
        self._edges: dict[float, float] = {}

    def coarse(self) -> LawLoss:
        """The same with fewer terms, for a search; thresholds are shared."""
        rough = copy.copy(self)
        rough.longest = 256 if 6.0 * self.law.mean < 256 else 512
        return rough

    def threshold(self, momentum: float) -> float:
        """Where the gain, divided by K, is 1."""
        if momentum not in self._edges:
            system = Characteristic(self.law, momentum)
            edge = system.first_crossing()
            if self.averaged == 1:
                edge = unit_gain(system, edge)
            elif not system.constant:
                edge = self._averaged_edge(system, edge)
            self._edges[momentum] = edge
        return self._edges[momentum]

    def _averaged_edge(self, system: Characteristic, edge: float) -> float:
        def excess(s: float) -> float:  # the gain grows like 1 / (1 - c / edge)
            g = gain(system, float(-edge * np.expm1(-s)))[0]
            return float(np.log(min(g, 1e30) / self.averaged)) if g > 0 else -70.0

        grid = [0.0, 0.1, 0.3, 0.7, 1.5, 3.0, 6.0, 12.0, 20.0]
        for low, high in itertools.pairwise(grid):
            if excess(high) >= 0.0:
                return float(-edge * np.expm1(-bracketed_root(excess, max(low, 1e-9), high, rtol=1e-6)))
        return edge

    def updates(self, steps: Real, momentum: ArrayLike) -> Real:
        """By power series, as long as it takes until the target is met or every mode decays at one rate to its floor;
        at most ``LONGEST`` terms."""
        out = np.full(steps.size, np.inf)
        mu, fine = stable_steps(self, steps, momentum)
        left = np.flatnonzero(fine)
        first = np.minimum(self._least(steps[left], mu[left]), self.longest)
        terms = SHORTEST
        while left.size:
            due = left[first <= terms]
            if due.size:
                series = self._series(steps[due], mu[due], terms)
                found = self._reached(*series, steps[due], mu[due], last=terms >= self.longest)
                out[due] = np.where(np.isnan(found), np.inf, found)
                done = np.isin(left, due[~np.isnan(found)])
                left, first = left[~done], first[~done]
            terms *= 2
        return out

    def _least(self, steps: Real, momentum: Real) -> Real:
        """Terms below which neither the target is met (at the rates of small steps) nor the transient over."""
        q = self.quadratic
        slowness = (1.0 - momentum[:, None]) / (2.0 * steps[:, None] * (q.curvature / q.sharpness))
        share = q.loss / q.loss.sum()
        with np.errstate(divide="ignore"):
            met = (slowness * np.log(np.maximum(share, 1e-300) / q.target)).max(axis=1)
        return np.asarray(np.minimum(0.5 * met, 6.0 * np.maximum(self.law.mean, 1.0 / (1.0 - momentum))))

    def _floor(self, step: float, momentum: float, mode: int) -> float:
        """What E[w^2] / start^2 of one mode settles at: the gain and the noise both shared among K draws."""
        q = self.quadratic
        if momentum not in self._systems:
            self._systems[momentum] = Characteristic(self.law, momentum), {}
        system, grids = self._systems[momentum]
        g, density = gain(system, step * float(q.curvature[mode]) / q.sharpness, grids=grids)
        noise = (step / q.sharpness) ** 2 * float(q.noise[mode]) / self.averaged
        return noise * density / max(1.0 - g / self.averaged, 1e-12) / float(q.start[mode]) ** 2

    def moments(self, steps: Real, momentum: float, terms: int) -> Real:
        """E[w_t^2] / start^2 for t = 0 .. terms - 1, shape (S, d, terms)."""
        longer = 1 << max(terms - 1, DIRECT - 1).bit_length()
        return self._series(steps, np.full(steps.size, momentum), longer)[0][..., :terms]

    def _series(self, steps: Real, momentum: Real, terms: int) -> tuple[Real, Real]:
        """The moments, and the floor of each mode (S, d), not a number where an impulse has not settled to one rate:
        ``terms`` a power of two."""
        q, n = self.quadratic, terms
        mu = np.repeat(momentum, q.curvature.size)
        c = (steps[:, None] * (q.curvature / q.sharpness)).ravel()[:, None]
        noise = (steps[:, None] / q.sharpness) ** 2 * q.noise / q.start**2
        pmf = self.law.pmf[:n]
        law = np.zeros(n)
        law[: pmf.size] = pmf
        later = np.clip(1.0 - np.cumsum(law), 0.0, 1.0)  # read before the start
        p = np.zeros((c.size, n))
        p[:, 1:] = c * law[:-1]
        p[:, :3] += np.stack([np.ones_like(mu), -(1.0 + mu), mu], axis=1)
        k = reciprocal(p)
        mean = np.ones_like(k)
        mean[:, 1:] -= c * np.cumsum(k, axis=1)[:, :-1]
        size = 2 * n
        spectra = np.fft.rfft(np.stack([mean, k, mean**2, k**2]), size)
        seen, seen_k, seen_squares, seen_k_squares = np.fft.irfft(spectra * np.fft.rfft(law, size), size)[..., :n]
        seen += later
        spread = c * c / self.averaged
        surprise = spread * (seen_squares + later - seen**2) + noise.reshape(-1, 1) / self.averaged
        back = np.zeros_like(k)
        back[:, 1:] = -spread * (seen_k_squares - seen_k**2)[:, :-1]
        back[:, 0] = 1.0
        # V = surprise / back, cut to n terms before it meets k^2
        v = np.fft.irfft(np.fft.rfft(reciprocal(back), size) * np.fft.rfft(surprise, size), size)[:, :n]
        out = mean**2
        out[:, 1:] += np.fft.irfft(spectra[3] * np.fft.rfft(v, size), size)[:, : n - 1]
        floor = _floor_of(k, spread * (seen_k_squares - seen_k**2), noise.reshape(-1) / self.averaged)
        shape = (steps.size, q.curvature.size)
        return out.reshape(*shape, n), floor.reshape(shape)

    def _reached(self, moments: Real, floors: Real, steps: Real, momentum: Real, *, last: bool) -> Real:
        """Updates to the target at each step; not a number where more terms are needed (never if ``last``)."""
        q = self.quadratic
        share = q.loss / q.loss.sum()
        curve = np.einsum("sdt,d->st", moments, share)
        if not np.all(np.isfinite(curve)):
            curve = np.where(np.isfinite(curve), curve, np.inf)
        found = crossing(curve, q.target)
        beyond = np.flatnonzero(np.isinf(found))
        if not beyond.size:
            return found
        n = moments.shape[-1]
        middle, later, end = (moments[beyond, :, i] for i in (n // 2, 3 * n // 4, n - 1))
        floor = floors[beyond]
        with np.errstate(divide="ignore", invalid="ignore"):
            early = np.log((later - floor) / (middle - floor)) / (3 * n // 4 - n // 2)
            rate = np.log((end - floor) / (later - floor)) / (n - 1 - 3 * n // 4)
            one_rate = (rate < 0) & np.isfinite(rate) & (np.abs(rate - early) <= ONE_RATE * np.abs(rate))
            still = np.maximum(np.abs(end - middle), np.abs(end - later)) <= STILL * end
        gone = (share * np.abs(end - np.where(still, end, np.where(np.isnan(floor), 0.0, floor))) <= STILL * q.target)
        known = one_rate | still | gone
        floor = np.where(one_rate, floor, end)
        rate = np.where(one_rate, rate, -1.0)
        if last and not np.all(known):
            guessed_floor, guessed_rate = self._guessed(middle, end, floors[beyond], steps[beyond], momentum[beyond], n)
            floor, rate = np.where(known, floor, guessed_floor), np.where(known, rate, guessed_rate)
        sure = np.all(known, axis=1) | last
        able = np.flatnonzero(sure & (floor @ share < q.target) & np.all(np.isfinite(end), axis=1))
        found[beyond[~sure]] = np.nan
        found[beyond[able]] = n - 1 + _decays(
            share * floor[able], share * (end[able] - floor[able]), rate[able], q.target
        )
        return found

    def _guessed(
        self, middle: Real, end: Real, floors: Real, steps: Real, momentum: Real, terms: int
    ) -> tuple[Real, Real]:
        """Floors and rates (S, d) where a mode has not settled to one rate within all terms: its last rate is taken."""
        q = self.quadratic
        settled = np.abs(end - middle) <= 1e-4 * end
        floor = np.where(settled, end, np.nan_to_num(floors, nan=0.0))
        for i, j in np.argwhere(~settled & (q.noise > 0) & np.isnan(floors)):
            if self.longest < LONGEST:  # at small steps, a lower bound
                small = steps[i] / q.sharpness * q.noise[j] / (2.0 * q.curvature[j] * (1.0 - momentum[i]))
                floor[i, j] = small / self.averaged / q.start[j] ** 2
            else:
                floor[i, j] = self._floor(float(steps[i]), float(momentum[i]), int(j))
        floor = np.minimum(floor, 0.9999 * end)
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.log(np.maximum(end - floor, 1e-300) / np.maximum(middle - floor, 1e-300))
        return floor, np.where(settled, -1.0, np.minimum(rate / (terms - 1 - terms // 2), -1e-12))


class UnequalLoss(LawLoss):
    """Exponential workers of unequal speed: tuned on their law, with the exact threshold and the exact moments where
    one setting is judged (:meth:`exact`)."""

    def __init__(self, pool: ExponentialWorkers, quadratic: Quadratic) -> None:
        super().__init__(pool.law(tail=1e-12), quadratic)
        self.pool = pool

    def threshold(self, momentum: float) -> float:
        """Exact."""
        if momentum not in self._edges:
            self._edges[momentum] = self.pool.threshold(momentum)
        return self._edges[momentum]

    def exact(self, step: float, momentum: float, *, most: int) -> float:
        """Updates to the target by the exact recursion; infinite beyond ``most``."""
        q = self.quadratic
        curve = np.zeros(most + 1)
        for h, w, s2 in zip(q.curvature, q.start, q.noise, strict=True):
            moments = self.pool.moments(
                step * h / q.sharpness, momentum, updates=most, start=float(w), noise=float(s2), curvature=float(h)
            )
            curve += 0.5 * h * moments
        return float(crossing(curve[None] / q.loss.sum(), q.target)[0])


def _floor_of(k: Real, spread: Real, noise: Real) -> Real:
    """What E[w^2] settles at, (B,), by (P.7) at x = 1, from the responses ``k`` (B, n) to an impulse and their
    ``spread`` over the staleness, both with a geometric tail; not a number where the tail is none."""
    n = k.shape[-1]
    m = n // 8
    with np.errstate(all="ignore"):
        decay = 2.0 * np.log(k[:, -1] / k[:, -1 - m]) / m
        before = 2.0 * np.log(k[:, -1 - m] / k[:, -1 - 2 * m]) / m
        good = (decay < 0) & (np.abs(decay - before) <= GEOMETRIC * np.abs(decay))
        tail = 1.0 / np.expm1(-decay)
        gain = spread.sum(axis=1) + spread[:, -1] * tail
        level = noise * ((k * k).sum(axis=1) + k[:, -1] ** 2 * tail) / (1.0 - gain)
    return np.where(good & (gain < 1.0), level, np.nan)


def _decays(floor: Real, above: Real, rate: Real, target: float) -> Real:
    """When the sum over modes of floor + above exp(rate t), each (S, d), meets the target; infinite beyond
    2^DOUBLINGS. Newton's steps in the logarithm, kept within a bracket."""
    low, high = np.zeros(floor.shape[0]), np.full(floor.shape[0], 2.0**DOUBLINGS)
    rest = target - floor.sum(axis=1)
    never = (above * np.exp(rate * high[:, None])).sum(axis=1) > rest
    t = low
    for _ in range(100):
        parts = above * np.exp(rate * t[:, None])
        value = parts.sum(axis=1)
        low, high = np.where(value > rest, t, low), np.where(value > rest, high, t)
        with np.errstate(all="ignore"):
            new = t - np.log(value / rest) * value / (rate * parts).sum(axis=1)
        new = np.where((new > low) & (new < high), new, 0.5 * (low + high))
        if np.all((np.abs(new - t) <= 1e-7 * new + 1e-9) | never):
            t = new
            break
        t = new
    return np.where(never, np.inf, t)
