"""Root finding in a bracket, without the half second of importing scipy.optimize."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["bracketed_root", "certified_edges"]

Real = NDArray[np.float64]

FIRST = 1e-4  # of a bracket: the second point


def bracketed_root(function: Callable[[float], float], left: float, right: float, *, rtol: float = 1e-14) -> float:
    """Root by Chandrupatla's method (1997): inverse quadratic steps if safe, else bisection. If both ends have the same
    sign: the end with the smaller value. ``rtol`` is relative to the root."""
    a, b = left, right
    fa, fb = function(a), function(b)
    if fa == 0.0:
        return a
    if fb == 0.0:
        return b
    if (fa > 0) == (fb > 0):
        return a if abs(fa) < abs(fb) else b
    c, fc, share = a, fa, 0.5
    for _ in range(200):
        x = a + share * (b - a)
        fx = function(x)
        if (fx > 0) == (fa > 0):
            c, fc = a, fa
        else:
            c, fc, b, fb = b, fb, a, fa
        a, fa = x, fx
        best, f_best = (a, fa) if abs(fa) < abs(fb) else (b, fb)
        tolerance = rtol * abs(best) / abs(b - a) if b != a else 1.0
        if f_best == 0.0 or tolerance >= 0.5:
            return best
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        if phi * phi < xi and (1 - phi) ** 2 < 1 - xi:
            share = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        else:
            share = 0.5
        share = min(max(share, tolerance), 1 - tolerance)
    return best


def certified_edges(
    look: Callable[[Real, NDArray[np.intp]], tuple[Real, NDArray[np.bool_]]], inside: Real, outside: Real, within: Real
) -> Real:
    """Points (S,) at most ``within`` on the inner side of the edges between ``inside`` and ``outside``, the ends of
    each bracket. ``look(points, which)`` tells of each point a value that passes zero smoothly at the edge, which
    suggests the next point, and whether it lies inside, which alone decides."""
    inside, outside = inside.copy(), outside.copy()
    left = np.flatnonzero(np.abs(outside - inside) > within)
    x0, f0 = inside.copy(), np.full(inside.size, np.nan)
    f0[left] = look(inside[left], left)[0]
    x1, f1 = inside.copy(), f0.copy()
    for turn in range(100):
        a, b = inside[left], outside[left]
        with np.errstate(all="ignore"):
            guess = x1[left] - f1[left] * (x1[left] - x0[left]) / (f1[left] - f0[left])
            share = (guess - a) / (b - a)
        share = np.where((share > -0.5) & (share < 1.5) & (turn % 5 != 4), share, 0.5 if turn else FIRST)
        least = np.minimum(0.5 * within[left] / np.abs(b - a), 0.5)
        point = a + np.clip(share, least, 1.0 - least) * (b - a)
        value, good = look(point, left)
        inside[left], outside[left] = np.where(good, point, a), np.where(good, b, point)
        x0[left], f0[left], x1[left], f1[left] = x1[left], f1[left], point, value
        left = left[np.abs(outside[left] - inside[left]) > within[left]]
        if not left.size:
            break
    return inside
