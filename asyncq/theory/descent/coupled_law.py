"""Coupled second moments of a training problem under independent staleness of any law.

With k_j = 1/P_j the response of mode j to an impulse, c_j = alpha h_j, K_j = sum_t k_j(t)^2 rho^-t and G_j = sum_t
(q * k_j)(t)^2 rho^-t, all modes feed each other's noise through one scalar, the loss that a gradient reads:

    loop(rho) = (alpha^2 / (n b rho)) Q(1/rho) sum_j s_j h_j K_j / (1 - g_j),
    g_j = (c_j^2 / (n rho)) (Q(1/rho) K_j - G_j)

with n gradients averaged in an update. Source: docs/theory/networks.md (10.1), (10.5), (10.8) to (10.10).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncq.staleness import StalenessLaw
from asyncq.theory.descent.characteristic import Characteristic
from asyncq.theory.descent.mean_square import gain
from asyncq.theory.descent.power_series import reciprocal
from asyncq.theory.descent.problem import TrainingProblem

__all__ = ["CoupledLaw"]

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]

LEAST = 1024  # points of a circle
AGREE = 1e-6  # relative difference of sums on a grid and on every other point
CELLS = 1 << 22  # of an array over steps, modes and points
SHORT, LONG = 512, 1 << 13  # terms of a mode's series
FIRST, LAST = 1 << 11, 1 << 16  # terms of the series of the loss
LONGEST = 1e13  # updates; longer counts as never
NEGLIGIBLE = 1e-4  # share of a kernel's sum in a tail without a settled rate
ROUNDING = 1e-11  # of a kernel's largest term


class CoupledLaw:
    """Independent staleness of a law, ``gradients`` independent draws averaged in each update."""

    def __init__(self, law: StalenessLaw, problem: TrainingProblem, *, gradients: int = 1) -> None:
        if not (gradients == int(gradients) and gradients >= 1):
            raise ValueError(f"gradients must be a whole number, 1 or more (got {gradients!r})")
        self.law, self.problem, self.averaged = law, problem, int(gradients)
        self.curvature = np.array(problem.curvatures)
        self.noise = np.array(problem.noise) / (problem.batch_size * gradients)
        self.constant = np.array(problem.constant_noise) / (problem.batch_size * gradients)
        self.weight = self.noise * self.curvature
        self._systems: dict[float, tuple[Characteristic, float]] = {}

    def system(self, momentum: float) -> Characteristic:
        """Characteristic function (cached)."""
        return self._known(momentum)[0]

    def edge(self, momentum: float) -> float:
        """Learning rate at which the sharpest mode becomes unstable in expectation: safe for all softer modes."""
        return self._known(momentum)[1] / self.problem.sharpness

    def _known(self, momentum: float) -> tuple[Characteristic, float]:
        if momentum not in self._systems:
            if len(self._systems) >= 32:
                self._systems.pop(next(iter(self._systems)))
            system = Characteristic(self.law, momentum)
            self._systems[momentum] = system, system.first_crossing()
        return self._systems[momentum]

    # -- the sums around a circle -----------------------------------------------------------------------------------

    def sums(self, steps: Real, momentum: float, rho: float = 1.0) -> tuple[Real, Real]:
        """(K, g) at the steps alpha h (N,), without poles within abs(x) <= rho^(-1/2)."""
        system = self.system(momentum)
        if system.length == 0 and rho == 1.0:  # AR(2): closed form
            b = 1.0 + momentum
            with np.errstate(divide="ignore"):
                return b / ((1.0 - momentum) * steps * (2.0 * b - steps)), np.zeros_like(steps)
        points = system.points(least=LEAST)
        curve = system.curve(rho**-0.5, points)
        total = float(curve.circle.series(complex(-np.log(rho)))[0].real)
        spread = total - (curve.circle.q.real**2 + curve.circle.q.imag**2)
        # the trapezoid rule on all points, and on every other
        ends, every = np.full(spread.size, 2.0), np.zeros(spread.size)
        ends[[0, -1]] = 1.0
        every[::2] = 2.0 * ends[::2]
        rules = np.stack([ends, every, ends * spread, every * spread], axis=1) / points
        out = np.empty((2, steps.size)), np.empty((2, steps.size))
        for part in np.array_split(np.arange(steps.size), max(1, steps.size * points // CELLS)):
            c = steps[part, None]
            with np.errstate(all="ignore"):
                path = curve.a + c * curve.b
                found = (1.0 / (path.real**2 + path.imag**2)) @ rules
            out[0][:, part], out[1][:, part] = found[:, :2].T, found[:, 2:].T
        rough = np.flatnonzero(~_settled(out))
        if rough.size:
            self._without_slow_root(system, steps, rho, total, points, out, rough)
        level, excess = out[0][0], out[1][0] * steps**2 / (rho * self.averaged)
        grids: dict[int, object] = {}
        for i in rough[~_settled((out[0][:, rough], out[1][:, rough]))]:
            g, level[i] = gain(system, float(steps[i]), rho=rho, grids=grids)  # type: ignore[arg-type]
            excess[i] = g / self.averaged
        return level, excess

    @staticmethod
    def _without_slow_root(
        system: Characteristic, steps: Real, rho: float, total: float, points: int,
        out: tuple[Real, Real], rough: NDArray[np.int64],
    ) -> None:  # fmt: skip
        """Subtract from the sums the contribution of a soft mode's real root near x = 1: the trapezoid rule errs by
        2 c / (y^n - 1), y the root over the radius and c minus its residue over y."""
        mu, c, cells = system.momentum, steps[rough], np.arange(system.pmf.size)

        def series(x: Real) -> tuple[Real, Real]:
            terms = system.pmf * np.exp(np.log(x)[:, None] * cells)
            return terms.sum(axis=1), (terms * cells).sum(axis=1)

        x = 1.0 + c / (1.0 - mu)
        with np.errstate(all="ignore"):
            for _ in range(8):
                q, slope = series(x)
                value = (1.0 - x) * (1.0 - mu * x) + c * x * q
                change = value / (-(1.0 - mu * x) - mu * (1.0 - x) + c * (q + slope))
                x = x - change
            radius = rho**-0.5
            good = np.isfinite(x) & (np.abs(change) < 1e-12) & (x > radius)
            q, slope = series(x)
            mirror = radius * radius / x
            q_mirror = series(mirror)[0]
            steep = x * (-(1.0 - mu * x) - mu * (1.0 - x) + c * (q + slope))
            other = (1.0 - mirror) * (1.0 - mu * mirror) + c * mirror * q_mirror
            for halving in (0, 1):
                alias = -2.0 / (steep * other) / np.expm1((points >> halving) * np.log(x / radius))
                out[0][halving, rough] -= np.where(good, alias, 0.0)
                out[1][halving, rough] -= np.where(good, alias * (total - q * q_mirror), 0.0)

    def responses(self, rates: Real, momentum: float, rho: float = 1.0) -> Real:
        """Responses K_j / (1 - g_j) at each learning rate (S, d); infinite if a mode is unstable by itself."""
        steps = rates[:, None] * self.curvature
        level, excess = (part.reshape(steps.shape) for part in self.sums(steps.ravel(), momentum, rho))
        with np.errstate(all="ignore"):
            return np.where((excess < 1.0) & (level > 0), level / (1.0 - excess), np.inf)

    def loop(self, rates: Real, momentum: float, rho: float = 1.0) -> Real:
        """Loop gain (S,), the noise that returns through the loss for a unit of noise, at each learning rate: (10.1),
        and (10.5) for another ``rho``. Infinite if a mode is unstable by itself."""
        responses = self.responses(rates, momentum, rho)
        unstable = np.any(np.isinf(responses), axis=1)
        total = 1.0 if rho == 1.0 else float(self.system(momentum).series(complex(-np.log(rho)))[0].real)
        mass = np.where(np.isinf(responses), 0.0, responses) @ self.weight
        return np.where(unstable, np.inf, rates**2 * total / rho * mass)

    def slowest(self, rate: float, momentum: float) -> float:
        """Contraction per update of the squared expectation of the slowest mode."""
        system = self.system(momentum)
        return max(system.root_modulus(rate * h) for h in {*self.problem.curvatures}) ** 2

    def floors(self, rates: Real, momentum: float) -> Real:
        """Limit of the expected loss above its minimum without coupling, (S,)."""
        return np.asarray(0.5 * rates**2 * (self.responses(rates, momentum) @ (self.constant * self.curvature)))

    # -- the loss as a power series ---------------------------------------------------------------------------------

    def losses(self, rates: Real, momenta: Real, terms: int) -> Real:
        """E[loss] above its floor at the updates 0 .. ``terms`` - 1 for each learning rate and momentum (S,), shape (S,
        terms)."""
        size = 1 << max(terms - 1, SHORT - 1).bit_length()
        out = np.empty((rates.size, terms))
        for rows, *kernels in self._kernels(rates, momenta):
            out[rows] = self._losses(tuple(kernels), rates[rows], size)[:, :terms]
        return out

    def updates(self, rates: Real, momenta: Real, target: float) -> Real:
        """Updates until E[loss] has fallen for good to ``target`` times the loss at the start (S,), interpolated in its
        logarithm; infinite if the floor is higher. Learning rates must be stable."""
        start = sum(self.problem.start)
        found = np.full(rates.size, np.inf)
        floors = np.zeros(rates.size)
        if self.constant.any():
            for mu in np.unique(momenta):
                chosen = momenta == mu
                floors[chosen] = self.floors(rates[chosen], mu) / (1.0 - self.loop(rates[chosen], mu))
        left = np.flatnonzero(floors < target * start)
        few = max(1, CELLS // (8 * SHORT * self.curvature.size))
        for some in np.array_split(left, -(-left.size // few)) if left.size else []:
            for rows, *kernels in self._kernels(rates[some], momenta[some]):
                chosen = some[rows]
                found[chosen] = self._reached(tuple(kernels), rates[chosen], momenta[chosen], target * start)
        return found

    def _reached(self, kernels: tuple[Real, ...], rates: Real, momenta: Real, level: float) -> Real:
        """Update after which the loss stays below ``level``, from series that grow fourfold."""
        from asyncq.theory.descent.time_to_target import crossing

        found, rest, size = np.empty(rates.size), np.arange(rates.size), FIRST
        while True:
            curves = self._losses(tuple(item[rest] for item in kernels), rates[rest], size)
            when = crossing(curves, level)
            if size >= LAST:
                for i in np.flatnonzero(np.isinf(when)):
                    row = rest[i]
                    when[i] = self._slowly(kernels[2][row], float(rates[row]), float(momenta[row]), level)
                found[rest] = when
                return found
            done = when < 0.8 * size
            found[rest[done]] = when[done]
            rest, size = rest[~done], min(4 * size, LAST)
            if not rest.size:
                return found

    def _slowly(self, slope: Real, rate: float, momentum: float, level: float) -> float:
        """Same for very long times, on which delays are negligible: each mode relaxes at rate -``slope`` (d,) to the
        level that the current loss would sustain."""
        kept = rate**2 * self.responses(np.array([rate]), momentum)[0]
        pace = np.where(np.isfinite(slope), -slope, 2.0 * rate * self.curvature / (1.0 - momentum))
        matrix = (pace * kept * self.noise)[:, None] * self.curvature - np.diag(pace)
        settled = np.linalg.solve(-matrix, pace * kept * self.constant)
        first = 2.0 * np.array(self.problem.start) / self.curvature - settled
        values, vectors = np.linalg.eig(matrix)
        parts = 0.5 * (self.curvature @ vectors) * np.linalg.solve(vectors, first)
        times = np.geomspace(LAST / 2, LONGEST, 4096)
        curve = (np.exp(values[:, None] * times).T @ parts).real + 0.5 * self.curvature @ settled
        last = int(np.flatnonzero(np.append(True, curve > level))[-1]) - 1
        if last in (-1, times.size - 1):
            return float(times[0]) if last < 0 else float("inf")
        part = np.log(curve[last] / level) / np.log(curve[last] / curve[last + 1])
        return float(times[last] * (times[last + 1] / times[last]) ** part)

    def _kernels(self, rates: Real, momenta: Real) -> list[tuple[Any, ...]]:
        """For rows (R,) of the learning rates, of each mode by itself: E[w^2] / start^2, its response to a unit of
        noise one update and more before, both (R, d, n), and the logarithm of the rate at which both go on, (R, d)."""
        rest, terms, out = np.arange(rates.size), SHORT, []
        while terms < min(4 * self.law.mean, LONG):
            terms *= 2
        while rest.size:
            alone, response = self._alone(rates[rest], momenta[rest], terms)
            slope, settled = _tail(response)
            if terms >= LONG:
                settled[:] = True
            if settled.any():
                out.append((rest[settled], alone[settled], response[settled], slope[settled]))
            rest, terms = rest[~settled], 2 * terms
        return out

    def _alone(self, rates: Real, momenta: Real, n: int) -> tuple[Real, Real]:
        c = (rates[:, None] * self.curvature).ravel()[:, None]
        mu = np.repeat(momenta, self.curvature.size)
        law, later = self._cells(n)
        # k = 1 / P summed from its differences (1 - x) / P: as a series P itself is ill-conditioned for soft modes
        p = np.empty((c.size, n))
        p[:, 0], p[:, 1:] = 1.0, c * (1.0 - later[:-1])
        p[:, 1] -= mu
        k = np.cumsum(reciprocal(p), axis=1)
        mean = np.ones_like(k)
        mean[:, 1:] -= c * np.cumsum(k, axis=1)[:, :-1]
        spectra = np.fft.rfft(np.stack([mean, k, mean**2, k**2]), 2 * n)
        seen, seen_k, seen_squares, seen_k_squares = np.fft.irfft(spectra * np.fft.rfft(law, 2 * n), 2 * n)[..., :n]
        spread = c * c / self.averaged
        surprise = spread * (seen_squares + later - (seen + later) ** 2)
        back = np.zeros_like(k)
        back[:, 1:] = -spread * (seen_k_squares - seen_k**2)[:, :-1]
        back[:, 0] = 1.0
        response = np.fft.irfft(np.fft.rfft(reciprocal(back), 2 * n) * spectra[3], 2 * n)[:, :n]
        alone = mean**2
        both = np.fft.irfft(np.fft.rfft(response, 2 * n) * np.fft.rfft(surprise, 2 * n), 2 * n)
        alone[:, 1:] += both[:, : n - 1]
        shape = (rates.size, self.curvature.size, n)
        return alone.reshape(shape), response.reshape(shape)

    def _cells(self, n: int) -> tuple[Real, Real]:
        """P(staleness = l) and P(staleness > l), l = 0 .. n - 1: reads after and before the start."""
        law = np.zeros(n)
        pmf = self.law.pmf[:n] / self.law.pmf.sum()
        law[: pmf.size] = pmf
        return law, np.clip(1.0 - np.cumsum(law), 0.0, 1.0)

    def _losses(self, kernels: tuple[Real, ...], rates: Real, size: int) -> Real:
        """E[loss] (S, size) from the loss without proportional noise and the loop's kernel, one division of power
        series; (10.10)."""
        alone, response, slope = kernels
        start = np.array(self.problem.start)
        law, later = self._cells(size)
        square = 0.5 * rates[:, None] ** 2
        free = _mixed(alone, slope, np.broadcast_to(start, slope.shape), size)
        if self.constant.any():
            fed = _mixed(response, slope, square * (self.constant * self.curvature), size)
            free[:, 1:] += np.cumsum(fed, axis=1)[:, :-1]
        if not self.noise.any():
            return free
        kernel = _mixed(response, slope, 2.0 * square * self.weight, size)
        seen = np.fft.rfft(kernel, 2 * size)
        free[:, 1:] += start.sum() * np.fft.irfft(seen * np.fft.rfft(later, 2 * size), 2 * size)[:, : size - 1]
        loop = np.zeros_like(kernel)
        loop[:, 1:] = -np.fft.irfft(seen * np.fft.rfft(law, 2 * size), 2 * size)[:, : size - 1]
        loop[:, 0] = 1.0
        spectrum = np.fft.rfft(reciprocal(loop), 2 * size) * np.fft.rfft(free, 2 * size)
        return np.asarray(np.fft.irfft(spectrum, 2 * size)[:, :size])


def _settled(sums: tuple[Real, Real]) -> NDArray[np.bool_]:
    (level, rough), (spread, rougher) = sums
    with np.errstate(invalid="ignore"):
        same = np.abs(rough - level) <= AGREE * level
        same_spread = np.abs(rougher - spread) <= AGREE * np.abs(spread) + 1e-9 * level
    return np.asarray(np.isfinite(level) & same & same_spread)


def _tail(kernel: Real) -> tuple[Real, NDArray[np.bool_]]:
    """Logarithm of the ratio of successive terms at the end of each kernel (S, d, n), minus infinity for an empty end;
    and whether in row (S,) every relevant tail decays at a constant rate."""
    n = kernel.shape[-1]
    m = n // 8
    end, middle, before = kernel[..., -1], kernel[..., -1 - m], kernel[..., -1 - 2 * m]
    with np.errstate(all="ignore"):
        slope, other = np.log(end / middle) / m, np.log(middle / before) / m
        known = (slope < 0) & np.isfinite(other) & (end > ROUNDING * kernel.max(axis=-1))
        slope = np.where(known, slope, -np.inf)
        off = np.minimum(np.abs(other / slope - 1.0), 1.0) * end / -slope
        left = np.where(known, off, np.abs(kernel[..., -2 * m :]).sum(axis=-1))
    return slope, np.all(left <= NEGLIGIBLE * kernel.sum(axis=-1), axis=-1)


def _mixed(kernel: Real, slope: Real, weights: Real, size: int) -> Real:
    """The weighted sum (S, size) over modes of kernels (S, d, n) continued at their last rate."""
    n = kernel.shape[-1]
    out = np.zeros((kernel.shape[0], size))
    kept = min(n, size)
    out[:, :kept] = np.einsum("sd,sdt->st", weights, kernel[..., :kept])
    if size > n:
        steps = np.arange(1, size - n + 1)
        for j in range(kernel.shape[1]):
            rows = np.flatnonzero(np.isfinite(slope[:, j]))
            tail = np.exp(np.minimum(slope[rows, j, None] * steps, 700.0))
            out[rows, n:] += (weights[rows, j] * kernel[rows, j, -1])[:, None] * tail
    return out
