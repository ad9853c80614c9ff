"""Updates to a target by the exact second moments: equal exponential workers, or no staleness at all.

Source: docs/theory/planning.md, "E[w^2] exactly".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asyncq.theory.descent.exponential import ExponentialWorkers, exponential_workers
from asyncq.theory.descent.time_to_target import Quadratic, crossing, stable_steps

__all__ = ["ExactLoss", "fresh_loss"]

Real = NDArray[np.float64]

STEPPED = 128  # updates that are followed one by one before whole powers of the recursion are taken
DOUBLINGS = 24  # of the recursion: longer than 2^24 updates is never


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
        mu, fine = stable_steps(self, steps, momentum)
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
