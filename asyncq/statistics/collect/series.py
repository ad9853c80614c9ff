"""The series that a run's rows make: the staleness at every shard, and a second count of each gradient beside it.

A sharded server has a version for each shard, so each has a staleness of its own, and each gradient a stalest part.
"""

from __future__ import annotations

import numpy as np

from asyncq.engines.rows import Chunk
from asyncq.estimate import Estimate
from asyncq.protocols.state import DOWNWEIGHTED
from asyncq.statistics.collect.accumulate import Accumulator
from asyncq.statistics.collect.classes import ByClass
from asyncq.statistics.intervals import ratio_of_batches
from asyncq.statistics.steady_state import warm_up
from asyncq.system.network import Network

__all__ = ["Collector", "mean_of"]


class Collector:
    """Chunks of rows dealt to accumulators: ``shards``, one for each (the only one without shards), and ``beside``,
    which takes the second count for a staleness (that of a gradient's stalest part, the averagings of its worker's
    copy, or that from the last version of a sample), and ``classes``, where clients are called; None where there is
    none."""

    def __init__(self, network: Network, *, warmup: int, compiled: bool = False) -> None:
        def fresh() -> Accumulator:
            return Accumulator(network, warmup=warmup, compiled=compiled)

        self.shards = [fresh() for _ in range(network.shards)]
        self.beside = fresh() if network.is_sharded or network.kind.peers or network.reads_on else None
        self.averages = network.kind.peers
        self.classes = None if network.clients is None else ByClass(network)
        self._whole = 0  # gradients that every shard has applied

    def fold(self, chunk: Chunk) -> None:
        """Take one chunk in; chunks come in order, each once."""
        if self.classes is not None:
            self.classes.fold(chunk)
            chunk = chunk._replace(client=None)
        if self.beside is None or chunk.shard is None:
            self.shards[0].fold(chunk)
            if self.beside is not None:
                self.beside.fold(chunk.counted_by(chunk.averagings if self.averages else chunk.last_staleness))
            return
        assert chunk.stalest is not None
        shard, stalest = chunk.shard.astype(np.uint8), chunk.stalest
        chunk = chunk._replace(shard=None, stalest=None)
        order = np.argsort(shard, kind="stable")  # of so narrow numbers in linear time
        if chunk.fate.any():
            ordered = chunk.pick(order)
        else:  # all committed, in whatever order
            ordered = chunk._replace(fate=None).pick(order)._replace(fate=chunk.fate)  # type: ignore[arg-type]
        ends = np.cumsum(np.bincount(shard, minlength=len(self.shards))).tolist()
        for accumulator, first, last in zip(self.shards, [0, *ends], ends, strict=False):
            if last > first:
                accumulator.fold(ordered.pick(slice(first, last)))
        complete = np.flatnonzero((stalest >= 0) & (chunk.fate <= DOWNWEIGHTED))
        if complete.size:
            updates = np.arange(self._whole, self._whole + complete.size)
            self._whole += complete.size
            count = stalest[complete]
            chunk = chunk._replace(visits=None, waited=None, busy=None).pick(complete)
            self.beside.fold(chunk._replace(staleness=count, read=updates - count))

    @property
    def rows(self) -> int:
        """Rows that count, of the series with the fewest."""
        return min(one.rows for one in self.shards)

    def averagings(self, *, auto: bool) -> Estimate | None:
        """In gossip the mean number of averagings of a copy between a gradient's read and its application."""
        if self.beside is None or not self.averages:
            return None
        return mean_of(self.beside, unit="averagings", auto=auto)


def mean_of(accumulator: Accumulator, *, unit: str, auto: bool) -> Estimate:
    """The mean of an accumulator's counts; ``auto``: after the warm-up that is found in them."""
    collected = accumulator.collected(warm_up(accumulator).rows if auto else 0)
    rows, sums = collected.batches.T[:2]
    return ratio_of_batches(sums, rows, unit=unit, smallest=collected.cycle)
