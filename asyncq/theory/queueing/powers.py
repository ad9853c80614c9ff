"""Convolution powers of count laws, on Fourier transforms just long enough. Source: docs/theory/renewal.md, (R.9),
(R.10)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["mixed_powers"]

FloatArray = NDArray[np.float64]

_CHUNK = 1 << 17  # numbers per block in memory: what stays in the cache


def mixed_powers(pmfs: Sequence[FloatArray], sizes: NDArray[np.int64], masses: FloatArray) -> tuple[FloatArray, float]:
    """The sum over points w and tagged pools of mass times the convolution power of the others' counts.

    ``pmfs`` have shape (points, K), ``masses`` (pools, points). Each power is taken by a discrete Fourier transform
    just long enough for the window that the others' total lies in. Also the amount of work.
    """
    starts, lengths = _windows(pmfs, sizes)
    total = np.zeros(int((starts + lengths).max()))
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        block = max(1, _CHUNK // int(length))
        for chunk in np.split(rows, np.arange(block, rows.size, block)):
            transforms = [np.fft.rfft(pmf[chunk, :length], int(length)) for pmf in pmfs]
            less = [_power(t, int(n) - 1) for t, n in zip(transforms, sizes, strict=True)]
            mixed = np.zeros_like(transforms[0])
            for tagged in range(len(pmfs)):
                product = less[tagged] * masses[tagged, chunk, None]
                for other in range(len(pmfs)):
                    if other != tagged:
                        product *= less[other] * transforms[other]
                mixed += product
            sums = np.fft.irfft(mixed, int(length))
            for row, start in zip(sums, starts[chunk].tolist(), strict=True):
                turn = start % int(length)
                total[start : start + length - turn] += row[turn:]
                total[start + length - turn : start + length] += row[:turn]
    return total, float((lengths * len(pmfs)).sum())


def _windows(pmfs: Sequence[FloatArray], sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the others' total lies but for a probability of 1e-13 (Chernoff's bound): first cell, and a length that
    suits a Fourier transform."""
    orders = [np.arange(pmf.shape[1]) for pmf in pmfs]
    means = [pmf @ k for pmf, k in zip(pmfs, orders, strict=True)]
    squares = [pmf @ (k * k) for pmf, k in zip(pmfs, orders, strict=True)]
    most = [np.where(pmf > 1e-16, k, 0).max(axis=1) for pmf, k in zip(pmfs, orders, strict=True)]
    mean = sum(n * m for n, m in zip(sizes, means, strict=True))
    end = sum(n * m for n, m in zip(sizes, most, strict=True))
    spread = np.sqrt(sum(n * (v - m * m) for n, v, m in zip(sizes, squares, means, strict=True)) + 1e-3)
    reach = np.full((2, mean.size), np.inf)
    for steps in (2.0, 4.0, 6.0, 9.0):
        for side, sign in enumerate((-1.0, 1.0)):
            tilt = np.minimum(steps / spread, 600.0 / np.max(most, axis=0).clip(1))
            exponent = 30.0
            for pmf, k, m, n in zip(pmfs, orders, means, sizes, strict=True):
                growth = np.exp(np.minimum(sign * tilt[:, None] * (k - m[:, None]), 600.0))
                exponent = exponent + n * np.log(np.einsum("ij,ij->i", np.where(pmf > 1e-16, pmf, 0.0), growth))
            reach[side] = np.minimum(reach[side], exponent / tilt)
    first = np.maximum(np.floor(mean - reach[0]), 0).astype(np.int64)
    last = np.minimum(np.ceil(mean + reach[1]), end).astype(np.int64)
    needed = np.maximum(last - first, np.max(most, axis=0)) + 2
    doubled = 2 ** np.ceil(np.log2(needed)).astype(np.int64)
    return first, np.where((needed <= 3 * (doubled // 4)) & (doubled >= 8), 3 * (doubled // 4), doubled)


def _power(base: NDArray[np.complex128], exponent: int) -> NDArray[np.complex128]:
    """Raise to a whole power, by squaring."""
    result = np.ones_like(base)
    while exponent:
        if exponent & 1:
            result = result * base
        exponent >>= 1
        if exponent:
            base = base * base
    return result
