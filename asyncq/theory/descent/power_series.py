"""Reciprocals of truncated power series, along the last axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["DIRECT", "long_reciprocal", "reciprocal"]

Real = NDArray[np.float64]

DIRECT = 16  # terms of a reciprocal that are taken one by one
BLOCK = 1024  # terms of a long reciprocal that are taken together


def reciprocal(a: Real) -> Real:
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


def long_reciprocal(a: Real) -> Real:
    """1 / a, a (B, n) with n a power of two, block by block: each is the :func:`reciprocal` of a block times what the
    terms before it leave. Where 1 / a dies out slowly, Newton's iteration on all terms would multiply their
    rounding."""
    n = a.shape[-1]
    if n <= BLOCK:
        return reciprocal(a)
    first = reciprocal(a[:, :BLOCK])
    out = np.zeros_like(a)
    out[:, :BLOCK] = first
    block = np.fft.rfft(first, 2 * BLOCK)
    whole = np.fft.rfft(a, 2 * n)
    for start in range(BLOCK, n, BLOCK):
        rest = np.fft.irfft(whole * np.fft.rfft(out, 2 * n), 2 * n)[:, start : start + BLOCK]
        out[:, start : start + BLOCK] = -np.fft.irfft(block * np.fft.rfft(rest, 2 * BLOCK), 2 * BLOCK)[:, :BLOCK]
    return out
