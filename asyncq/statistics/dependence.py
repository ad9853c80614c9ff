"""Dependence of successive gradients: autocorrelation, effective sample size, Ljung-Box test.

The conservation law (docs/theory/conservation.md (2.4)) fixes the sum of staleness. Its autocorrelations add up to
about -1/2 over a few cycles of every worker: the mean is known far better than from as many independent gradients, and
yet a test that takes rows for independent is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asyncq.errors import TooShortError
from asyncq.jsonable import record
from asyncq.statistics.collect.accumulate import Collected

__all__ = ["Dependence", "autocorrelation", "correlation_time", "dependence", "effective_sample_size", "stride"]

MOST_LAGS = 1024
LJUNG_BOX_LAGS = 20
WINDOW = 5.0  # correlation times that the sum of autocorrelations covers (Sokal 1997)
ENOUGH = 50  # correlation times that a series should hold
FEWEST_PAIRS = 200
FEWEST_ROWS = 500
FIRST_STRIDE, LAST_STRIDE = 3, 12  # every 8th to every 4096th row
NEGLIGIBLE = 0.02  # an autocorrelation

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Dependence:
    """Autocorrelation of the staleness of consecutive gradients, and of one worker's consecutive gradients.

    ``autocorrelation[k]`` and its 95 % ``half_widths[k]`` (Bartlett: as if all correlations from lag k on were zero)
    are those of lag k. ``correlation_time`` is 1 + 2 (sum of autocorrelations), the factor by which the variance of a
    mean exceeds that of independent rows, and ``effective_rows`` = ``rows`` over it; both are None where too few rows
    were kept.
    ``own`` is the lag-one autocorrelation of one worker's own gradients, over all workers, with its interval.
    ``ljung_box`` is the p-value of "the first 20 autocorrelations are all zero". ``seen`` are the rows it is based on.
    """

    autocorrelation: Floats
    half_widths: Floats
    correlation_time: float | None
    effective_rows: float | None
    ljung_box: float | None
    own: float | None
    own_ci95: tuple[float, float] | None
    rows: int
    seen: int

    def to_dict(self) -> dict[str, Any]:
        """As the JSON report has it, with the first 64 lags."""
        return record(self, autocorrelation=self.autocorrelation[:65], half_widths=self.half_widths[:65])


def autocorrelation(series: Sequence[ArrayLike], lags: int) -> tuple[Floats, Floats, int]:
    """Autocorrelations of lags 0 .. ``lags`` (fewer if no stretch is that long), their 95 % half-widths (Bartlett), and
    the number of values, from stretches of one stationary series."""
    stretches = [np.asarray(part, dtype=np.float64) for part in series]
    values = sum(part.size for part in stretches)
    lags = max(0, min(lags, max((part.size for part in stretches), default=1) - 1))
    mean = sum(float(part.sum()) for part in stretches) / max(1, values)
    products, pairs = np.zeros(lags + 1), np.zeros(lags + 1)
    for part in stretches:
        reach = min(lags, part.size - 1)
        size = 1 << (part.size + reach).bit_length()
        products[: reach + 1] += np.fft.irfft(np.abs(np.fft.rfft(part - mean, size)) ** 2, size)[: reach + 1]
        pairs[: reach + 1] += part.size - np.arange(reach + 1)
    with np.errstate(invalid="ignore"):
        covariance = np.nan_to_num(products / pairs)
    if covariance[0] <= 1e-12 * max(1.0, mean * mean):
        return np.append(1.0, np.zeros(lags)), np.zeros(lags + 1), values
    found = covariance / covariance[0]
    before = np.concatenate([[0.0, 1.0], 1 + 2 * np.cumsum(found[1:] ** 2)[:-1]])[: lags + 1]
    half = 1.96 * np.sqrt(before / np.maximum(1, pairs))
    half[:1] = 0.0
    return found, half, values


def correlation_time(values: ArrayLike) -> float:
    """The integrated autocorrelation time 1 + 2 (sum of autocorrelations) of a stationary series, by Sokal's window.

    Raises ``TooShortError``, which carries the estimate, for fewer than 50 correlation times."""
    series = np.asarray(values, dtype=np.float64)
    if series.size < 2:
        raise TooShortError("a correlation time needs at least two values", float("nan"))
    found, _, _ = autocorrelation([series], series.size - 1)
    time, window = _windowed(found)
    needed = ENOUGH * max(1.0, time)
    if window is None or series.size < needed:
        raise TooShortError(
            f"{series.size} values are too few for a correlation time of about {time:.3g}; give at least "
            f"{int(2 * needed)}", time
        )  # fmt: skip
    return time


def effective_sample_size(values: ArrayLike) -> float:
    """The number of independent values that give the mean as precisely; raises as :func:`correlation_time` does."""
    return np.asarray(values).size / correlation_time(values)


def _windowed(found: Floats) -> tuple[float, int | None]:
    """The correlation time and the window: the first that holds 5 correlation times, None if there is none."""
    times = 2 * np.cumsum(found) - 1
    inside = np.arange(found.size) >= WINDOW * np.maximum(times, 2.0)
    window = int(np.argmax(inside)) if inside.any() else None
    return float(times[found.size - 1 if window is None else window]), window


def dependence(collected: Collected) -> Dependence:
    """The dependence of the rows of a run, from the blocks kept."""
    from scipy.special import chdtrc

    longest = max((staleness.size for staleness, _ in collected.blocks), default=1)
    lags = min(MOST_LAGS, longest // 4)
    found, half, seen = autocorrelation([staleness for staleness, _ in collected.blocks], lags)
    time = None
    # correlations reach as far as a few cycles, so the window has to as well: the conservation law's are negative
    reach = 4 * collected.workers
    if reach < found.size:
        time = float(max(0.0, 2 * found[: max(reach, int(WINDOW)) + 1].sum() - 1))
    m = min(LJUNG_BOX_LAGS, found.size - 1)
    p_value = None
    if m and seen >= FEWEST_PAIRS and half.any():
        statistic = seen * (seen + 2) * float((found[1 : m + 1] ** 2 / (seen - np.arange(1, m + 1))).sum())
        p_value = float(chdtrc(m, statistic))
    own, own_ci95 = _own(collected)
    return Dependence(
        autocorrelation=found,
        half_widths=half,
        correlation_time=time,
        effective_rows=collected.rows / time if time else None,
        ljung_box=p_value,
        own=own,
        own_ci95=own_ci95,
        rows=collected.rows,
        seen=seen,
    )


def _own(collected: Collected) -> tuple[float | None, tuple[float, float] | None]:
    """The correlation of a gradient's staleness with that of the same worker's next, about the worker's own mean."""
    products = squares = 0.0
    pairs = 0
    means = collected.per_worker.staleness / np.maximum(1, collected.per_worker.rows)
    for staleness, worker in collected.blocks:
        order = np.argsort(worker, kind="stable")
        centred = (staleness - means[worker])[order]
        same = worker[order][1:] == worker[order][:-1]
        products += float((centred[1:] * centred[:-1])[same].sum())
        squares += 0.5 * float((centred[1:] ** 2 + centred[:-1] ** 2)[same].sum())
        pairs += int(same.sum())
    if pairs < FEWEST_PAIRS or squares <= 0:
        return None, None
    own = products / squares
    half = 1.96 / pairs**0.5
    return own, (own - half, own + half)


def stride(collected: Collected, *, fewest_rows: int = FEWEST_ROWS) -> int:
    """The j for which every 2^j-th row is as good as independent: from lag 8 on, the first with a negligible
    autocorrelation there and at twice the lag, or the largest that leaves ``fewest_rows``.

    At lags below 8 two workers' rows reject a true geometric law too often (12 % at lag 1 instead of 5 %)."""
    stretches = [np.asarray(staleness, dtype=np.float64) for staleness, _ in collected.blocks]
    values = sum(part.size for part in stretches)
    last = LAST_STRIDE
    while last > 0 and collected.rows >> last < fewest_rows:
        last -= 1
    first, last = max(FIRST_STRIDE, collected.finest), max(last, collected.finest)
    if last <= first or not values:
        return last
    mean = sum(float(part.sum()) for part in stretches) / values
    centred = [part - mean for part in stretches]
    variance = sum(float(part @ part) for part in centred) / values
    if variance <= 0:
        return first
    bound = max(NEGLIGIBLE, 2.5 / values**0.5)

    def correlation(lag: int) -> float:
        pairs = sum(max(0, part.size - lag) for part in centred)
        product = sum(float(part[lag:] @ part[:-lag]) for part in centred if part.size > lag)
        return product / max(1, pairs) / variance

    for j in range(first, last):
        if all(abs(correlation(lag)) < bound for lag in (1 << j, 2 << j)):
            return j
    return last
