"""Pearson's test of a law against dependent rows, from histograms of consecutive parts of a run."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from asyncq.staleness import StalenessLaw

__all__ = ["FEWEST_EXPECTED", "chi_square"]

FEWEST_EXPECTED = 100.0  # rows of a cell; others are one cell together


def chi_square(parts: ArrayLike, law: StalenessLaw) -> tuple[float, float]:
    """p-value of "the rows have the ``law``", and the largest cell in standard errors; ``parts`` has shape (parts,
    cells), 3 parts or more, each long enough to be as good as independent of the others.

    Sum of (O - E)^2 / E has mean tr S and variance 2 tr S^2, with S the covariance of the scaled cells; both traces are
    estimated from the parts without bias, and the statistic is scaled to a chi-square of that mean and variance
    (Satterthwaite)."""
    from scipy.special import chdtrc

    counts = np.asarray(parts, dtype=np.float64)
    rows, size = counts.sum(axis=1), counts.sum()
    pmf = np.pad(law.pmf, (0, max(0, counts.shape[1] - law.pmf.size)))[: counts.shape[1]]
    kept = size * pmf >= FEWEST_EXPECTED
    cells = np.column_stack([counts[:, kept], counts[:, ~kept].sum(axis=1)])
    shares = np.append(pmf[kept], max(0.0, 1 - pmf[kept].sum()))
    if size * shares[-1] < FEWEST_EXPECTED:
        if cells[:, -1].sum() > 4 * FEWEST_EXPECTED:  # many rows in cells that the law leaves nearly empty
            return 0.0, float("inf")
        cells, shares = cells[:, :-1], shares[:-1]
    off = (cells - rows[:, None] * shares) / np.sqrt(size * shares)  # sums over parts to (O - E) / sqrt(E)
    count = off.shape[0]
    centred = off - off.mean(axis=0)
    gram = centred @ centred.T * (count / (count - 1))
    trace = float(np.trace(gram))
    square = ((count - 1) ** 2 / ((count - 2) * (count + 1))) * (float((gram**2).sum()) - trace**2 / (count - 1))
    statistic = float((off.sum(axis=0) ** 2).sum())
    if trace <= 0 or square <= 0:  # every part is alike
        return (1.0, 0.0) if statistic < 1e-12 else (0.0, float("inf"))
    freedom = trace**2 / square
    spread = np.sqrt((centred**2).sum(axis=0) * count / (count - 1))
    largest = float(np.abs(off.sum(axis=0) / np.where(spread > 0, spread, 1.0)).max())
    return float(chdtrc(freedom, statistic * freedom / trace)), largest
