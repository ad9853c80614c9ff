"""Root finding in a bracket, without the half second of importing scipy.optimize."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["bracketed_root"]


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
