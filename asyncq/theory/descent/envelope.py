"""Last time that a sum of decaying exponentials is above a level: searched backwards with bounds, so that no peak is
missed.

Source: docs/theory/planning.md, section "For good".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["LATEST", "Modes", "last_above"]

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]

LATEST = 2.0**24  # updates; a curve above the level then never falls below
SLOW = 0.5  # radians or nepers over a stride: slower exponentials are nearly parabolas
MOST_STRIDES = 20_000


class Modes:
    """Curves level + Re sum_k r_k exp(s_k t), at t = 0, 1, 2, ...: ``amplitudes`` r and ``exponents`` s, both (S, n),
    and ``floor`` (S,)."""

    def __init__(self, amplitudes: Complex, exponents: Complex, floor: Real) -> None:
        self.amplitudes, self.exponents, self.floor = amplitudes, exponents, floor
        self.sizes = np.abs(amplitudes)

    @classmethod
    def of_recursions(cls, matrix: Real, start: Real, drive: Real, weights: Real) -> Modes:
        """The weighted sum over d modes of the first component of x_{t+1} = T x_t + b, x_0 = ``start`` (n,):
        ``matrix`` T (S, d, n, n), ``drive`` b (S, d, n), ``weights`` (d,)."""
        settled = np.linalg.solve(np.eye(matrix.shape[-1]) - matrix, drive[..., None])[..., 0]
        values, vectors = np.linalg.eig(matrix.astype(np.complex128))
        parts = np.linalg.solve(vectors, (start - settled)[..., None].astype(complex))[..., 0]
        flat = (matrix.shape[0], -1)
        with np.errstate(divide="ignore"):
            exponents = np.log(values.astype(complex))
        exponents = np.where(np.isfinite(exponents), exponents, -700.0)
        amplitudes: Complex = (vectors[..., 0, :] * parts * weights[:, None]).astype(np.complex128)
        stable = np.all((exponents.real < 0) & (settled[..., :1] >= 0), axis=(1, 2))
        floor = np.where(stable, settled[..., 0] @ weights, np.inf)
        return cls(amplitudes.reshape(flat), exponents.reshape(flat), floor)

    def pick(self, which: NDArray[np.intp]) -> Modes:
        """A selection of the curves."""
        return Modes(self.amplitudes[which], self.exponents[which], self.floor[which])

    def __call__(self, t: Real) -> Real:
        """Values at a time t (S,) for each curve."""
        return np.asarray(self.floor + (self.amplitudes * np.exp(self.exponents * t[:, None])).real.sum(axis=1))

    def envelope(self, t: Real) -> Real:
        """Decreasing bound on the values from t (S,) on."""
        return np.asarray(self.floor + (self.sizes * np.exp(self.exponents.real * t[:, None])).sum(axis=1))

    def most(self, t: Real, stride: Real) -> tuple[Real, Real]:
        """Values at t, and a bound on those at t, t + 1, ..., t + stride."""
        parts = self.amplitudes * np.exp(self.exponents * t[:, None])
        size = np.abs(parts)
        slow = np.abs(self.exponents) * stride[:, None] <= SLOW
        here, there = (
            np.where(slow, part.real, 0.0).sum(axis=1)
            for part in (parts, parts * np.exp(self.exponents * np.where(slow, stride[:, None], 0.0)))
        )
        bend = np.where(slow, size * np.abs(self.exponents) ** 2, 0.0).sum(axis=1)
        bound = np.maximum(here, there) + stride**2 / 8.0 * bend + np.where(slow, 0.0, size).sum(axis=1)
        return self.floor + parts.real.sum(axis=1), self.floor + bound


def last_above(curves: Modes, level: float) -> Real:
    """Time at which each curve falls to the level for good, (S,), interpolated in its logarithm between two updates; 0
    if never above, infinite if above at ``LATEST``."""
    end = _enveloped(curves, level)
    out = np.where((curves.floor >= level) | (curves(np.full(end.size, LATEST)) > level), np.inf, 0.0)
    stride = np.maximum(1.0, 2.0 ** np.floor(np.log2(np.maximum(end, 1.0) / 64.0)))
    left = np.flatnonzero(np.isfinite(out) & (end > 0))  # all below from ``end`` on
    for _ in range(MOST_STRIDES):
        if not left.size:
            break
        here = curves.pick(left)
        reach = np.minimum(stride[left], end[left])
        first = end[left] - reach
        value, bound = here.most(first, reach)
        clear = np.where(reach > 1.0, bound, value) <= level
        end[left[clear]] = first[clear]
        stride[left] = np.where(clear, 2.0 * reach, np.maximum(np.floor(reach / 2.0), 1.0))
        met = (value > level) & (reach <= 1.0)
        done = met | (end[left] <= 0)
        last = left[met]
        before, after = value[met], curves.pick(last)(end[last])
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.log(before / level) / np.log(before / np.maximum(after, 1e-300))
        out[last] = first[met] + np.clip(part, 0.0, 1.0)
        left = left[~done]
    out[left] = end[left]
    return out


def _enveloped(curves: Modes, level: float) -> Real:
    """Whole number of updates after which the envelopes are at or below the level, at most ``LATEST``."""
    low, high = np.zeros(curves.floor.size), np.full(curves.floor.size, LATEST)
    low = np.where(curves.envelope(low) <= level, -1.0, low)
    for _ in range(25):
        middle = np.floor(0.5 * (low + high))
        above = curves.envelope(middle) > level
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return high
