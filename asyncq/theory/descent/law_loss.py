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
from asyncq.theory.descent.envelope import Modes, last_above
from asyncq.theory.descent.exponential import ExponentialWorkers
from asyncq.theory.descent.exponential_classes import class_moments
from asyncq.theory.descent.mean_square import Gain, gain, unit_gain
from asyncq.theory.descent.power_series import BLOCK, reciprocal
from asyncq.theory.descent.time_to_target import Quadratic, crossing, stable_steps

__all__ = ["LawLoss", "UnequalLoss"]

Real = NDArray[np.float64]

SHORTEST = 128  # terms of a power series
MOST_CELLS = 1 << 20  # of all series that are computed together
ONE_RATE = 2e-4  # largest relative difference of equal rates
SWING = 8.0  # what may still come, over the largest of the last half: 45 degrees of a wave that began at rest
GEOMETRIC = 1e-6  # the same of an impulse's
DIED = 1e-7  # of an impulse's response: what is left does not matter
SPEEDS = 8  # classes of speed whose moments are taken as a matrix
STILL = 1e-6  # of the target: a mode that has settled
LONGEST = 1 << 14  # terms of a power series; beyond, each mode falls to its floor at its last rate


class LawLoss:
    """Independent staleness of a law, ``gradients`` = K independent draws averaged in each update: a model.

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
        """Copy with fewer terms for a coarse search; thresholds are shared."""
        rough = copy.copy(self)
        rough.longest = 256 if 6.0 * self.law.mean < 256 else 512
        return rough

    def threshold(self, momentum: float) -> float:
        """Mean-square threshold: the step with gain / K = 1."""
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
        """Updates to the target, by power series of 128, 256, ... terms (at most ``longest``), until later terms
        cannot lift the loss above the target or are known."""
        out = np.full(steps.size, np.inf)
        mu, fine = stable_steps(self, steps, momentum)
        left = np.flatnonzero(fine)
        first = np.minimum(self._least(steps[left], mu[left]), self.longest)
        terms = SHORTEST
        while left.size:
            last = terms >= self.longest
            due = left[(first <= terms) | last]
            each = max(1, MOST_CELLS // (terms * self.quadratic.curvature.size))
            for part in np.split(due, range(each, due.size, each)):
                if part.size:
                    out[part] = self._reached(*self._series(steps[part], mu[part], terms), steps[part], mu[part], last)
            done = np.isin(left, due[~np.isnan(out[due])])
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
        """Limit of E[w^2] / start^2 of a mode: gain and noise are both divided by K."""
        q = self.quadratic
        if momentum not in self._systems:
            self._systems[momentum] = Characteristic(self.law, momentum), {}
        system, grids = self._systems[momentum]
        g, density = gain(system, step * float(q.curvature[mode]) / q.sharpness, grids=grids)
        noise = (step / q.sharpness) ** 2 * float(q.noise[mode]) / self.averaged
        return noise * density / max(1.0 - g / self.averaged, 1e-12) / float(q.start[mode]) ** 2

    def moments(self, steps: Real, momentum: float, terms: int) -> Real:
        """E[w_t^2] / start^2 for t = 0 .. terms - 1, shape (S, d, terms)."""
        longer = 1 << max(terms - 1, BLOCK - 1).bit_length()
        return self._series(steps, np.full(steps.size, momentum), longer)[0][..., :terms]

    def _series(self, steps: Real, momentum: Real, terms: int) -> tuple[Real, Real, Real]:
        """The moments and the mean path of each mode (S, d, terms), and its floor (S, d), not a number where the
        response to an impulse has neither died out nor settled to one rate; ``terms`` is a power of two."""
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
        return out.reshape(*shape, n), mean.reshape(*shape, n), floor.reshape(shape)

    def _reached(
        self, moments: Real, mean: Real, floors: Real, steps: Real, momentum: Real, last: bool
    ) -> Real:
        """Updates to the target at each step; not a number where more terms are needed (never if ``last``)."""
        q, n = self.quadratic, moments.shape[-1]
        share = q.loss / q.loss.sum()
        moments = np.where(np.isfinite(moments), moments, np.inf)
        curve = np.einsum("sdt,d->st", moments, share)
        floors = np.where(q.noise == 0.0, 0.0, floors)
        hopeless = (np.maximum(np.nan_to_num(floors), self._small_floor(steps, momentum)) @ share) >= q.target
        if last:
            self._fill(floors, steps, momentum, share, hopeless)
        above, rate, one_rate = _one_rate(moments, floors)
        late = np.abs(moments[..., n // 2 :] - floors[..., None])
        size = late.max(axis=-1)
        gone = share * size <= STILL * q.target
        turns = np.count_nonzero(np.diff(np.signbit(mean[..., n // 2 :]), axis=-1), axis=-1)
        size = np.where(one_rate, np.abs(above), size)
        size *= np.where(one_rate | (turns >= 3), 1.0, SWING)
        over = (floors + size) @ share <= q.target
        known = np.all(one_rate | gone, axis=1)
        if last:
            waves = ~(one_rate | gone)
            third, fourth = (late[..., i * n // 4 : (i + 1) * n // 4].max(axis=-1) for i in (0, 1))
            with np.errstate(divide="ignore", invalid="ignore"):
                falls = np.minimum(np.nan_to_num(np.log(fourth / third) / (n // 4)), -1e-12)
            rate = np.where(waves, falls, rate)
            above = np.where(waves, fourth * np.exp(falls * (n // 4)), above)
        above, rate = np.where(gone, 0.0, above), np.where(gone, -1.0, rate)
        found = np.full(steps.size, np.nan)
        found[hopeless] = np.inf
        found[over & ~hopeless] = crossing(curve[over & ~hopeless], q.target)
        rest = np.flatnonzero((known | last) & ~over & ~hopeless)
        if rest.size:
            tail = Modes((share * above[rest]).astype(complex), rate[rest].astype(complex), floors[rest] @ share)
            after = last_above(tail, q.target)
            found[rest] = np.where(after > 0, n - 1 + after, crossing(curve[rest], q.target))
        return np.where(np.isnan(found) & last, np.inf, found)

    def _small_floor(self, steps: Real, momentum: Real) -> Real:
        """A lower bound on the floors of E[w^2] / start^2, (S, d): that of small steps."""
        q = self.quadratic
        small = (steps / q.sharpness / (1.0 - momentum))[:, None] * q.noise / (2.0 * q.curvature)
        return np.asarray(0.5 * small / self.averaged / q.start**2)

    def _fill(self, floors: Real, steps: Real, momentum: Real, share: Real, hopeless: NDArray[np.bool_]) -> None:
        """The floors that the series leave open: by the gain, or for a search about those of small steps."""
        for i, j in np.argwhere(np.isnan(floors) & ~hopeless[:, None]):
            if self.longest < LONGEST:
                floors[i, j] = 2.0 * self._small_floor(steps[i : i + 1], momentum[i : i + 1])[0, j]
            else:
                floors[i, j] = self._floor(float(steps[i]), float(momentum[i]), int(j))
        floors[np.isnan(floors)] = 0.0


class UnequalLoss(LawLoss):
    """Exponential workers of unequal speed: tuned on their law, with the exact threshold, and exact moments for one
    setting (:meth:`exact`)."""

    def __init__(self, pool: ExponentialWorkers, quadratic: Quadratic) -> None:
        super().__init__(pool.law(tail=1e-12), quadratic)
        self.pool = pool

    def threshold(self, momentum: float) -> float:
        """Exact mean-square threshold."""
        if momentum not in self._edges:
            self._edges[momentum] = self.pool.threshold(momentum)
        return self._edges[momentum]

    def exact(self, step: float, momentum: float, *, most: int) -> float:
        """Updates to the target by the exact recursion; with many classes of speed, infinite beyond ``most``."""
        q, pool = self.quadratic, self.pool
        if len(pool.counts) <= SPEEDS:
            c = step * q.curvature / q.sharpness
            matrix, drive = class_moments(pool.counts, pool.shares, c, momentum)
            noise = (step / q.sharpness) ** 2 * q.noise / q.start**2
            start = np.eye(drive.size)[0]
            curves = Modes.of_recursions(matrix[None], start, (noise[:, None] * drive)[None], q.loss / q.loss.sum())
            return float(last_above(curves, q.target)[0])
        curve = np.zeros(most + 1)
        for h, w, s2 in zip(q.curvature, q.start, q.noise, strict=True):
            moments = self.pool.moments(
                step * h / q.sharpness, momentum, updates=most, start=float(w), noise=float(s2), curvature=float(h)
            )
            curve += 0.5 * h * moments
        return float(crossing(curve[None] / q.loss.sum(), q.target)[0])


def _one_rate(moments: Real, floors: Real) -> tuple[Real, Real, NDArray[np.bool_]]:
    """What is above the floor at the last term, the rate at which it falls (negative), and whether it has fallen at
    that rate all through the last half of the terms; each (S, d)."""
    n = moments.shape[-1]
    above = moments[..., -1] - floors
    at = np.linspace(n // 2, n - 1, 9).astype(int)
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.diff(np.log(moments[..., at] - floors[..., None]), axis=-1) / np.diff(at)
        last = slopes[..., -1]
        found = np.all(np.abs(slopes - last[..., None]) <= ONE_RATE * np.abs(last)[..., None], axis=-1) & (last < 0)
    return above, np.where(found, last, -1.0), found


def _floor_of(k: Real, spread: Real, noise: Real) -> Real:
    """What E[w^2] settles at, (B,), by (P.7) at x = 1, from the responses ``k`` (B, n) to an impulse and their
    ``spread`` over the staleness, both with a geometric tail; not a number where the tail is none."""
    n = k.shape[-1]
    m = n // 8
    with np.errstate(all="ignore"):
        decay = 2.0 * np.log(k[:, -1] / k[:, -1 - m]) / m
        before = 2.0 * np.log(k[:, -1 - m] / k[:, -1 - 2 * m]) / m
        good = (decay < 0) & (np.abs(decay - before) <= GEOMETRIC * np.abs(decay))
        tail = np.where(good, 1.0 / np.expm1(-decay), 0.0)
        gain = spread.sum(axis=1) + spread[:, -1] * tail
        level = noise * ((k * k).sum(axis=1) + k[:, -1] ** 2 * tail) / (1.0 - gain)
        rest = n // 4 * np.max(k[:, -n // 4 :] ** 2, axis=1)  # more than a response that dies out still adds
        whole = (rest <= DIED * (k * k).sum(axis=1)) & (n // 4 * np.abs(spread[:, -n // 4 :]).max(axis=1) <= DIED)
    good |= whole
    return np.where(good & (gain < 1.0), level, np.nan)
