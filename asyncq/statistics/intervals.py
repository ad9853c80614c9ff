"""Confidence intervals from dependent data (batch means with an automatic batch size) and from independent runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asyncq.errors import TooShortError
from asyncq.estimate import Estimate

__all__ = [
    "FEWEST_BATCHES",
    "MOST_BATCHES",
    "mean_of_independent",
    "mean_of_series",
    "quantiles_of_parts",
    "ratio_of_batches",
    "shares_of_parts",
    "variance_of_batches",
]

FEWEST_BATCHES, MOST_BATCHES = 16, 32
SUSPICIOUS, DAMNING = 1.645, 2.6  # standard errors of a lag-one autocorrelation: merge further; refuse
PRIOR = 10.0  # rows that a cell is thought to have been met independently of each other

Floats = NDArray[np.float64]


def mean_of_independent(values: Sequence[float], *, unit: str) -> Estimate:
    """The mean of independent values, with Student's interval (95 %); none for a single value."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(mean, None, unit)
    half = _student(n - 1) * float(np.std(values, ddof=1)) / n**0.5
    return Estimate(mean, (mean - half, mean + half), unit)


def mean_of_series(values: Sequence[float] | Floats, *, unit: str) -> Estimate:
    """The mean of dependent values, with an interval by batch means (95 %).

    Raises ``TooShortError``, with the estimate, where batches stay correlated however few are made of them."""
    series = np.asarray(values, dtype=np.float64)
    return ratio_of_batches(series, np.ones(series.size), unit=unit, strict=True)


def ratio_of_batches(
    above: Floats, below: Floats, *, unit: str, smallest: int = 1, strict: bool = False
) -> Estimate:
    """sum(above) / sum(below) over equal batches in order, with Student's interval for a ratio (delta method, 95 %).

    Batches are merged until at most ``MOST_BATCHES`` are left, each of at least ``smallest`` given ones, and further
    as long as neighbours are correlated. The interval is None where that leaves fewer than ``FEWEST_BATCHES``; if
    ``strict``, ``TooShortError`` is raised instead, which carries the estimate.
    """
    total = float(below.sum())
    if total <= 0:
        return Estimate(float("nan"), None, unit)
    ratio = float(above.sum()) / total
    residuals = batched(above - ratio * below, smallest)
    if residuals is None:
        estimate = Estimate(ratio, None, unit)
        if strict:
            raise TooShortError(
                f"{above.size} values are too few for an interval: batches of a {FEWEST_BATCHES}th of them are still "
                f"correlated; give at least {4 * max(above.size, FEWEST_BATCHES)}", estimate
            )  # fmt: skip
        return estimate
    n = residuals.size
    # what correlation is left makes intervals too narrow; of one that may be chance, half is taken for real
    left = max(0.0, _neighbours(residuals))
    wider = ((1 + left) / (1 - left) if left * n**0.5 > SUSPICIOUS and left < 1 else 1 + left) ** 0.5
    half = _student(n - 1) * wider * float(np.std(residuals, ddof=1)) * n**0.5 / total
    return Estimate(ratio, (ratio - half, ratio + half), unit)


def variance_of_batches(rows: Floats, sums: Floats, squares: Floats, *, unit: str, smallest: int = 1) -> Estimate:
    """The variance of the values whose numbers, sums and sums of squares are given by batch; interval on its log."""
    n = float(rows.sum())
    if n <= 0:
        return Estimate(float("nan"), None, unit)
    mean = float(sums.sum()) / n
    # of (value - mean)^2, by batch
    spread = squares - 2 * mean * sums + mean * mean * rows
    estimate = ratio_of_batches(spread, rows, unit=unit, smallest=smallest)
    variance = max(0.0, estimate.mean)
    if estimate.ci95 is None or variance == 0:
        return Estimate(variance, estimate.ci95 and (0.0, 0.0), unit)
    factor = float(np.exp(estimate.half_width / variance))
    return Estimate(variance, (variance / factor, variance * factor), unit)


def shares_of_parts(
    parts: NDArray[np.int64], part_rows: int | NDArray[np.int64], *, fewest: int = FEWEST_BATCHES
) -> Floats | None:
    """95 % intervals (each cell by itself) of the shares of every staleness, shape (2, cells), from histograms of equal
    parts of a run in order, or of independent runs of about the same ``part_rows``; None for fewer than ``fewest``.

    Wilson's score interval, in which a row counts for less as its cell's counts scatter more between the parts than
    independent rows would. Cells met a few times scatter too little to tell, and are held for independent."""
    n = len(parts)
    if n < fewest:
        return None
    sizes = np.broadcast_to(part_rows, n)
    rows = int(sizes.sum())
    met = parts.sum(axis=0)
    share = met / rows
    binomial = np.maximum(share * (1 - share) / rows, 1e-300)
    scatter = parts / sizes[:, None]
    scatter -= scatter.mean(axis=0)
    effect = np.einsum("ij,ij->j", scatter, scatter) / (n - 1) / n / binomial
    effect = np.where(met > 0, (effect * met + PRIOR) / (met + PRIOR), 1.0)
    effect = np.where(share < 1, effect, 1.0)
    reach = _student(n - 1) ** 2 * effect / rows
    middle = (share + reach / 2) / (1 + reach)
    half = np.sqrt(reach * (share * (1 - share) + reach / 4)) / (1 + reach)
    return np.array([np.maximum(0.0, middle - half), np.minimum(1.0, middle + half)])


def quantiles_of_parts(
    parts: NDArray[np.int64],
    part_rows: int | NDArray[np.int64],
    probabilities: Sequence[float],
    *,
    fewest: int = FEWEST_BATCHES,
) -> list[tuple[int, int] | None]:
    """95 % intervals of quantiles: the staleness values at which the interval of the distribution function holds the
    probability; None where there are too few parts or the parts' histograms end before."""
    below = np.cumsum(parts, axis=1)
    ends = shares_of_parts(below, part_rows, fewest=fewest)
    if ends is None:
        return [None] * len(probabilities)
    reached = below.sum(axis=0) / np.broadcast_to(part_rows, len(parts)).sum()
    found: list[tuple[int, int] | None] = []
    for probability in probabilities:
        low = int(np.argmax(ends[1] >= probability))
        sure = ends[0] >= probability
        # where nothing is sure, the largest value that was seen is as far as the data reach
        high = int(np.argmax(sure)) if sure.any() else int(np.argmax(reached >= reached[-1]))
        found.append((low, max(low, high)) if reached[-1] >= probability else None)
    return found


def batched(values: Floats, smallest: int = 1) -> Floats | None:
    """Sums over batches long enough to look independent; None if fewer than ``FEWEST_BATCHES`` would be left.

    Values that are left over at the end are left out."""
    size = max(smallest, -(-values.size // MOST_BATCHES), 1)
    last: Floats | None = None
    while (count := values.size // size) >= FEWEST_BATCHES:
        sums = values[: count * size].reshape(count, size).sum(axis=1)
        excess = _neighbours(sums) * count**0.5
        if excess <= SUSPICIOUS:
            return np.asarray(sums)
        last = sums if excess <= DAMNING else None
        size = max(size + 1, size * 3 // 2)
    return last


def _neighbours(sums: Floats) -> float:
    """The autocorrelation of lag one, less -1/n, which is its mean for independent values."""
    centred = sums - sums.mean()
    spread = float(centred @ centred)
    return float(centred[1:] @ centred[:-1]) / spread + 1 / sums.size if spread else 0.0


def _student(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))
