"""Exact second moments of SGD on a quadratic with exponential work and no server, dependence included.

Every version is read exactly once, so that successive stalenesses are dependent. Yet for exponential work the second
moments of (w, v, u_1 .. u_M) close: v is the position one update ago, u_m the version that worker m holds. Equal
workers need seven numbers for any M, workers of G speeds O(G^2).
Source: docs/theory/stability.md, section "Exact, for exponential work".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asyncq.jsonable import record
from asyncq.staleness import StalenessLaw
from asyncq.theory.descent.bracketing import bracketed_root, certified_edges
from asyncq.theory.descent.exponential_classes import class_moments

__all__ = ["ExponentialWorkers", "exponential_workers"]

Real = NDArray[np.float64]

FEW = 3  # classes of speed; with more, answers are sought around those of a merged pool


def exponential_workers(workers_or_rates: int | Sequence[float] | Real, *, contributors: int = 1) -> ExponentialWorkers:
    """A pool of workers with exponential work, no server: a number of equal workers, or their rates (any unit).

    ``contributors`` = K of M workers, chosen uniformly, make each update (1 asynchronous, K-async, M synchronous).
    Raises ``ValueError`` for fewer than one worker, rates that are not positive, K outside 1..M, and K > 1 with
    unequal rates, for which no closed recursion is known here.
    """
    if np.ndim(workers_or_rates) == 0:
        workers = float(np.asarray(workers_or_rates, dtype=np.float64))
        if not (np.isfinite(workers) and workers >= 1 and workers == int(workers)):
            raise ValueError(f"workers must be a whole number, 1 or more (got {workers_or_rates!r})")
        counts, shares = np.array([int(workers)]), np.array([1.0 / workers])
    else:
        rates = np.asarray(workers_or_rates, dtype=np.float64)
        if rates.ndim != 1 or rates.size == 0 or not np.all(np.isfinite(rates)) or np.any(rates <= 0):
            raise ValueError("rates must be positive and finite, one for each worker")
        values, counts = np.unique(rates, return_counts=True)
        shares = values / rates.sum()
    if not (contributors == int(contributors) and 1 <= contributors <= counts.sum()):
        raise ValueError(f"contributors must be a whole number from 1 to {counts.sum()} (got {contributors!r})")
    if contributors > 1 and counts.size > 1:
        raise ValueError(
            "several contributors with unequal rates have no known exact recursion: use the law, or a trace"
        )
    return ExponentialWorkers(tuple(int(n) for n in counts), tuple(float(p) for p in shares), int(contributors))


@dataclass(frozen=True)
class ExponentialWorkers:
    """Classes of equal workers: ``counts[g]`` workers, each making the next update with probability ``shares[g]``."""

    counts: tuple[int, ...]
    shares: tuple[float, ...]
    contributors: int = 1

    @property
    def workers(self) -> int:
        """Number of workers, M."""
        return sum(self.counts)

    @property
    def homogeneous(self) -> bool:
        """Whether all workers are equally fast."""
        return len(self.counts) == 1

    def merged(self, classes: int = FEW) -> ExponentialWorkers:
        """A similar pool of at most so many classes, neighbours in speed together, each at its mean rate: where to
        look, not an answer."""
        if len(self.counts) <= classes:
            return self
        counts, shares = np.array(self.counts), np.array(self.shares)
        logs = np.log(shares)
        group = np.minimum((logs - logs.min()) / (np.ptp(logs) / classes), classes - 1).astype(int)
        sums = [(int(counts[group == g].sum()), float((counts * shares)[group == g].sum())) for g in np.unique(group)]
        return ExponentialWorkers(tuple(n for n, _ in sums), tuple(p / n for n, p in sums), self.contributors)

    def law(self, *, tail: float = 1e-15) -> StalenessLaw:
        """The staleness law: q_l = sum_i p_i^2 (1 - p_i)^l; K-async: geometric with q_0 = K/M
        (docs/theory/closed_network.md (C.6))."""
        if self.homogeneous:
            return StalenessLaw.geometric(workers=self.workers / self.contributors, tail=tail)
        parts = [StalenessLaw.geometric(workers=1.0 / p, tail=tail) for p in self.shares]
        mixed = StalenessLaw.mixture(parts, [n * p for n, p in zip(self.counts, self.shares, strict=True)])
        return StalenessLaw(
            mixed.pmf, source="exact", truncation=mixed.truncation, name=f"{self.workers} exponential workers"
        )

    # -- equal workers: seven numbers -------------------------------------------------------------------------------

    def matrix(self, step: ArrayLike, momentum: ArrayLike = 0.0, *, curvature_variance: float = 0.0) -> Real:
        """Matrix T of the exact recursion of [E w^2, wd, d^2, w e_m, d e_m, e_m^2, e_m e_n] at alpha h = ``step``, with
        d = w - v the last update and e_m = w - u_m the lag of worker m; shape (..., 7, 7), or (..., 3, 3) without lags
        (K = M). In w, v and u it would be ill-conditioned for a large momentum. Equal workers only."""
        if not self.homogeneous:
            raise ValueError("the seven moments close for equal workers only")
        _check_momentum(momentum)
        c, mu = np.broadcast_arrays(np.asarray(step, dtype=np.float64), np.asarray(momentum, dtype=np.float64))
        k = self.contributors
        late, both = self._not_among()
        nil = np.zeros_like(c)
        own, pair = c * c * (1.0 + curvature_variance) / k, c * c * (1.0 - 1.0 / k)
        # the next update is D = mu d - c mean(w - e_m): its products with w and e_m, and its square
        with_w = [-c, mu, nil, c, nil, nil, nil]
        with_e = [nil, nil, nil, -c, mu, nil, c]
        square = [own + pair, -2 * mu * c, mu * mu, -2 * (own + pair), 2 * mu * c, own, pair]
        ww, we, dd = (np.stack(row, axis=-1) for row in (with_w, with_e, square))
        unit = np.eye(7)
        rows = [
            unit[0] + 2 * ww + dd,
            ww + dd,
            dd,
            late * (unit[3] + ww + we + dd),
            late * (we + dd),
            late * (unit[5] + 2 * we + dd),
            both * (unit[6] + 2 * we + dd),
        ]
        full = np.stack(rows, axis=-2)
        return full[..., :3, :3] if late == 0 else full

    def noise_moments(self) -> Real:
        """Increments of the moments of :meth:`matrix` per update by gradient noise of unit alpha^2 s^2."""
        late, both = self._not_among()
        vector = np.array([1.0, 1.0, 1.0, late, late, late, both]) / self.contributors
        return vector[:3] if late == 0 else vector

    def _not_among(self) -> tuple[float, float]:
        """Probabilities that a worker, and that both of two workers, are not among the contributors."""
        m, k = self.workers, self.contributors
        return (m - k) / m, (m - k) * (m - k - 1) / (m * (m - 1)) if m > 1 else 0.0

    # -- unequal workers: one linear system in (w^2, wv, w u_g) -----------------------------------------------------

    def _resolvent(self, steps: Real, mu: float, rho: Real, v: float) -> tuple[Real, NDArray[np.bool_]]:
        """For each step and rho: E w^2 of the solution y of rho y = T y + noise (unit alpha^2 s^2), and whether y is
        a second-moment matrix. It is iff rho exceeds the spectral radius of T, because T maps such matrices to such
        matrices (Krein-Rutman): a certificate without eigenvalues."""
        n, p = np.array(self.counts, dtype=np.float64), np.array(self.shares)
        size, b = len(self.counts), 1.0 + mu
        wide, r, c = size + 3, rho[:, None, None], steps[:, None, None]
        # everything is linear in (s, x, a_1 .. a_G, 1) = (E w^2, E w v, E w u_g, constant): rows of coefficients
        unit = np.broadcast_to(np.eye(wide), (steps.size, wide, wide))
        s, x, a, const = unit[:, :1], unit[:, 1:2], unit[:, 2 : 2 + size], unit[:, -1:]
        share = p[None, :, None]
        vu = (share * (b * s - mu * x - c * a) + (1 - share) * a) / r
        pull = b * a - mu * vu
        # E u_g u_k = (p_g pull_k + p_k pull_g) each, and never written out with its coefficients
        each = 1.0 / (r - 1.0 + (p[:, None] + p[None, :])[None] * (1.0 + c))
        own = share / (r - 1.0 + share)
        fresh = b * b * s - 2 * b * mu * x + mu * mu / r * s + const - 2 * b * c * a + 2 * mu * c * vu
        fresh = fresh / (1.0 - c * c * (1.0 + v) * own)
        weight = n * p
        same = 2.0 * share * np.einsum("bkk->bk", each)[..., None] * pull
        summed = ((each @ (weight * p))[..., None] * pull) + share * ((each * weight) @ pull)
        others = (1 - share) * pull - c * (summed - share * same)
        rows = [
            r * s - np.einsum("g,bgw->bw", weight, fresh)[:, None],
            r * x - (b * s - mu * x - c * np.einsum("g,bgw->bw", weight, a)[:, None]),
            r * a - (share * fresh + others),
        ]
        system = np.concatenate(rows, axis=1)
        try:
            solution = np.linalg.solve(system[:, :, :-1], -system[:, :, -1:])[..., 0]
        except np.linalg.LinAlgError:  # rho is an eigenvalue to the last bit: take the next float
            return self._resolvent(steps, mu, rho * (1.0 + 1e-13), v)
        solution = np.concatenate([solution, np.ones((steps.size, 1))], axis=1)
        ww, wv, wu = solution[:, 0], solution[:, 1], solution[:, 2 : 2 + size]
        moments = [np.einsum("bkw,bw->bk", part, solution) for part in (vu, own * fresh, same)]
        pulled = p[:, None] * np.einsum("bkw,bw->bk", pull, solution)[:, None]
        cross = (pulled + pulled.swapaxes(1, 2)) * each
        spare = moments[1] - moments[2]
        full = np.empty((steps.size, size + 2, size + 2))
        full[:, 0, 0], full[:, 1, 1], full[:, 0, 1], full[:, 1, 0] = ww, ww / rho, wv, wv
        full[:, 0, 2:] = full[:, 2:, 0] = wu
        full[:, 1, 2:] = full[:, 2:, 1] = moments[0]
        index = np.arange(size)
        full[:, 2:, 2:] = cross
        full[:, 2 + index, 2 + index] = moments[2] + spare / n
        valid = np.all(np.isfinite(full), axis=(1, 2)) & (ww > 0) & np.all(moments[1] > 0, axis=1)
        valid &= np.all((spare >= -1e-12 * np.abs(moments[1])) | (n == 1), axis=1)
        norm = np.sqrt(np.abs(np.einsum("bkk->bk", full)))
        valid &= np.all(norm > 0, axis=1)
        if valid.any():
            scaled = full[valid] / (norm[valid][:, :, None] * norm[valid][:, None, :])
            valid[valid] = np.linalg.eigvalsh(scaled)[:, 0] > -1e-10
        return ww, valid

    # -- rates, thresholds, floors ----------------------------------------------------------------------------------

    def rates(self, steps: ArrayLike, momentum: float = 0.0, *, curvature_variance: float = 0.0) -> Real:
        """Exact contraction of E[w^2] per update at each alpha h; 1 or more diverges."""
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
        if len(self.counts) <= FEW:
            matrix = class_moments(self.counts, self.shares, c, momentum, curvature_variance)[0]
            return np.asarray(np.abs(np.linalg.eigvals(matrix)).max(axis=-1))
        low = np.full(c.size, max(momentum * momentum, 1.0 - min(self.shares)))
        high = np.ones(c.size)
        while np.any(wrong := ~self._resolvent(c, momentum, high, curvature_variance)[1]):
            low[wrong], high[wrong] = high[wrong], 2.0 * high[wrong]

        def look(rho: Real, which: NDArray[np.intp]) -> tuple[Real, NDArray[np.bool_]]:
            level, valid = self._resolvent(c[which], momentum, rho, curvature_variance)
            return 1.0 / level, valid

        return certified_edges(look, high, low, np.full(c.size, 1e-13))

    def rate(self, step: float, momentum: float = 0.0, *, curvature_variance: float = 0.0) -> float:
        """Exact contraction of E[w^2] per update at alpha h = ``step``."""
        return float(self.rates(step, momentum, curvature_variance=curvature_variance)[0])

    def threshold(self, momentum: float = 0.0, *, curvature_variance: float = 0.0) -> float:
        """Exact mean-square threshold alpha h; closed form for equal workers, one contributor and no curvature
        variance: the first zero of a quadratic (docs/theory/stability.md (6.3))."""
        _check_momentum(momentum)
        if curvature_variance < 0:
            raise ValueError(f"curvature_variance must not be negative (got {curvature_variance!r})")
        m, mu, b = float(self.workers), momentum, 1.0 + momentum
        if self.homogeneous and self.contributors == 1 and curvature_variance == 0.0:
            if m == 1:
                return 2.0 * b
            top = np.array([m, m - mu * (m - 1)])  # numerator of r, in c
            bottom = np.array([m * m - mu * (m - 1) / b, m - mu * (m - 1)])
            poly = np.convolve(top, [2 * mu / (m * b), 2 - 2 * mu * (1 - 1 / m)]) - np.convolve(
                [1.0, 2 * mu / m], bottom
            )
            roots = np.roots(poly)
            real = roots.real[(np.abs(roots.imag) < 1e-12 * np.abs(roots)) & (roots.real > 0)]
            return float(real.min())
        return self._first_unit(momentum, curvature_variance)

    def expectation_threshold(self, momentum: float = 0.0) -> float:
        """Largest stable alpha h of E[w], exact: by the cubic for equal workers (2 (1 + mu)(2 M/K - 1), or the
        smaller step at which a complex pair leaves), by the (G + 2)-dimensional recursion of the means otherwise.
        Shown next to the mean-square threshold; useless as a guide. For equal workers it holds for E[w] from rest, with
        equal versions: differences between versions contract by 1 - (1 + c) / M and diverge beyond alpha h = 2 M - 1.
        Source: docs/theory/stability.md, section "5.2 Why the expectation is not enough"."""
        _check_momentum(momentum)
        mu, b = momentum, 1.0 + momentum
        if self.homogeneous:
            p = self.contributors / self.workers
            q = 1.0 - p
            edges = [2.0 * b * (1.0 + q) / p]
            a1, a0 = mu + q + mu * q, -mu * q
            if a0 != 0.0:
                edges.append(((a1 - 1.0 + a0 * a0) / a0 + 1.0 + mu + q) / p)
            return min(c for c in edges if c > 0)

        def radius(steps: Real) -> Real:
            return np.sqrt(self.expectation_rates(steps, mu))

        if len(self.counts) > FEW:
            middle = self.merged().expectation_threshold(mu)
            below = middle * np.geomspace(0.05, 0.7, 4)
            if np.all(radius(below) < 1.0) and radius(np.array([1.4 * middle]))[0] >= 1.0:
                return bracketed_root(
                    lambda c: float(np.log(radius(np.array([c]))[0])), 0.7 * middle, 1.4 * middle, rtol=1e-10
                )
        # at the last step of the scan every class alone diverges, the first is far below any delay of 1 / share
        scan = np.geomspace(1e-4 * (1.0 - abs(mu)) ** 2 * min(self.shares), 4.0 * b / min(self.shares), 600)
        right = int(np.argmax(radius(scan) >= 1.0))
        low, high = float(scan[right - 1]), float(scan[right])
        while high - low > 1e-12 * high:
            inner = np.linspace(low, high, 18)
            right = int(np.argmax(radius(inner[1:]) >= 1.0)) + 1
            low, high = float(inner[right - 1]), float(inner[right])
        return low

    def expectation_rates(self, steps: ArrayLike, momentum: float = 0.0) -> Real:
        """Exact contraction of E[w]^2 per update at each alpha h, from the recursion of the means of w, v and each
        class's u."""
        _check_momentum(momentum)
        c, mu, b = np.atleast_1d(np.asarray(steps, dtype=np.float64)), momentum, 1.0 + momentum
        n, size = np.array(self.counts, dtype=np.float64), len(self.counts)
        p = np.array(self.shares) * self.contributors  # a worker takes part in an update
        matrix = np.zeros((c.size, size + 2, size + 2))
        matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0] = b, -mu, 1.0
        matrix[:, 0, 2:] = -c[:, None] * (n * p / self.contributors)
        index = np.arange(size)
        matrix[:, 2:, 0], matrix[:, 2:, 1] = b * p, -mu * p
        matrix[:, 2 + index, 2 + index] = (1 - p) - c[:, None] * p
        return np.asarray(np.abs(np.linalg.eigvals(matrix)).max(axis=1) ** 2)

    def _first_unit(self, mu: float, v: float) -> float:
        """Smallest step with contraction 1: scanned upwards, then bisected."""
        most = 4.0  # above 2 (1 + mu), the edge of one worker, and every threshold met for more
        scan = most * np.geomspace(1e-3 * min(self.shares), 1.0, 200)
        if len(self.counts) > FEW:
            middle = self.merged()._first_unit(mu, v)
            around = middle * np.append(np.geomspace(0.01, 0.8, 12), 1.25)
            if np.all(self._resolvent(around, mu, np.ones(13), v)[1] == (around < middle)):
                scan = around

        def stable(c: Real) -> NDArray[np.bool_]:
            if self.homogeneous:
                return np.asarray(self.rates(c, mu, curvature_variance=v) < 1.0)
            return self._resolvent(c, mu, np.ones(c.size), v)[1]

        bad = np.flatnonzero(~stable(scan))
        right = float(scan[bad[0]]) if bad.size else most * (1 + 1e-9)
        left = float(scan[bad[0] - 1]) if bad.size and bad[0] > 0 else 0.0 if bad.size else float(scan[-1])
        if self.homogeneous and left > 0.0:
            return bracketed_root(lambda c: float(np.log(self.rates(c, mu, curvature_variance=v)[0])), left, right)
        if left == 0.0 or self.homogeneous:
            while right - left > 1e-13 * right:
                middle = 0.5 * (left + right)
                left, right = (middle, right) if stable(np.array([middle]))[0] else (left, middle)
            return 0.5 * (left + right)

        def look(steps: Real, _: NDArray[np.intp]) -> tuple[Real, NDArray[np.bool_]]:
            level, valid = self._resolvent(steps, mu, np.ones(1), v)
            return steps**2 / level, valid

        return float(certified_edges(look, np.array([left]), np.array([right]), np.array([1e-13 * right]))[0])

    def noise_floor(
        self,
        step: float,
        momentum: float = 0.0,
        noise: float = 1.0,
        *,
        curvature: float = 1.0,
        curvature_variance: float = 0.0,
    ) -> float:
        """Exact noise floor: limit of E[w^2] for gradient noise of variance ``noise`` and curvature ``curvature``
        (alpha = step / curvature); infinite at or above the threshold."""
        _check_momentum(momentum)
        if not (np.isfinite(step) and step > 0 and noise >= 0 and curvature > 0):
            raise ValueError(f"need step > 0, noise >= 0, curvature > 0 (got {step!r}, {noise!r}, {curvature!r})")
        scale = (step / curvature) ** 2 * noise
        if not self.homogeneous:
            level, valid = self._resolvent(np.array([step]), momentum, np.ones(1), curvature_variance)
            return scale * float(level[0]) if valid[0] else float("inf")
        if step >= self.threshold(momentum, curvature_variance=curvature_variance):
            return float("inf")
        matrix = self.matrix(step, momentum, curvature_variance=curvature_variance)
        return scale * float(np.linalg.solve(np.eye(matrix.shape[0]) - matrix, self.noise_moments())[0])

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
        """Exact E[w_t^2] for t = 0 .. ``updates``, with the server and all workers at rest at ``start``."""
        _check_momentum(momentum)
        source = (step / curvature) ** 2 * noise
        out = np.empty(updates + 1)
        if self.homogeneous:
            matrix = self.matrix(step, momentum, curvature_variance=curvature_variance)
            state, drive = start * start * np.eye(matrix.shape[0])[0], source * self.noise_moments()
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
        """As JSON."""
        return record({"counts": self.counts, "shares": self.shares, "contributors": self.contributors})


def _check_momentum(momentum: ArrayLike) -> None:
    if not np.all(np.abs(momentum) < 1):
        raise ValueError(f"momentum must lie strictly between -1 and 1 (got {momentum!r})")
