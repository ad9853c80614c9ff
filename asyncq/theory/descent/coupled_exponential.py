"""Coupled second moments of a training problem with exponential workers, exact, dependence included.

Each mode has the moments of docs/theory/stability.md section 6.2. The noise of a gradient depends on the loss of the
version that its worker read, so that the modes are coupled by a number for each speed: a single one for equal
workers. Products of two modes are never needed. Source: docs/theory/networks.md (10.12).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asyncq.theory.descent.exponential import ExponentialWorkers
from asyncq.theory.descent.problem import TrainingProblem

__all__ = ["CoupledWorkers", "class_moments"]

Real = NDArray[np.float64]

MOST_CLASSES = 8
STEPPED = 256  # first updates, checked singly
DOUBLINGS = 24


def class_moments(pool: ExponentialWorkers, steps: Real, momentum: float) -> tuple[Real, Real, Real]:
    """(T, N, R) at alpha h = ``steps`` (...): T (..., n, n) maps the moments of one mode over one update, N (n, G) adds
    what unit noise (times alpha^2) of a worker of each of G speeds adds, weighted with its chance to make the update,
    and R (G, n) gives E[u^2], u the version that such a worker holds.

    The moments are E of w^2, wd, d^2, then for each speed w e, d e, e^2, then e e' for each two speeds, with d the last
    update and e = w - u. Equal workers, whatever K: those of `ExponentialWorkers.matrix`.
    """
    if pool.homogeneous:
        matrix = pool.matrix(steps, momentum)
        read = np.array([[1.0, 0.0, 0.0, -2.0, 0.0, 1.0, 0.0]])[:, : matrix.shape[-1]]
        return matrix, pool.noise_moments()[:, None], read
    size, c = len(pool.counts), np.asarray(steps, dtype=np.float64)[..., None]
    pairs = [(g, k) for g in range(size) for k in range(g, size)]
    n = 3 + 3 * size + len(pairs)
    unit = np.eye(n)
    ww, wd, dd = unit[:3]
    we, de, ee = (unit[3 + i * size : 3 + (i + 1) * size] for i in range(3))
    cross = {pair: unit[3 + 3 * size + i] for i, pair in enumerate(pairs)}
    matrix, noise = np.zeros((*np.shape(steps), n, n)), np.zeros((n, size))

    def between(g: int, k: int) -> Real:
        return np.asarray(cross[min(g, k), max(g, k)])

    for k, (count, share) in enumerate(zip(pool.counts, pool.shares, strict=True)):
        # a worker of speed k makes the update D = mu d - c (w - e_k)
        with_w = momentum * wd - c * (ww - we[k])
        square = momentum**2 * dd - 2 * momentum * c * (wd - de[k]) + c * c * (ww - 2 * we[k] + ee[k])
        with_e = [momentum * de[g] - c * (we[g] - between(g, k)) for g in range(size)]

        def add(row: int, others: int, form: Real, share: float = share, k: int = k) -> None:
            matrix[..., row, :] += others * share * form
            noise[row, k] += others * share

        add(0, count, ww + 2 * with_w + square)
        add(1, count, with_w + square)
        add(2, count, square)
        for g in range(size):
            others = count - (g == k)
            add(3 + g, others, we[g] + with_w + with_e[g] + square)
            add(3 + size + g, others, with_e[g] + square)
            add(3 + 2 * size + g, others, ee[g] + 2 * with_e[g] + square)
        for i, (g, j) in enumerate(pairs):
            others = count - (g == k) - (j == k)
            if pool.counts[g] > (1 if g == j else 0):
                add(3 + 3 * size + i, others, between(g, j) + with_e[g] + with_e[j] + square)
    single = [i for i, (g, j) in enumerate(pairs) if g == j and pool.counts[g] == 1]
    kept = np.delete(np.arange(n), [3 + 3 * size + i for i in single])  # a worker alone of its speed has no such pair
    return matrix[..., kept[:, None], kept], noise[kept], (ww - 2 * we + ee)[:, kept]


class CoupledWorkers:
    """A training problem with a pool of exponential workers.

    Raises ``ValueError`` for more than 8 different speeds: use the law, or round the rates.
    """

    def __init__(self, pool: ExponentialWorkers, problem: TrainingProblem) -> None:
        if len(pool.counts) > MOST_CLASSES:
            raise ValueError(
                f"at most {MOST_CLASSES} different speeds are exact here (got {len(pool.counts)}); use the law"
            )
        self.pool, self.problem = pool, problem
        self.curvature = np.array(problem.curvatures)
        self.noise = np.array(problem.noise) / problem.batch_size
        self.constant = np.array(problem.constant_noise) / problem.batch_size
        self.weight = self.noise * self.curvature
        self._edges: dict[float, float] = {}

    def edge(self, momentum: float) -> float:
        """Learning rate at which the sharpest mode becomes unstable in mean square; below it every mode is stable."""
        if momentum not in self._edges:
            self._edges[momentum] = self.pool.threshold(momentum)
        return self._edges[momentum] / self.problem.sharpness

    def _resolved(self, rates: Real, momentum: float, rho: float) -> tuple[Real, Real, Real]:
        """(rho - T)^-1 N of every mode, (S, d, n, G), and N and R."""
        matrix, noise, read = class_moments(self.pool, rates[:, None] * self.curvature, momentum)
        return np.asarray(np.linalg.solve(rho * np.eye(matrix.shape[-1]) - matrix, noise)), noise, read

    def loop(self, rates: Real, momentum: float, rho: float = 1.0) -> Real:
        """Loop gain (S,): the spectral radius of the noise returned for a unit of noise, by class of workers, (10.12).
        Infinite if a mode is unstable by itself; ``rho`` must exceed every mode's contraction."""
        unstable = rates >= self.edge(momentum) * (1.0 - 1e-12) if rho == 1.0 else np.zeros(rates.shape, dtype=bool)
        out = np.full(rates.size, np.inf)
        fine = rates[~unstable]
        if fine.size:
            solved, _, read = self._resolved(fine, momentum, rho)
            whole = np.einsum("s,d,gn,sdnk->sgk", fine**2, self.weight, read, solved)
            out[~unstable] = np.abs(np.linalg.eigvals(whole)).max(axis=1)
        return out

    def slowest(self, rate: float, momentum: float) -> float:
        """Contraction per update of E[w^2] of the slowest mode by itself."""
        return float(self.pool.rates(rate * np.unique(self.curvature), momentum).max())

    def floor(self, rate: float, momentum: float) -> float:
        """Limit of the expected loss above its minimum; ``rate`` must be stable."""
        solved, _, read = self._resolved(np.array([rate]), momentum, 1.0)
        solved = rate**2 * solved[0]
        whole = np.einsum("d,gn,dnk->gk", self.weight, read, solved)
        source = np.einsum("d,gn,dnk->g", self.constant * self.curvature, read, solved)
        seen = np.linalg.solve(np.eye(whole.shape[0]) - whole, source)
        drive = self.noise[:, None] * seen + self.constant[:, None]
        return float(0.5 * np.einsum("d,dk,dk->", self.curvature, solved[:, 0], drive))

    def whole(self, rate: float, momentum: float) -> Real:
        """The affine recursion of (E[loss], moments of every mode, 1), the loss in front: each mode's own block, and
        one block of rank G by which the loss at the reads drives all."""
        matrix, noise, read = class_moments(self.pool, rate * self.curvature, momentum)
        modes, n = matrix.shape[:2]
        size = modes * n
        full = np.zeros((size + 2, size + 2))
        body = full[1:-1, 1:-1]
        drive = (rate**2 * self.noise[:, None, None] * noise).reshape(size, -1)
        body[:] = drive @ (self.curvature[:, None, None] * read).transpose(1, 0, 2).reshape(-1, size)
        for j in range(modes):
            body[j * n : (j + 1) * n, j * n : (j + 1) * n] += matrix[j]
        full[1:-1, -1] = (rate**2 * self.constant[:, None] * noise.sum(axis=1)).ravel()
        full[-1, -1] = 1.0
        full[0] = 0.5 * self.curvature @ full[1:-1].reshape(modes, n, -1)[:, 0]
        return full

    def at_start(self) -> Real:
        """The state of :meth:`whole` at rest at the start."""
        n = class_moments(self.pool, np.zeros(1), 0.0)[0].shape[-1]
        state = np.zeros(self.curvature.size * n + 2)
        state[0], state[-1] = sum(self.problem.start), 1.0
        state[1:-1:n] = 2.0 * np.array(self.problem.start) / self.curvature
        return state

    def losses(self, rate: float, momentum: float, terms: int) -> Real:
        """E[loss] above its floor at the updates 0 .. ``terms`` - 1."""
        whole, state, out = self.whole(rate, momentum), self.at_start(), np.empty(terms)
        for t in range(terms):
            out[t] = state[0]
            state = whole @ state
        return out

    def updates(self, rate: float, momentum: float, target: float) -> float:
        """Updates until E[loss] has fallen for good to ``target`` times the loss at the start, interpolated in its
        logarithm; infinite if its limit is above, or beyond some 8 million updates. ``rate`` must be stable."""
        from asyncq.theory.descent.time_to_target import crossing

        level = target * sum(self.problem.start)
        if self.floor(rate, momentum) >= level:
            return float("inf")
        powers = [self.whole(rate, momentum)]
        path = self.at_start()[:, None]
        while path.shape[1] <= STEPPED:
            path = np.concatenate([path, powers[-1] @ path], axis=1)
            powers.append(powers[-1] @ powers[-1])
        stride = 1
        while True:  # each time the path is followed in strides twice as long, from its start
            found = float(crossing(path[:1], level)[0])
            if found < path.shape[1] / 2:
                break
            if len(powers) > DOUBLINGS:
                return float("inf")
            path = np.concatenate([path[:, ::2], powers[-1] @ path[:, ::2]], axis=1)
            powers.append(powers[-1] @ powers[-1])
            stride *= 2
        if stride == 1:
            return found
        state, done = path[:, int(found)], int(found) * stride
        for j in reversed(range(stride.bit_length() - 1)):
            ahead = powers[j] @ state
            if ahead[0] > level:
                state, done = ahead, done + (1 << j)
        after = (powers[0] @ state)[0]
        return float(done + np.clip(np.log(state[0] / level) / np.log(state[0] / after), 0.0, 1.0))
