"""The number of cycles that a worker completes in a given time: equilibrium renewal counts on a grid.

A law is put on the grid 0, h, 2h, ... by the expectations of the hat functions of its points. That keeps the mean, is a
convergent rule for laws with and without a density, and errs by O(h^2). Source: docs/theory/renewal.md,
equations (R.4) to (R.8).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from asyncq.distributions import Deterministic, Law

__all__ = ["Duration", "count_pmf", "edges_of"]

FloatArray = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)
_POWERS = 10.0 ** -np.arange(1, 17, 0.5)
_LEVELS = np.concatenate([1 - _POWERS[:27][::-1], np.linspace(0.85, 0.15, 15), _POWERS])
NEGLIGIBLE = 1e-16


class Duration:
    """The sum of independent legs of a route, in seconds: constant legs are one ``offset``, ``random`` are the
    others."""

    def __init__(self, legs: Sequence[Law]) -> None:
        self.legs = tuple(legs)
        self.random = tuple(leg for leg in legs if not leg.is_constant)
        self.offset = math.fsum(leg.mean for leg in legs if leg.is_constant)
        self.mean = math.fsum(leg.mean for leg in legs)
        self.variance = math.fsum(leg.variance for leg in self.random)

    @property
    def is_constant(self) -> bool:
        """Whether every duration is the same."""
        return not self.random

    @property
    def is_exponential(self) -> bool:
        """Whether the duration is memoryless."""
        return self.offset == 0 and len(self.random) == 1 and self.random[0].is_exponential

    @property
    def cv(self) -> float:
        """Standard deviation over mean."""
        return math.sqrt(self.variance) / self.mean

    @property
    def special(self) -> float:
        """Where the law jumps most, if it does, else the left end of its support."""
        if len(self.random) == 1:
            kinks = np.unique(self.random[0].kinks)
            jumps = self.random[0].survival(np.nextafter(kinks, 0.0)) - self.random[0].survival(kinks)
            if jumps.max() > 1e-3:
                return self.offset + float(kinks[int(np.argmax(jumps))])
        return self.offset + math.fsum(leg.lower for leg in self.random)

    def upper(self, probability: float) -> float:
        """A time that is exceeded with at most this probability: the quantile where there is one random leg."""
        share = probability / max(1, len(self.random))
        return self.offset + sum(float(_quantiles(leg, np.array([share]))[0]) for leg in self.random)

    def share_of_mean(self, beyond: float) -> float:
        """E[duration; duration > ``beyond``] over the mean, from the tails (:meth:`tail`), on a logarithmic grid."""
        x = beyond * np.exp(np.linspace(0.0, 70.0, 3501))
        tails = self.tail(x)
        return float((beyond * tails[0] + np.sum(0.5 * (tails[1:] + tails[:-1]) * np.diff(x))) / self.mean)

    def tail(self, x: FloatArray) -> FloatArray:
        """P(duration > x) far out: exact for one random leg; else that of the leg with the heaviest tail, the other
        legs at their means."""
        if not self.random:
            return np.where(x < self.offset, 1.0, 0.0)
        tails = [leg.survival(x - (self.mean - leg.mean)) for leg in self.random]
        return np.asarray(np.max(tails, axis=0))

    def cells(self, width: float, count: int) -> FloatArray:
        """The mean of P(duration > x) over each of ``count`` cells of ``width`` seconds from 0, shape (count,)."""
        first, *others = self.random or (Deterministic(value=0.0),)
        cells = _cells_of(first, self.offset, width, count)
        for leg in others:
            masses = [-np.diff(part, prepend=1.0) for part in (cells, _cells_of(leg, 0.0, width, count))]
            product = np.prod([np.fft.rfft(part, 2 * count) for part in masses], axis=0)
            cells = np.asarray(np.clip(1.0 - np.cumsum(np.fft.irfft(product, 2 * count)[:count]), 0.0, 1.0))
        return cells


@functools.lru_cache(maxsize=64)
def edges_of(law: Law) -> FloatArray:
    """Where an integral over the survival function is split: kinks, points that crowd around them, quantiles."""
    kinks = np.unique(law.kinks)
    edges = [kinks, _quantiles(law, _LEVELS)]
    if kinks.size <= 64:
        steps = law.mean * 2.0 ** np.arange(-45, 6)
        edges += [(kinks[:, None] + steps).ravel(), (kinks[:, None] - steps).ravel()]
    together = np.concatenate(edges)
    return np.unique(together[together > 0])


def _quantiles(law: Law, tails: FloatArray) -> FloatArray:
    """The times exceeded with the probabilities ``tails``, by bisection on a logarithmic scale."""
    low, high = np.full(tails.size, math.log(law.mean) - 50.0), np.full(tails.size, math.log(law.mean) + 50.0)
    for _ in range(70):
        middle = 0.5 * (low + high)
        longer = law.survival(law.lower + np.exp(middle)) > tails
        low, high = np.where(longer, middle, low), np.where(longer, high, middle)
    return np.asarray(law.lower + np.exp(high))


def _cells_of(law: Law, offset: float, width: float, count: int) -> FloatArray:
    grid = width * np.arange(count + 1)
    inner = law.kinks if law.is_constant else edges_of(law)
    inner = inner + offset
    edges = np.union1d(grid, inner[(inner > 0) & (inner < grid[-1])])
    half = 0.5 * np.diff(edges)
    x = edges[:-1, None] + half[:, None] * (1.0 + _NODES)
    pieces = half * (law.survival(x - offset) @ _WEIGHTS)
    return np.asarray(np.add.reduceat(pieces, np.searchsorted(edges, grid[:-1])) / width)


def count_pmf(
    cycle: Duration, cells: FloatArray, width: float, index: NDArray[np.int64], *, closed_form: bool
) -> FloatArray:
    """P(k cycles end in a window of ``index`` grid widths), k = 0, 1, ..., of a worker in equilibrium.

    ``cells`` are the cycle's (:meth:`Duration.cells`). Shape (index.size, K); what is left out weighs less than 1e-15
    in each row. With ``closed_form`` exponential and constant cycles are counted without the grid.
    """
    window = index * (width / cycle.mean)
    if closed_form and cycle.is_constant:
        whole = np.floor(window).astype(np.int64)
        pmf = np.zeros((window.size, int(whole.max(initial=0)) + 2))
        rows = np.arange(window.size)
        pmf[rows, whole] = 1.0 - (window - whole)
        pmf[rows, whole + 1] = window - whole
        return pmf
    if closed_form and cycle.is_exponential:
        most = float(window.max(initial=0.0))
        k = np.arange(int(most + 10 * math.sqrt(most) + 40))
        logs = special.xlogy(k, window[:, None]) - window[:, None] - special.gammaln(k + 1.0)
        return np.asarray(np.exp(logs))
    n = cells.size
    kernel = np.fft.rfft(-np.diff(cells, prepend=1.0), 2 * n)
    at_least = np.concatenate([[0.0], np.cumsum(cells)]) * (width / cycle.mean)
    survival = [np.ones(index.size)]
    while at_least[n] > 10 * NEGLIGIBLE:
        survival.append(at_least[index])
        # of the linear convolution only the term of order 2n wraps around, onto order 0, which is 0
        at_least = np.fft.irfft(kernel * np.fft.rfft(at_least, 2 * n), 2 * n)[: n + 1]
        at_least[0] = 0.0
    survival.append(np.zeros(index.size))
    return np.maximum(-np.diff(np.array(survival), axis=0), 0.0).T.copy()
