"""Staleness and throughput over wall-clock time, through slowdowns and outages, of a run that ends at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncq.engines.rows import Chunk
from asyncq.errors import old_attributes
from asyncq.estimate import Estimate
from asyncq.jsonable import record
from asyncq.protocols.state import DOWNWEIGHTED
from asyncq.statistics.intervals import ratio_of_batches

__all__ = ["Disturbance", "OverTime", "Phase", "TimeBins", "disturbances"]

BINS = 240  # of a run, about
FEWEST = 16  # bins of a phase
WIDEST = 4096  # larger staleness counts as WIDEST - 1
MOST_PHASES = 60


@old_attributes(what="label")
@dataclass(frozen=True)
class Disturbance:
    """A worker slowed or away from ``begins`` to ``until`` (seconds); ``label`` says which, in a few words."""

    label: str
    begins: float
    until: float


@dataclass(frozen=True)
class Phase:
    """A period (seconds) in which the set of active disturbances, ``what``, is constant.

    The bins of the phase are the batches for its intervals (95 %). The mean staleness includes the transition from the
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


@old_attributes(befallen="disturbances")
@dataclass(frozen=True, eq=False)
class OverTime:
    """A run over time, in bins with ``edges`` (seconds), shape (bins + 1,).

    By bin, shape (bins,): ``throughput`` (updates per second; nan if the run took no time), the ``mean`` staleness of
    applied gradients and its 99 % ``quantile`` (nan where none was applied).
    """

    edges: NDArray[np.float64]
    throughput: NDArray[np.float64]
    mean: NDArray[np.float64]
    quantile: NDArray[np.float64]
    phases: tuple[Phase, ...]
    disturbances: tuple[Disturbance, ...]
    unit: str


class TimeBins:
    """Counts the rows by the time of their updates, up to ``until`` (seconds); memory does not grow with the run. Of a
    sharded server it counts the first shard."""

    def __init__(self, known: Iterable[Disturbance], until: float, unit: str) -> None:
        self.unit = unit
        self.disturbances = tuple(
            Disturbance(one.label, one.begins, min(one.until, until)) for one in known if one.begins < until
        )
        inner = sorted({edge for one in self.disturbances for edge in (one.begins, one.until) if 0 < edge < until})
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
        """Count a chunk; chunks come in order, each once."""
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
        """The bins and phases up to ``ended`` (seconds)."""
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
            disturbances=self.disturbances,
            unit=self.unit,
        )

    def _phase(self, low: float, high: float, edges: NDArray[np.float64], lasted: NDArray[np.float64]) -> Phase:
        own = np.flatnonzero((edges[:-1] >= low) & (edges[:-1] < high))
        rows, sums = self._rows[own].astype(float), self._sums[own].astype(float)
        updates = self._updates[own].astype(float)
        return Phase(
            begins=low,
            until=min(high, float(edges[-1])),
            what=tuple(dict.fromkeys(one.label for one in self.disturbances if one.begins <= low < one.until)),
            updates=int(updates.sum()),
            throughput=ratio_of_batches(updates, lasted[own], unit=f"{self.unit} per second"),
            staleness=ratio_of_batches(sums, rows, unit=self.unit),
        )


def disturbances(slowdowns: Iterable[Any], outages: Iterable[Any]) -> list[Disturbance]:
    """The disturbances of a scenario's tables, labelled by worker and kind."""

    def pace(factor: float) -> str:
        return f"{factor:g} times slower" if factor >= 1 else f"{1 / factor:g} times faster"

    slow = [Disturbance(f"{one.worker} {pace(one.factor)}", one.begins, one.until) for one in slowdowns]
    return [*slow, *(Disturbance(f"{one.worker} away", one.begins, one.until) for one in outages)]
