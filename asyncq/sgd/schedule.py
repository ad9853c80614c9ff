"""Schedules of reads: for every update, the versions on which its gradients were computed.

A trace gives its recorded reads with all dependence; a law gives independent draws. Versions are counted from the
start of the replay; reads before it see the starting point, at rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asyncq.engines.rows import Chunk
from asyncq.protocols.state import DOWNWEIGHTED
from asyncq.results.run import Run
from asyncq.staleness import StalenessLaw

__all__ = ["LawSchedule", "Schedule", "TraceSchedule", "schedule_of"]

Whole = NDArray[np.int64]
Real = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Schedule:
    """Reads of a replay. Update t consists of rows ``first[t]`` .. ``first[t + 1]`` - 1. Each row has the version
    ``read`` (0 .. t), a ``weight`` (including division by the number of rows), and a ``staleness``, which may reach
    before the start. ``time``: seconds since the start of each update, if known."""

    first: Whole
    read: Whole
    weight: Real
    staleness: Whole
    time: Real | None = None

    @property
    def updates(self) -> int:
        """Number of updates."""
        return self.first.size - 1


@dataclass(frozen=True, eq=False)
class TraceSchedule:
    """Applied rows of a trace, sorted by update. Replication r uses window r of the trace (cyclically) and
    independent noise."""

    staleness: Whole
    first: Whole  # index of the first row of each update
    weight: Real
    time: Real
    name: str

    @property
    def updates(self) -> int:
        """Number of updates of the whole trace."""
        return self.first.size - 1

    def windows(self, updates: int) -> int:
        """Number of whole windows of the trace."""
        return self.updates // updates

    def draw(self, updates: int, replication: int, generator: np.random.Generator) -> Schedule:
        """The window of a replication."""
        begin = updates * (replication % self.windows(updates))
        first = self.first[begin : begin + updates + 1]
        rows = slice(int(first[0]), int(first[-1]))
        update = np.repeat(np.arange(updates), np.diff(first))
        read = np.maximum(update - self.staleness[rows], 0)
        start = self.time[int(first[0]) - 1] if first[0] > 0 else 0.0
        seconds = self.time[first[1:] - 1] - start
        return Schedule(first - first[0], read, self.weight[rows], self.staleness[rows], seconds)


@dataclass(frozen=True, eq=False)
class LawSchedule:
    """Independent staleness from a law, ``gradients`` draws for each update."""

    law: StalenessLaw
    gradients: int = 1

    @property
    def name(self) -> str:
        """Name of the law, with "independent draws"."""
        return f"{self.law.name}, independent draws"

    def draw(self, updates: int, replication: int, generator: np.random.Generator) -> Schedule:
        """The draws of a replication, independent of the others."""
        update = np.repeat(np.arange(updates), self.gradients)
        support = np.flatnonzero(self.law.pmf)
        if support.size == 1:
            staleness = np.full(update.size, support[0])
        else:
            cumulative = np.cumsum(self.law.pmf)
            staleness = np.searchsorted(cumulative, generator.random(update.size) * cumulative[-1], side="right")
        first = np.arange(0, update.size + 1, self.gradients)
        weight = np.full(update.size, 1.0 / self.gradients)
        return Schedule(first, np.maximum(update - staleness, 0), weight, staleness)


def schedule_of(source: Run | Chunk | StalenessLaw, *, gradients: int = 1) -> TraceSchedule | LawSchedule:
    """Schedules of a run's trace, of a trace, or of a law. Only applied rows of a trace count. A protocol that
    downweights stale gradients needs the run: its trace has no weights.

    Raises ``ValueError`` for a run without trace, a trace with an update without rows, unknown weights, several shards
    (pass the rows of one), and gossip, whose workers have a model each.
    """
    if isinstance(source, StalenessLaw):
        if gradients < 1:
            raise ValueError(f"gradients must be 1 or more (got {gradients!r})")
        return LawSchedule(source, int(gradients))
    if gradients != 1:
        raise ValueError("a trace says itself how many gradients make an update: leave gradients out")
    weigh, name = None, "a trace"
    if isinstance(source, Run):
        if source.trace is None:
            raise ValueError(f"{source.scenario.name}: the run kept no trace: simulate(scenario, trace=True)")
        weigh, name, source = source._network.weight, f"the trace of {source.scenario.name}", source.trace
    if source.neighbour is not None:
        raise ValueError("the trace is of gossip, where every worker steps a copy of its own: there is no one model")
    if source.shard is not None and np.any(source.shard != source.shard[:1]):
        raise ValueError(
            "the trace is of several shards, each with versions of its own: pass the rows of one of them, "
            "trace.pick(np.flatnonzero(trace.shard == 0)), for its part of the model"
        )
    applied = np.flatnonzero(source.fate <= DOWNWEIGHTED)
    if applied.size == 0:
        raise ValueError("the trace has no applied gradient: simulate longer")
    rows = source.pick(applied)
    version = rows.read + rows.staleness
    base = int(version[0])
    counts = np.bincount(version - base)
    if np.any(counts == 0) or np.any(np.diff(version) < 0):
        raise ValueError(f"the trace is not whole: update {base + int(np.argmin(counts))} has no row, or out of order")
    weight = 1.0 / np.repeat(counts, counts)
    late = rows.fate == DOWNWEIGHTED
    if late.any():
        if weigh is None:
            raise ValueError("the trace has downweighted gradients: pass the run, which knows their weights")
        weight = np.where(late, weight * weigh(rows.staleness), weight)
    first = np.concatenate([[0], np.cumsum(counts)])
    return TraceSchedule(rows.staleness, first, weight, rows.time, name)
