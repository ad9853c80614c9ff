"""Confidence intervals from dependent data, by batch means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asyncq.estimate import Estimate

__all__ = ["BATCH_COUNT", "mean_of_independent", "ratio_of_batches"]

BATCH_COUNT = 32
FEWEST_BATCHES = 8


def mean_of_independent(values: Sequence[float], *, unit: str) -> Estimate:
    """The mean of independent values, with Student's interval (95 %); none for a single value."""
    from scipy.special import stdtrit

    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(mean, None, unit)
    half = float(stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / n**0.5)
    return Estimate(mean, (mean - half, mean + half), unit)


def ratio_of_batches(above: NDArray[np.float64], below: NDArray[np.float64], *, unit: str) -> Estimate:
    """sum(above) / sum(below) over equal batches, with Student's interval for a ratio (delta method, 95 %)."""
    from scipy.special import stdtrit

    total = float(below.sum())
    if total <= 0:
        return Estimate(float("nan"), None, unit)
    ratio = float(above.sum()) / total
    n = above.size
    if n < FEWEST_BATCHES:
        return Estimate(ratio, None, unit)
    error = float(np.std(above - ratio * below, ddof=1)) * n**0.5 / total
    half = float(stdtrit(n - 1, 0.975)) * error
    return Estimate(ratio, (ratio - half, ratio + half), unit)
