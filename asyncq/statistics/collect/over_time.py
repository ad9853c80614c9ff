"""Staleness and throughput over wall-clock time: what a run that ends at a time shows of slowdowns and outages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asyncq.engines.rows import Chunk
from asyncq.estimate import Estimate
from asyncq.jsonable import record
from asyncq.protocols.state import DOWNWEIGHTED
from asyncq.statistics.intervals import ratio_of_batches

if TYPE_CHECKING:
    from asyncq.scenario import Scenario

__all__ = ["Befallen", "OverTime", "Phase", "TimeBins"]

BINS = 240  # that a run is cut into, about
FEWEST = 16  # bins of a phase
WIDEST = 4096  # staleness told apart; what is beyond counts as this
MOST_PHASES = 60


@dataclass(frozen=True)
class Befallen:
    """What befalls a worker from ``begins`` to ``until`` (seconds), in a few words."""

    what: str
    begins: float
    until: float


@dataclass(frozen=True)
class Phase:
    """Between two instants (seconds) nothing begins and nothing is over; ``what`` is on meanwhile, if anything.

    Intervals (95 %) are from the bins of the phase as batches. The mean staleness includes the transition from the
    phase before.
    """

    begins: float
    until: float
    what: tuple[str, ...]
    updates: int
    throughput: Estimate
    staleness: Estimate

    def to_dict(self) -> dict[str, Any]:
        """As the JSON report has it."""
        return {"from": self.begins, **record(self, without=("begins",))}


@dataclass(frozen=True, eq=False)
class OverTime:
    """A run over time, in bins with ``edges`` (seconds), shape (bins + 1,).

    In each of them, shape (bins,): ``throughput`` (updates per second; nan if the run took no time), the ``mean``
    staleness of what was applied and its 99 % ``quantile`` (nan where nothing was).
    """

    edges: NDArray[np.float64]
    throughput: NDArray[np.float64]
    mean: NDArray[np.float64]
    quantile: NDArray[np.float64]
    phases: tuple[Phase, ...]
    befallen: tuple[Befallen, ...]
    unit: str


class TimeBins:
    """What is remembered of the rows by the time of their updates; memory does not grow with their number. Of a server
    of several shards it is the first."""

    def __init__(self, scenario: Scenario, until: float, unit: str) -> None:
        self.unit = unit
        self.befallen = tuple(
            Befallen(words, window.begins, min(window.until, until))
            for words, window in _windows(scenario)
            if window.begins < until
        )
        inner = sorted({edge for one in self.befallen for edge in (one.begins, one.until) if 0 < edge < until})
        self._phases = [0.0, *inner, until] if len(inner) < MOST_PHASES else [0.0, until]
        pieces = [
            np.linspace(low, high, max(FEWEST, round(BINS * (high - low) / until)), endpoint=False)
            for low, high in pairwise(self._phases)
        ]
        self.edges = np.append(np.concatenate(pieces), until)
        bins = self.edges.size - 1
        self._updates = np.zeros(bins, dtype=np.int64)
        self._rows = np.zeros(bins, dtype=np.int64)
        self._sums = np.zeros(bins, dtype=np.int64)
        self._counts = np.zeros((bins, 64), dtype=np.int64)
        self._version = 0

    def fold(self, chunk: Chunk) -> None:
        """Take one chunk in; chunks come in order, each once."""
        applied = chunk.fate <= DOWNWEIGHTED
        rows = np.flatnonzero(applied if chunk.shard is None else applied & (chunk.shard == 0))
        if not rows.size:
            return
        bins = self._updates.size
        place = np.clip(np.searchsorted(self.edges, chunk.time[rows], side="right") - 1, 0, bins - 1)
        made = chunk.read[rows] + chunk.staleness[rows] + 1
        new = np.diff(made, prepend=self._version) > 0
        self._version = int(made[-1])
        late = chunk.staleness[rows]
        self._updates += np.bincount(place[new], minlength=bins)
        self._rows += np.bincount(place, minlength=bins)
        self._sums += np.bincount(place, weights=late, minlength=bins).astype(np.int64)
        late = np.minimum(late, WIDEST - 1)
        while self._counts.shape[1] <= late.max():
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)], axis=1)
        width = self._counts.shape[1]
        self._counts += np.bincount(place * width + late, minlength=bins * width).reshape(bins, width)

    def result(self, ended: float) -> OverTime:
        """Everything up to ``ended`` (seconds)."""
        bins = max(1, int(np.searchsorted(self.edges, ended)))
        edges = np.append(self.edges[:bins], ended)
        lasted = np.diff(edges)
        rows = self._rows[:bins]
        below = np.cumsum(self._counts[:bins], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.where(rows > 0, self._sums[:bins] / rows, np.nan)
            throughput = np.where(lasted > 0, self._updates[:bins] / lasted, np.nan)
        quantile = np.where(rows > 0, (below < 0.99 * rows[:, None]).sum(axis=1), np.nan)
        return OverTime(
            edges=edges,
            throughput=throughput,
            mean=mean,
            quantile=quantile,
            phases=tuple(self._phase(low, high, edges, lasted) for low, high in pairwise(self._phases) if low < ended),
            befallen=self.befallen,
            unit=self.unit,
        )

    def _phase(self, low: float, high: float, edges: NDArray[np.float64], lasted: NDArray[np.float64]) -> Phase:
        own = np.flatnonzero((edges[:-1] >= low) & (edges[:-1] < high))
        rows, sums = self._rows[own].astype(float), self._sums[own].astype(float)
        updates = self._updates[own].astype(float)
        return Phase(
            begins=low,
            until=min(high, float(edges[-1])),
            what=tuple(dict.fromkeys(one.what for one in self.befallen if one.begins <= low < one.until)),
            updates=int(updates.sum()),
            throughput=ratio_of_batches(updates, lasted[own], unit=f"{self.unit} per second"),
            staleness=ratio_of_batches(sums, rows, unit=self.unit),
        )


def _windows(scenario: Scenario) -> Sequence[tuple[str, Any]]:
    def pace(factor: float) -> str:
        return f"{factor:g} times slower" if factor >= 1 else f"{1 / factor:g} times faster"

    slow = [(f"{one.worker} {pace(one.factor)}", one) for one in scenario.slowdown]
    return [*slow, *((f"{one.worker} away", one) for one in scenario.outage)]
