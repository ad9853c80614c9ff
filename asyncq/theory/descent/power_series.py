"""Reciprocals of truncated power series, along the last axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "reciprocal"]

Real = NDArray[np.float64]

BLOCK = 64  # terms that are solved for together, without a transform
HEAD = 3  # coefficients that never enter a transform


def reciprocal(a: Real) -> Real:
    """1 / a, a (B, n) with n a power of two: forward substitution in blocks, what earlier blocks add by transforms of
    doubling length. Every term is solved for from the terms before it as they are, so that rounding does not grow from
    block to block, as it does in Newton's iteration where 1 / a dies out slowly. The first coefficients, (1 - x)(1 -
    mu x) say, are multiplied out: their products cancel."""
    rows, n = a.shape
    short = min(n, BLOCK)
    first = np.zeros((rows, short))
    first[:, 0] = 1.0 / a[:, 0]
    for t in range(1, short):
        first[:, t] = -np.einsum("bi,bi->b", a[:, 1 : t + 1], first[:, :t][:, ::-1]) * first[:, 0]
    padded = np.concatenate([np.zeros((rows, short - 1)), first], axis=1)
    solve = np.lib.stride_tricks.sliding_window_view(padded, short, axis=1)  # (B, short, short): of a block reversed
    tail = a.copy()
    tail[:, :HEAD] = 0.0
    spectra: dict[int, NDArray[np.complex128]] = {}
    out, rest = np.zeros_like(a), np.zeros_like(a)
    out[:, :short] = first
    for end in range(short, n, short):
        width = end & -end  # the largest power of two that divides the number of blocks that are known
        if width not in spectra:
            spectra[width] = np.fft.rfft(tail[:, : 2 * width], 2 * width)
        known = np.fft.rfft(out[:, end - width : end], 2 * width)
        rest[:, end : end + width] += np.fft.irfft(known * spectra[width], 2 * width)[:, width:]
        due = rest[:, end : end + short].copy()
        for lags in range(1, HEAD):
            due[:, :lags] += a[:, lags, None] * out[:, end - lags : end]
        out[:, end : end + short] = -np.einsum("bij,bj->bi", solve, due[:, ::-1])
    return out
