"""The exact second moments of SGD on a quadratic with exponential work and no server, dependence included.

Every version is read exactly once, so the staleness of successive gradients is not independent; for exponential work
the second moments of (w, v, u_1 .. u_M) nevertheless close, v = the position one update ago, u_m = the version that
worker m holds. Equal workers need seven numbers whatever M is; workers of G different speeds need O(G^2).
Source: theory.md section 6; derivations in docs/theory/stability.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asyncq.staleness import StalenessLaw

__all__ = ["ExponentialWorkers", "exponential_workers"]

Real = NDArray[np.float64]


def exponential_workers(workers_or_rates: int | Sequence[float] | Real, *, contributors: int = 1) -> ExponentialWorkers:
    """A pool of workers with exponential work, no server: a number of equal workers, or their rates (any unit).

    ``contributors`` = K of M workers, chosen uniformly, make each update (1 asynchronous, K-async, M synchronous).
    Raises ``ValueError`` for fewer than one worker, rates that are not positive, K outside 1..M, and K > 1 with
    unequal rates, for which no closed recursion is known here.
    """
    if np.ndim(workers_or_rates) == 0:
        workers = workers_or_rates
        if not (np.isfinite(workers) and workers >= 1 and workers == int(workers)):  # type: ignore[arg-type, call-overload]
            raise ValueError(f"workers must be a whole number, 1 or more (got {workers_or_rates!r})")
        counts, shares = np.array([int(workers)]), np.array([1.0 / int(workers)])  # type: ignore[arg-type, call-overload]
    else:
        rates = np.asarray(workers_or_rates, dtype=np.float64)
        if rates.ndim != 1 or rates.size == 0 or not np.all(np.isfinite(rates)) or np.any(rates <= 0):
            raise ValueError("rates must be positive and finite, one for each worker")
        values, counts = np.unique(rates, return_counts=True)
        shares = values / rates.sum()
    if not (contributors == int(contributors) and 1 <= contributors <= counts.sum()):
        raise ValueError(f"contributors must be a whole number from 1 to {counts.sum()} (got {contributors!r})")
    if contributors > 1 and counts.size > 1:
        raise ValueError("several contributors with unequal rates: no exact recursion is known; use the staleness law, or a trace")
    return ExponentialWorkers(tuple(int(n) for n in counts), tuple(float(p) for p in shares), int(contributors))


@dataclass(frozen=True)
class ExponentialWorkers:
    """Classes of equal workers: ``counts[g]`` workers, each making the next update with probability ``shares[g]``."""

    counts: tuple[int, ...]
    shares: tuple[float, ...]
    contributors: int = 1

    @property
    def workers(self) -> int:
        """M."""
        return sum(self.counts)

    @property
    def homogeneous(self) -> bool:
        """Whether all workers are equally fast."""
        return len(self.counts) == 1

    def law(self, *, tail: float = 1e-15) -> StalenessLaw:
        """The staleness law: q_l = sum_i p_i^2 (1 - p_i)^l; K-async: geometric with q_0 = K/M (theory.md section 3)."""
        if self.homogeneous:
            return StalenessLaw.geometric(workers=self.workers / self.contributors, tail=tail)
        parts = [StalenessLaw.geometric(workers=1.0 / p, tail=tail) for p in self.shares]
        mixed = StalenessLaw.mixture(parts, [n * p for n, p in zip(self.counts, self.shares, strict=True)])
        return StalenessLaw(mixed.pmf, source="exact", truncation=mixed.truncation, name=f"{self.workers} exponential workers")

    # -- equal workers: seven numbers -------------------------------------------------------------------------------

    def matrix(self, step: ArrayLike, momentum: float = 0.0, *, curvature_variance: float = 0.0) -> Real:
        """T, the exact recursion of [E w^2, wv, v^2, w u_m, v u_m, u_m^2, u_m u_n] at alpha h = ``step``; shape
        (..., 7, 7), or (..., 6, 6) for one worker. Equal workers only."""
        if not self.homogeneous:
            raise ValueError("the seven moments close for equal workers only")
        _check_momentum(momentum)
        c = np.asarray(step, dtype=np.float64)
        m, k, mu, b = self.workers, self.contributors, momentum, 1.0 + momentum
        p = k / m
        p2 = k * (k - 1) / (m * (m - 1)) if m > 1 else 0.0
        p1 = 2.0 * k * (m - k) / (m * (m - 1)) if m > 1 else 0.0
        one, nil = np.ones_like(c), np.zeros_like(c)
        square = c * c * (1.0 + curvature_variance) / k
        r1 = [b * b * one, -2 * b * mu * one, mu * mu * one, -2 * b * c, 2 * mu * c, square, c * c * (1 - 1 / k)]
        r2 = [b * one, -mu * one, nil, -c, nil, nil, nil]
        ro = [nil, nil, nil, b * one, -mu * one, nil, -c]
        unit = np.eye(7)
        first, second, other = (np.stack(row, axis=-1) for row in (r1, r2, ro))
        rows = [
            first,
            second,
            np.broadcast_to(unit[0], first.shape),
            p * first + (1 - p) * other,
            p * second + (1 - p) * unit[3],
            p * first + (1 - p) * unit[5],
            p2 * first + p1 * other + (1 - p1 - p2) * unit[6],
        ]
        full = np.stack(rows, axis=-2)
        return full[..., :6, :6] if m == 1 else full

    def _noise(self) -> Real:
        m, k = self.workers, self.contributors
        p2 = k * (k - 1) / (m * (m - 1)) if m > 1 else 0.0
        vector = np.array([1.0, 0.0, 0.0, k / m, 0.0, k / m, p2]) / k
        return vector[:6] if m == 1 else vector

    # -- unequal workers: one linear system in (w^2, wv, w u_g) -----------------------------------------------------

    def _resolvent(self, step: float, mu: float, rho: float, v: float) -> tuple[Real, bool]:
        """The solution y of rho y = T y + noise (unit noise in alpha^2 s^2), as the second-moment matrix of (w, v,
        class means), and whether it is a second-moment matrix at all. It is one iff rho exceeds the spectral radius
        of T: T maps such matrices to such matrices (Krein-Rutman), so nothing needs to be guessed."""
        n, p = np.array(self.counts, dtype=np.float64), np.array(self.shares)
        c, b, size = step, 1.0 + mu, len(self.counts)
        # b_k (E v u_k) and the pair moments U_jk, linear in (s, x, a): rows of coefficients, last column the constant
        wide = size + 3
        s, x, const = np.eye(wide)[0], np.eye(wide)[1], np.eye(wide)[wide - 1]
        a = np.eye(wide)[2 : 2 + size]
        vu = (p[:, None] * (b * s - mu * x - c * a) + (1 - p)[:, None] * a) / rho
        pull = b * a - mu * vu
        den = rho - 1.0 + (p[:, None] + p[None, :]) * (1.0 + c)
        pair = (p[:, None, None] * pull[None, :, :] + p[None, :, None] * pull[:, None, :]) / den[:, :, None]
        own = p / (rho - 1.0 + p)
        fresh = b * b * s - 2 * b * mu * x + mu * mu / rho * s + const - 2 * b * c * a + 2 * mu * c * vu
        fresh = fresh / (1.0 - c * c * (1.0 + v) * own)[:, None]
        square = own[:, None] * fresh
        others = (1 - p)[:, None] * pull - c * (np.einsum("g,gkw->kw", n * p, pair) - p[:, None] * np.einsum("kkw->kw", pair))
        system = np.vstack([
            rho * s - (n * p) @ fresh,
            rho * x - (b * s - mu * x - c * ((n * p) @ a)),
            rho * a - (p[:, None] * fresh + others),
        ])
        solution = np.append(np.linalg.solve(system[:, :-1], -system[:, -1]), 1.0)
        ww, wv = solution[0], solution[1]
        wu, vu_, uu, cross = solution[2 : 2 + size], vu @ solution, square @ solution, pair @ solution
        full = np.empty((size + 2, size + 2))
        full[0, :2], full[1, :2] = (ww, wv), (wv, ww / rho)
        full[0, 2:], full[1, 2:] = wu, vu_
        full[2:, 0], full[2:, 1], full[2:, 2:] = wu, vu_, cross
        spare = uu - np.diag(cross)
        full[2 + np.arange(size), 2 + np.arange(size)] = np.diag(cross) + spare / n
        valid = bool(np.all(np.isfinite(full)) and ww > 0 and np.all(uu > 0) and np.all(spare[n > 1] >= -1e-12 * uu[n > 1]))
        if valid:
            norm = np.sqrt(np.abs(np.diag(full)))
            valid = bool(np.all(norm > 0) and np.linalg.eigvalsh(full / np.outer(norm, norm)).min() > -1e-10)
        return full, valid

    # -- what is asked ----------------------------------------------------------------------------------------------

    def rates(self, steps: ArrayLike, momentum: float = 0.0, *, curvature_variance: float = 0.0) -> Real:
        """The exact contraction of E[w^2] per update at each alpha h; 1 or more diverges."""
        _check_momentum(momentum)
        c = np.atleast_1d(np.asarray(steps, dtype=np.float64))
        if not np.all(np.isfinite(c) & (c > 0)):
            raise ValueError("every step alpha h must be positive and finite")
        if self.workers == self.contributors and curvature_variance == 0.0 and self.contributors == 1:
            half = (1.0 + momentum - c) / 2  # one worker: z^2 - (1 + mu - c) z + mu = 0
            disc = half * half - momentum
            large = np.abs(half) + np.sqrt(np.maximum(disc, 0.0))
            return np.where(disc < 0, abs(momentum), large * large)
        if self.homogeneous:
            values = np.linalg.eigvals(self.matrix(c, momentum, curvature_variance=curvature_variance))
            return np.asarray(np.abs(values).max(axis=-1))
        return np.array([self._decay(float(value), momentum, curvature_variance) for value in c])

    def rate(self, step: float, momentum: float = 0.0, *, curvature_variance: float = 0.0) -> float:
        """The exact contraction of E[w^2] per update at alpha h = ``step``."""
        return float(self.rates(step, momentum, curvature_variance=curvature_variance)[0])

    def _decay(self, c: float, mu: float, v: float) -> float:
        low, high = max(mu * mu, 1.0 - min(self.shares)), 1.0
        while not self._resolvent(c, mu, high, v)[1]:
            low, high = high, 2.0 * high
        while high - low > 1e-12 * high:
            middle = 0.5 * (low + high)
            low, high = (low, middle) if self._resolvent(c, mu, middle, v)[1] else (middle, high)
        return high

    def threshold(self, momentum: float = 0.0, *, curvature_variance: float = 0.0) -> float:
        """The exact mean-square threshold alpha h. Closed form for equal workers, one contributor, no curvature
        variance: the first zero of a quadratic (theory.md section 6)."""
        _check_momentum(momentum)
        if curvature_variance < 0:
            raise ValueError(f"curvature_variance must not be negative (got {curvature_variance!r})")
        m, mu, b = float(self.workers), momentum, 1.0 + momentum
        if self.homogeneous and self.contributors == 1 and curvature_variance == 0.0:
            if m == 1:
                return 2.0 * b
            top = np.array([m, m - mu * (m - 1)])  # numerator of r, in c
            bottom = np.array([m * m - mu * (m - 1) / b, m - mu * (m - 1)])
            poly = np.convolve(top, [2 * mu / (m * b), 2 - 2 * mu * (1 - 1 / m)]) - np.convolve([1.0, 2 * mu / m], bottom)
            roots = np.roots(poly)
            real = roots.real[(np.abs(roots.imag) < 1e-12 * np.abs(roots)) & (roots.real > 0)]
            return float(real.min())
        return self._first_unit(momentum, curvature_variance)

    def _first_unit(self, mu: float, v: float) -> float:
        """The smallest step with contraction 1: scanned upwards, then bisected."""
        most = 4.0  # above 2 (1 + mu), the edge of one worker, and every threshold met for more
        if self.homogeneous:
            scan = most * np.geomspace(1e-3 / self.workers, 1.0, 200)
            bad = np.flatnonzero(self.rates(scan, mu, curvature_variance=v) >= 1.0)

            def stable(c: float) -> bool:
                return self.rate(c, mu, curvature_variance=v) < 1.0
        else:
            scan = most * np.geomspace(1e-3 * min(self.shares), 1.0, 200)

            def stable(c: float) -> bool:
                return self._resolvent(c, mu, 1.0, v)[1]

            bad = np.array([i for i, c in enumerate(scan) if not stable(float(c))][:1])
        right = float(scan[bad[0]]) if bad.size else most * (1 + 1e-9)
        left = float(scan[bad[0] - 1]) if bad.size and bad[0] > 0 else 0.0 if bad.size else float(scan[-1])
        while right - left > 1e-13 * right:
            middle = 0.5 * (left + right)
            left, right = (middle, right) if stable(middle) else (left, middle)
        return 0.5 * (left + right)

    def noise_floor(
        self, step: float, momentum: float = 0.0, noise: float = 1.0, *, curvature: float = 1.0, curvature_variance: float = 0.0
    ) -> float:
        """The exact level E[w^2] settles at for gradient noise of variance ``noise`` and curvature ``curvature``
        (alpha = step / curvature); infinite at or above the threshold."""
        _check_momentum(momentum)
        if not (np.isfinite(step) and step > 0 and noise >= 0 and curvature > 0):
            raise ValueError(f"need step > 0, noise >= 0, curvature > 0 (got {step!r}, {noise!r}, {curvature!r})")
        scale = (step / curvature) ** 2 * noise
        if not self.homogeneous:
            moments, valid = self._resolvent(step, momentum, 1.0, curvature_variance)
            return scale * float(moments[0, 0]) if valid else float("inf")
        if step >= self.threshold(momentum, curvature_variance=curvature_variance):
            return float("inf")
        matrix = self.matrix(step, momentum, curvature_variance=curvature_variance)
        return scale * float(np.linalg.solve(np.eye(matrix.shape[0]) - matrix, self._noise())[0])

    def moments(
        self,
        step: float,
        momentum: float = 0.0,
        *,
        updates: int,
        start: float = 1.0,
        noise: float = 0.0,
        curvature: float = 1.0,
        curvature_variance: float = 0.0,
    ) -> Real:
        """E[w_t^2] for t = 0 .. ``updates`` when every worker and the server start from ``start`` at rest, exact."""
        _check_momentum(momentum)
        source = (step / curvature) ** 2 * noise
        out = np.empty(updates + 1)
        if self.homogeneous:
            matrix = self.matrix(step, momentum, curvature_variance=curvature_variance)
            state, drive = np.full(matrix.shape[0], start * start), source * self._noise()
            for t in range(updates + 1):
                out[t] = state[0]
                state = matrix @ state + drive
            return out
        n, mu, b, c = np.array(self.counts), momentum, 1.0 + momentum, step
        p = np.repeat(self.shares, n)
        s = x = y = start * start
        a, vu, u = np.full(p.size, s), np.full(p.size, s), np.full((p.size, p.size), s)
        for t in range(updates + 1):
            out[t] = s
            own = np.diag(u).copy()
            fresh = b * b * s - 2 * b * mu * x + mu * mu * y + c * c * (1 + curvature_variance) * own
            fresh += -2 * b * c * a + 2 * mu * c * vu + source
            pull = (b * a - mu * vu)[None, :] - c * u
            np.fill_diagonal(pull, 0.0)
            mixed = p[:, None] * pull
            after = mixed + mixed.T + (1 - p[:, None] - p[None, :]) * u
            np.fill_diagonal(after, p * fresh + (1 - p) * own)
            s, x, y, a, vu, u = (
                float(p @ fresh),
                b * s - mu * x - c * float(p @ a),
                s,
                p * fresh + mixed.sum(axis=0),
                p * (b * s - mu * x - c * a) + (1 - p) * a,
                after,
            )
        return out

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {"counts": list(self.counts), "shares": list(self.shares), "contributors": self.contributors}


def _check_momentum(momentum: float) -> None:
    if not (np.isfinite(momentum) and abs(momentum) < 1):
        raise ValueError(f"momentum must lie strictly between -1 and 1 (got {momentum!r})")
