"""Chunks of rows folded into sums of bounded size; the same code for every engine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asyncq.engines import Chunk
from asyncq.network import Network
from asyncq.protocols import COMMITTED, DOWNWEIGHTED, KIND_NAMES

__all__ = ["BATCHES", "STRIDES", "Accumulator"]

BATCHES = 2048
STRIDES = 13  # histograms of every 2^j-th row, j = 0 .. 12


class Accumulator:
    """What is remembered of the rows after the first ``warmup`` updates. Memory does not grow with their number.

    ``histograms[j]`` counts the staleness of every 2^j-th applied row; ``batches`` are sums over equal numbers of
    applied rows, merged pairwise when ``BATCHES`` are full.
    """

    def __init__(self, network: Network, *, warmup: int) -> None:
        self.warmup = warmup
        self.rows = 0
        self.kinds = np.zeros(len(KIND_NAMES), dtype=np.int64)
        self.histograms = [np.zeros(64, dtype=np.int64) for _ in range(STRIDES)]
        self.per_worker = np.zeros((2, network.workers))  # rows and the sum of their staleness
        self.batch_rows = 1
        # time, version, visits, waited, busy at the end of the warm-up and at the end of every batch
        self._ends = np.zeros((BATCHES + 1, 5))
        self._sums = np.zeros((BATCHES, 2))  # staleness, staleness squared
        self._batches = 0
        self._open = np.zeros(2)  # the sums of the batch that is not full yet
        self._cold = warmup > 0

    def fold(self, chunk: Chunk) -> None:
        """Take one chunk in; chunks come in order, each once."""
        if self._cold:
            before = chunk.read + chunk.staleness
            early = int(np.searchsorted(before, self.warmup))
            cold = np.flatnonzero(chunk.kind[:early] <= DOWNWEIGHTED)
            if cold.size:
                self._ends[0] = _totals(chunk, cold[-1:])[0]
            self._cold = early == before.size
            chunk = chunk.pick(slice(early, None))
        if chunk.kind.any():
            self.kinds += np.bincount(chunk.kind, minlength=len(KIND_NAMES))
            chunk = chunk.pick(np.flatnonzero(chunk.kind <= DOWNWEIGHTED))
        else:
            self.kinds[COMMITTED] += chunk.kind.size
        if chunk.kind.size:
            self._fold_histograms(chunk.staleness)
            size = self.per_worker.shape[1]
            self.per_worker[0] += np.bincount(chunk.worker, minlength=size)
            self.per_worker[1] += np.bincount(chunk.worker, weights=chunk.staleness, minlength=size)
            self._fold_batches(chunk)
            self.rows += chunk.kind.size

    def _fold_histograms(self, staleness: NDArray[np.int64]) -> None:
        for j, histogram in enumerate(self.histograms):
            stride = 1 << j
            picked = staleness[-self.rows % stride :: stride]
            if not picked.size:
                continue
            counts = np.bincount(picked)
            if counts.size > histogram.size:
                room = max(counts.size - histogram.size, histogram.size)
                self.histograms[j] = histogram = np.concatenate([histogram, np.zeros(room, dtype=np.int64)])
            histogram[: counts.size] += counts

    def _fold_batches(self, chunk: Chunk) -> None:
        rows = chunk.staleness.size
        first = 0  # of the rows that stand in no closed batch yet
        while True:
            short = self.batch_rows - (self.rows + first) % self.batch_rows  # rows that the open batch lacks
            ends = np.arange(first + short, rows + 1, self.batch_rows)[: BATCHES - self._batches]
            if ends.size:
                starts = np.concatenate([[first], ends[:-1]])
                value = chunk.staleness[first : ends[-1]]
                here = slice(self._batches, self._batches + ends.size)
                self._sums[here, 0] = np.add.reduceat(value, starts - first)
                self._sums[here, 1] = np.add.reduceat(value * value, starts - first)
                self._sums[self._batches] += self._open
                self._ends[1:][here] = _totals(chunk, ends - 1)
                self._batches += ends.size
                self._open[:] = 0.0
                first = int(ends[-1])
            if self._batches < BATCHES:
                break
            self._merge_pairs()
        rest = chunk.staleness[first:]
        self._open += rest.sum(), rest @ rest

    def _merge_pairs(self) -> None:
        half = BATCHES // 2
        self._sums[:half] = self._sums[0::2] + self._sums[1::2]
        self._ends[1 : half + 1] = self._ends[2::2]
        self._batches = half
        self.batch_rows *= 2

    # -- what it says ---------------------------------------------------------------------------------------------

    @property
    def histogram(self) -> NDArray[np.int64]:
        """Counts of the staleness of applied rows, without trailing zeros (at least one cell)."""
        return self.thinned(0)

    def thinned(self, j: int) -> NDArray[np.int64]:
        """Counts of the staleness of every 2^j-th applied row, without trailing zeros (at least one cell)."""
        filled = np.flatnonzero(self.histograms[j])
        return self.histograms[j][: filled[-1] + 1 if filled.size else 1]

    def batches(self, count: int) -> NDArray[np.float64]:
        """About ``count`` equal batches in order, shape (batches, 8): rows, sums of staleness and its square, then
        the seconds, updates, visits, seconds waited and seat-seconds that passed."""
        together = max(1, self._batches // count)
        used = self._batches // together * together
        sums = self._sums[:used].reshape(-1, together, 2).sum(axis=1)
        ends = self._ends[: used + 1 : together]
        rows = np.full((len(sums), 1), float(together * self.batch_rows))
        return np.hstack([rows, sums, np.diff(ends, axis=0)])


def _totals(chunk: Chunk, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Seconds, updates and the station's totals as they stand after each of the rows, shape (rows, 5)."""
    totals = np.zeros((rows.size, 5))
    totals[:, 0] = chunk.time[rows]
    totals[:, 1] = chunk.read[rows] + chunk.staleness[rows] + 1
    for column, total in enumerate((chunk.visits, chunk.waited, chunk.busy), start=2):
        if total is not None:
            totals[:, column] = total[rows]
    return totals
