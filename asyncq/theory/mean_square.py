"""Second moments under independent staleness: the gain g, whose unit value is the edge of mean-square stability.

With w = x zeta / P, zeta_t the surprise of update t (which past value was read, and the curvature it met):

    g_rho(k) = (1/rho) mean_theta[ ((Q(1/rho) - abs(Q)^2) abs(D)^2 + k^2 v Q(1/rho)) / abs(P)^2 ],  x = rho^(-1/2) exp(-i theta),

D = -k, or mu (1 - x) - k when the momentum is shifted, and v = V_h / h^2 the relative variance of the curvature between
samples. Source: theory.md section 6; derivation in docs/theory/stability.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asyncq.theory.characteristic import Characteristic, Curve

__all__ = ["Gain", "autocovariance", "gain", "unit_gain"]

Real = NDArray[np.float64]

AGREE = 1e-5  # two grids, one twice the other: the finer one is then right to about AGREE squared
LONG = 1024  # up to here a grid that does not settle is replaced by the exact recursion, O(L^2)


class Gain:
    """g_rho and mean 1/abs(P)^2 on one grid, for any step."""

    def __init__(self, curve: Curve, curvature_variance: float) -> None:
        circle = curve.circle
        self.circle = circle
        rho = circle.radius**-2
        with np.errstate(over="ignore", invalid="ignore"):
            total = float(circle.weights.sum() if circle.radius == 1.0 else _at(circle.lags, circle.weights, circle.radius))
            spread = total - (circle.q.real**2 + circle.q.imag**2)
        self.aa = curve.a.real**2 + curve.a.imag**2
        self.ab = 2.0 * (curve.a.real * curve.b.real + curve.a.imag * curve.b.imag)
        self.bb = curve.b.real**2 + curve.b.imag**2
        if curve.shifted:
            gap = curve.momentum * circle.one_minus_x
            self.d0 = spread * (gap.real**2 + gap.imag**2) / rho
            self.d1: Real | None = -2.0 * spread * gap.real / rho
        else:
            self.d0, self.d1 = np.zeros(1), None
        self.d2 = (spread + curvature_variance * total) / rho

    def density(self, k: float) -> Real:
        """1 / abs(P)^2 on the half circle."""
        return np.asarray(1.0 / (self.aa + k * self.ab + k * k * self.bb))

    def __call__(self, k: float) -> tuple[float, float, bool]:
        """(g, mean 1/abs(P)^2, whether the grid has settled)."""
        with np.errstate(all="ignore"):
            density = self.density(k)
            top = k * k * self.d2 if self.d1 is None else self.d0 + k * self.d1 + k * k * self.d2
            values = top * density
            g, m = self.circle.mean(values), self.circle.mean(density)
            if not (np.isfinite(g) and np.isfinite(m)):
                return np.inf, np.inf, True
            if self.circle.theta.size % 2 == 0:
                return g, m, False
            coarse = 4.0 * values[::2].sum() - 2.0 * (values[0] + values[-1])
            rough = 4.0 * density[::2].sum() - 2.0 * (density[0] + density[-1])
            points = self.circle.points
            settled = abs(coarse / points - g) <= AGREE * abs(g) + 1e-14 and abs(rough / points - m) <= AGREE * m
        return g, m, bool(settled)


def _at(lags: NDArray[np.int64], weights: Real, radius: float) -> float:
    """Q(radius^2) from the weights q_l radius^l."""
    return float(weights @ np.exp(lags * np.log(radius)))


def autocovariance(polynomial: Real) -> Real | None:
    """r_0 .. r_n, the autocovariances of x_t driven by unit white noise through 1/P, or None if P has a root on or
    inside the circle: Levinson's recursion run down and up again, exact, O(n^2) (the Schur-Cohn test)."""
    a = polynomial / polynomial[0]
    orders = [a]
    for _ in range(a.size - 1):
        k = a[-1]
        if not abs(k) < 1.0:
            return None
        a = ((a - k * a[::-1]) / (1.0 - k * k))[:-1]
        orders.append(a)
    orders.reverse()
    r = np.empty(polynomial.size)
    r[0] = 1.0 / float(np.prod([1.0 - cells[-1] ** 2 for cells in orders[1:]])) / polynomial[0] ** 2
    for n in range(1, polynomial.size):
        r[n] = -orders[n][1:] @ r[n - 1 :: -1][:n] if n > 1 else -orders[1][1] * r[0]
    return r


def _power(r: Real, numerator: Real) -> float:
    """mean abs(N)^2 / abs(P)^2 from the autocovariances of 1/P."""
    overlap = np.correlate(numerator, numerator, "full")[numerator.size - 1 :]
    return float(r[0] * overlap[0] + 2.0 * (r[1 : overlap.size] @ overlap[1:]))


def _exact_gain(system: Characteristic, k: float, rho: float, v: float) -> tuple[float, float]:
    radius = rho**-0.5
    r = autocovariance(system.polynomial(k, radius))
    if r is None:
        return np.inf, np.inf
    q = system.pmf[: system.length + 1]
    scaled = q * np.exp(np.arange(q.size) * np.log(radius))
    total = _at(np.arange(q.size), scaled, radius)
    direct = np.array([-k, 0.0])
    if system.shifted:
        direct += (system.momentum, -system.momentum * radius)
    stale = np.convolve(direct, scaled)[: r.size] if system.shifted else -k * scaled
    spread = total * _power(r, direct[: 2 if system.shifted else 1]) - _power(r, stale)
    return (spread + k * k * v * total * r[0]) / rho, float(r[0])


def gain(system: Characteristic, k: float, *, rho: float = 1.0, curvature_variance: float = 0.0) -> tuple[float, float]:
    """(g_rho, mean 1/abs(P)^2) at the step k, on the first grid that settles; the exact recursion if none does. The
    caller sees to it that P has no root within abs(x) <= rho^(-1/2)."""
    most = max(1 << 16, system.points(1))
    doublings = 0
    while True:
        points = system.points(doublings)
        points += points % 4
        g, m, settled = Gain(system.curve(rho**-0.5, points), curvature_variance)(k)
        if settled or not np.isfinite(g):
            return g, m
        doublings += 1
        if system.length <= LONG and system.points(doublings) > most:
            return _exact_gain(system, k, rho, curvature_variance)
        if system.points(doublings) > max(1 << 21, system.points(2)):
            return g, m


def unit_gain(system: Characteristic, edge: float, *, curvature_variance: float = 0.0) -> float:
    """The first k with g(k) = 1 below the first crossing ``edge``; ``edge`` itself if there is none (constant
    staleness, the same curvature in every sample)."""
    from scipy.optimize import brentq

    if system.length == np.flatnonzero(system.pmf)[0] and curvature_variance == 0.0:
        return edge
    points = system.points()
    points += points % 4
    coarse = Gain(system.curve(1.0, points), curvature_variance)
    scan = edge * np.unique(np.concatenate([np.geomspace(1e-4, 1.0, 13), np.linspace(0.1, 1.0, 19)]))
    scan[-1] = edge * (1.0 - 1e-9)
    left = 0.0
    for right in scan:
        if coarse(right)[0] >= 1.0:
            break
        left = float(right)
    else:
        right = scan[-1]

    def excess(k: float) -> float:
        g = gain(system, k, curvature_variance=curvature_variance)[0]
        return float(np.log(min(g, 1e30))) if g > 0 else -70.0

    if left == scan[-1] or excess(float(right)) < 0.0:
        if excess(float(scan[-1])) < 0.0:
            return edge
        left, right = float(right), float(scan[-1])
    if left == 0.0:
        left = float(right) * 1e-6
    while excess(left) > 0.0:
        right, left = left, left / 2
    return float(brentq(excess, left, float(right), xtol=1e-300, rtol=1e-13))
