"""Ratios of means with intervals: the arithmetic behind every measured noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asyncq.estimate import Estimate

__all__ = ["FEWEST", "blocks", "mean_ratio"]

FEWEST = 4  # units with which an interval is given

Real = NDArray[np.float64]


def mean_ratio(above: ArrayLike, below: ArrayLike, *, unit: str) -> Estimate:
    """mean(above) / mean(below) over independent units, with Student's 95 % interval for its logarithm by the
    jackknife; above and below are positive. No interval for fewer than ``FEWEST`` units or where a mean is not
    positive."""
    from scipy.special import stdtrit

    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    n, value = a.size, float(a.mean() / b.mean()) if b.mean() != 0 else float("nan")
    if n < FEWEST:
        return Estimate(value, None, unit)
    rest_a, rest_b = a.sum() - a, b.sum() - b
    if value <= 0 or np.any(rest_a <= 0) or np.any(rest_b <= 0):
        return Estimate(value, None, unit)
    logs = np.log(rest_a) - np.log(rest_b)
    error = float(np.sqrt((n - 1) * np.mean((logs - logs.mean()) ** 2)))
    half = float(np.exp(stdtrit(n - 1, 0.975) * error))
    return Estimate(value, (value / half, value * half), unit)


def blocks(values: ArrayLike, count: int) -> Real:
    """Means of ``count`` blocks of nearly equal length, in order; the values themselves where there are fewer."""
    series = np.asarray(values, np.float64)
    return np.array([part.mean() for part in np.array_split(series, min(count, series.size))])
