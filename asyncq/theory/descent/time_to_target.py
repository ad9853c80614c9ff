"""Updates until the expected loss of a noisy quadratic has fallen for good to a target: transient and noise floor.

Loss = sum over modes of h E[w^2] / 2; everything starts at rest at ``start``. Two models of E[w_t^2]: the exact second
moments of exponential workers, and independent staleness of any law, where E[w_t^2] solves a scalar renewal equation
of power series. Source: theory.md sections 6 and 8; derivation in docs/theory/planning.md.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asyncq.staleness import StalenessLaw
from asyncq.theory.descent.bracketing import bracketed_root
from asyncq.theory.descent.characteristic import Characteristic
from asyncq.theory.descent.exponential import ExponentialWorkers, exponential_workers
from asyncq.theory.descent.mean_square import Gain, gain, unit_gain

__all__ = ["ExactLoss", "LawLoss", "LossModel", "Quadratic", "UnequalLoss", "crossing", "fresh_loss"]

Real = NDArray[np.float64]

STEPPED = 128  # updates that are followed one by one before whole powers of the recursion are taken
DOUBLINGS = 24  # of the recursion: longer than 2^24 updates is never
DIRECT = 16  # terms of a reciprocal that are taken one by one
SHORTEST = 128  # terms of a power series
ONE_RATE = 2e-4  # relative difference of two rates that are one
GEOMETRIC = 1e-6  # the same of an impulse's
STILL = 1e-6  # relative change of a mode that has settled
LONGEST = 1024  # terms of a power series; beyond, each mode decays to its floor at its last rate


@dataclass(frozen=True, eq=False)
class Quadratic:
    """Modes of ``curvature`` h (d,), started at ``start`` (d,), with gradient noise of variance ``noise`` (d,) for one
    worker's gradient; the loss is to fall to ``target`` (a share of what it is at the start)."""

    curvature: Real
    start: Real
    noise: Real
    target: float

    @property
    def sharpness(self) -> float:
        """The largest curvature."""
        return float(self.curvature.max())

    @property
    def loss(self) -> Real:
        """The loss of each mode at the start, (d,)."""
        return np.asarray(0.5 * self.curvature * self.start**2)

    def averaged(self, gradients: float) -> Quadratic:
        """The same with the noise of the mean of so many gradients."""
        return Quadratic(self.curvature, self.start, self.noise / gradients, self.target)


class LossModel(Protocol):
    """What a tuner asks; steps are learning rates times the sharpness."""

    @property
    def quadratic(self) -> Quadratic:
        """What is minimised."""

    def threshold(self, momentum: float) -> float:
        """The mean-square threshold of learning rate times sharpness."""

    @property
    def averaged(self) -> int:
        """Gradients averaged in an update."""

    def updates(self, steps: Real, momentum: ArrayLike) -> Real:
        """Updates to the target at each step (S,), of one momentum or of one each, interpolated; infinite where
        it is never reached or unstable."""


class ExactLoss:
    """Equal exponential workers, K contributors to an update; with one worker: no staleness at all, whatever the
    work."""

    def __init__(self, pool: ExponentialWorkers, quadratic: Quadratic) -> None:
        self.pool, self.quadratic = pool, quadratic
        self.averaged = pool.contributors
        self._edges: dict[float, float] = {}

    def threshold(self, momentum: float) -> float:
        """Exact."""
        if momentum not in self._edges:
            self._edges[momentum] = self.pool.threshold(momentum)
        return self._edges[momentum]

    def updates(self, steps: Real, momentum: ArrayLike) -> Real:
        """By the recursion and its repeated squares."""
        q = self.quadratic
        mu, fine = _stable(self, steps, momentum)
        out = np.full(steps.size, np.inf)
        if not fine.any():
            return out
        c = steps[fine][:, None] * (q.curvature / q.sharpness)
        noise = (steps[fine][:, None] / q.sharpness) ** 2 * q.noise / np.where(q.start == 0, 1.0, q.start) ** 2
        matrix = self.pool.matrix(c, mu[fine][:, None])
        size = matrix.shape[-1]
        drive = noise[..., None] * self.pool.noise_moments()
        floor = np.linalg.solve(np.eye(size) - matrix, drive[..., None])[..., 0, 0]
        share = q.loss / q.loss.sum()
        reachable = np.flatnonzero((floor @ share < q.target) & np.all(floor >= 0, axis=-1))
        if not reachable.size:
            return out
        whole = np.zeros((reachable.size, q.curvature.size, size + 1, size + 1))
        whole[..., :size, :size], whole[..., :size, size] = matrix[reachable], drive[reachable]
        whole[..., size, size] = 1.0
        with np.errstate(over="ignore", invalid="ignore"):  # at the very edge of stability
            found = _first_for_good(whole, share, q.target)
        out[np.flatnonzero(fine)[reachable]] = np.where(np.isnan(found), np.inf, found)
        return out


def _stable(model: LossModel, steps: Real, momentum: ArrayLike) -> tuple[Real, NDArray[np.bool_]]:
    """The momentum of each step (S,), and which steps are under their threshold."""
    mu = np.broadcast_to(np.asarray(momentum, dtype=np.float64), steps.shape)
    edges = np.array([model.threshold(x) for x in mu.tolist()])
    return mu, (steps > 0) & (steps < edges)


def _first_for_good(whole: Real, share: Real, target: float) -> Real:
    """Updates after which the loss of the affine recursions ``whole`` (S, d, n, n) stays at the target, interpolated
    in its logarithm."""
    powers = [whole]
    path = _followed(powers, np.broadcast_to(_at_rest(whole.shape[-1]), whole.shape[:-1]))
    curve = _loss(path, share)
    out = crossing(curve, target)
    late = np.flatnonzero(curve[:, -1] > target)
    if not late.size:
        return out
    powers, state = [power[late] for power in powers], path[late, ..., -1]
    below = 0  # powers in a row that lead to the target
    while len(powers) < DOUBLINGS:
        above = _loss((powers[-1] @ path[late, ..., -1:]), share)[:, 0] > target
        below = 0 if np.any(above) else below + 1
        if below == 2:
            break
        powers.append(powers[-1] @ powers[-1])
    first, _ = _advanced(powers, state, share, target, np.full(late.size, len(powers)))
    # momentum may carry the loss up again: follow it in strides to twice or four times as far
    stride = np.clip(np.floor(np.log2(np.maximum(first, 32.0) / 32.0)), 0, DOUBLINGS - 3).astype(int)
    leap = np.stack([powers[j][i] for i, j in enumerate(stride)])
    path = _followed([leap], state)
    above = _loss(path, share) > target
    last = STEPPED - np.argmax(above[:, ::-1], axis=1)
    state = path[np.arange(late.size), ..., last]
    more, state = _advanced(powers, state, share, target, stride + 1)
    done = last * 2.0**stride + more
    before = state[..., 0] @ share
    after = (whole[late] @ state[..., None])[..., 0, 0] @ share
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.log(before / target) / np.log(before / after)
    never = (first >= 2.0**DOUBLINGS - 1) | (last == STEPPED)
    out[late] = np.where(never, np.inf, STEPPED + done + np.clip(part, 0.0, 1.0))
    return out


def _at_rest(size: int) -> Real:
    """The affine state (n,) of the moments at the start: E w^2 = 1, no update behind, nobody late."""
    state = np.zeros(size)
    state[[0, -1]] = 1.0
    return state


def _followed(powers: list[Real], state: Real) -> Real:
    """The states (S, d, n, STEPPED + 1) after 0 .. ``STEPPED`` updates, twice as many with every square of the
    recursion; the squares are appended to ``powers``."""
    path = state[..., None]
    while path.shape[-1] < STEPPED:
        path = np.concatenate([path, powers[-1] @ path], axis=-1)
        powers.append(powers[-1] @ powers[-1])
    return np.concatenate([path, powers[-1] @ path[..., :1]], axis=-1)


def _loss(path: Real, share: Real) -> Real:
    """The loss (S, T) along states (S, d, n, T)."""
    return np.asarray(np.einsum("sdt,d->st", path[:, :, 0], share))


def _advanced(
    powers: list[Real], state: Real, share: Real, target: float, below: NDArray[np.int64]
) -> tuple[Real, Real]:
    """Updates for which the loss stays above the target, taken in powers of two under ``below``, and the state then."""
    done = np.zeros(state.shape[0])
    for j in reversed(range(int(below.max()))):
        ahead = (powers[j] @ state[..., None])[..., 0]
        above = (ahead[..., 0] @ share > target) & (j < below)
        state = np.where(above[:, None, None], ahead, state)
        done += np.where(above, 2.0**j, 0.0)
    return done, state


def crossing(curves: Real, target: float) -> Real:
    """Where each curve (S, T) falls to the target for good, interpolated in its logarithm; infinite if it ends
    above."""
    above = curves > target
    last = above.shape[1] - 1 - np.argmax(above[:, ::-1], axis=1)
    last = np.where(above.any(axis=1), last, -1)
    rows, safe = np.arange(curves.shape[0]), np.clip(last, 0, above.shape[1] - 2)
    before, after = curves[rows, safe], curves[rows, safe + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.log(before / target) / np.log(before / after)
    found = np.where(last < 0, 0.0, safe + np.clip(np.nan_to_num(part, nan=1.0), 0.0, 1.0))
    return np.where(last == above.shape[1] - 1, np.inf, found)


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
        mu, fine = _stable(self, steps, momentum)
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
        k = _inverse(p)
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
        v = np.fft.irfft(np.fft.rfft(_inverse(back), size) * np.fft.rfft(surprise, size), size)[:, :n]
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


def fresh_loss(quadratic: Quadratic, step: float, momentum: float, at: NDArray[np.int64]) -> Real:
    """The expected loss without staleness after ``at`` (P,) updates, in ascending order, exact."""
    q, pool = quadratic, exponential_workers(1)
    matrix = pool.matrix(step * q.curvature / q.sharpness, momentum)
    drive = ((step / q.sharpness) ** 2 * q.noise / q.start**2)[:, None] * pool.noise_moments()
    size = matrix.shape[-1]
    whole = np.zeros((q.curvature.size, size + 1, size + 1))
    whole[:, :size, :size], whole[:, :size, size], whole[:, size, size] = matrix, drive, 1.0
    state = np.broadcast_to(_at_rest(size + 1), (q.curvature.size, size + 1))
    powers: dict[int, Real] = {}
    out, now = np.empty(len(at)), 0
    for i, then in enumerate(at):
        gap = int(then) - now
        if gap not in powers:
            powers[gap] = np.linalg.matrix_power(whole, gap)
        state, now = (powers[gap] @ state[..., None])[..., 0], int(then)
        out[i] = float(state[:, 0] @ q.loss)
    return out


# -- power series, truncated, along the last axis ----------------------------------------------------------------------


def _inverse(a: Real) -> Real:
    """1 / a, a (B, n) with n a power of two, by Newton's iteration: 1 = a b + x^m e gives the next m terms as -b e.
    Products are cyclic: what wraps round falls where it is known or thrown away."""
    n = a.shape[-1]
    b = np.zeros_like(a)
    b[:, 0] = 1.0 / a[:, 0]
    for t in range(1, min(n, DIRECT)):
        b[:, t] = -np.einsum("bi,bi->b", a[:, 1 : t + 1], b[:, :t][:, ::-1]) * b[:, 0]
    m = DIRECT
    while m < n:
        spectrum = np.fft.rfft(b[:, :m], 2 * m)
        rest = np.fft.irfft(np.fft.rfft(a[:, : 2 * m], 2 * m) * spectrum, 2 * m)
        rest[:, :m] = 0.0
        b[:, m : 2 * m] = -np.fft.irfft(np.fft.rfft(rest, 2 * m) * spectrum, 2 * m)[:, m:]
        m *= 2
    return b
