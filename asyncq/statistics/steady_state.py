"""The warm-up to leave out: MSER-5 (White 1997), and at least ten cycles of every worker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asyncq.errors import TooShortError
from asyncq.statistics.collect.accumulate import Accumulator, Collected

__all__ = ["CYCLES", "WarmUp", "mser", "truncation", "warm_up"]

CYCLES = 10  # most laws forget within these that all workers started at once
GROUP = 5
FEWEST_GROUPS = 10
NEAR = 0.02  # of the minimum, within chance: the shortest truncation this near is taken


@dataclass(frozen=True)
class WarmUp:
    """The warm-up: leave out the first ``rows``, a boundary of the accumulator, at least ``needed`` unless the run is
    too short; then ``enough`` rows would do. ``asked`` are the rows to leave out by series, of which ``series`` asks
    for the most."""

    rows: int
    needed: int
    series: str
    asked: dict[str, int]
    enough: int | None = None


def mser(values: ArrayLike) -> NDArray[np.float64]:
    """The MSER criterion for leaving out the first 0, 1, 2, ... values, at most half: the variance of the rest over its
    size. Its minimum is the truncation. Shape (n // 2 + 1,)."""
    series = np.asarray(values, dtype=np.float64)
    n = series.size
    left = np.arange(n, n - n // 2 - 1, -1)
    centred = series - series[n // 2 :].mean()
    sums = np.cumsum(centred[::-1])[::-1][: left.size]
    squares = np.cumsum(centred[::-1] ** 2)[::-1][: left.size]
    return np.asarray((squares - sums**2 / left) / left.astype(np.float64) ** 2)


def truncation(values: ArrayLike) -> int:
    """The number of values to leave out at the start, by MSER-5.

    Raises ``TooShortError``, which carries the estimate, if the minimum is in the last tenth of the first half: the
    series has not settled."""
    series = np.asarray(values, dtype=np.float64)
    found = _groups_to_drop(series)
    if found is None:
        raise TooShortError(f"{series.size} values are too few for MSER-5; give at least {GROUP * FEWEST_GROUPS}", 0)
    groups = series.size // GROUP
    if found >= 0.45 * groups:
        raise TooShortError(
            f"the series has not settled within {series.size} values: MSER-5 would leave out {found * GROUP}; "
            f"give at least {4 * found * GROUP}", found * GROUP
        )  # fmt: skip
    return found * GROUP


def _groups_to_drop(series: NDArray[np.float64]) -> int | None:
    groups = series.size // GROUP
    if groups < FEWEST_GROUPS:
        return None
    means = series[: groups * GROUP].reshape(groups, GROUP).mean(axis=1)
    criterion = mser(means)
    return int(np.argmax(criterion <= (1 + NEAR) * criterion.min()))


def series_of(collected: Collected) -> dict[str, NDArray[np.float64]]:
    """The series that the warm-up is looked for in, by name: values by batch, in order."""
    b = collected.batches
    values = {
        "staleness": b.staleness / b.rows,
        "squared staleness": b.squares / b.rows,
        "time between updates": b.seconds,
    }
    return {**values, "waiting": b.waited} if b.visits.any() else values


def warm_up(accumulator: Accumulator) -> WarmUp:
    """Search for the warm-up of a run accumulated from its start."""
    collected = accumulator.collected()
    asked = {
        name: (_groups_to_drop(values) or 0) * GROUP * collected.batch_rows
        for name, values in series_of(collected).items()
    }
    floor = CYCLES * collected.workers
    series = max(asked, key=lambda name: asked[name])
    needed = max(asked[series], floor)
    limit = collected.rows // 2
    allowed = [rows for rows in accumulator.boundaries if rows <= limit]
    settled = [rows for rows in allowed if rows >= needed]
    unsettled = needed > limit or asked[series] >= 0.45 * collected.rows
    return WarmUp(
        rows=settled[0] if settled else allowed[-1],
        needed=needed,
        series=series if asked[series] > floor else "ten cycles of every worker",
        asked=asked,
        enough=4 * needed if unsettled else None,
    )
