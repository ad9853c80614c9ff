"""Chunks of rows folded into sums of bounded size; the same code for every engine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asyncq.engines import Chunk
from asyncq.network import Network
from asyncq.protocols import DOWNWEIGHTED, KIND_NAMES

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
        self.per_worker = np.zeros((3, network.workers))  # rows, sum and sum of squares of their staleness
        self.batch_rows = 1
        self._has_server = network.has_server
        # time, version, visits, waited, busy at the end of the warm-up and at the end of every batch
        self._ends = np.zeros((BATCHES + 1, 5))
        self._sums = np.zeros((BATCHES, 2))  # staleness, staleness squared
        self._batches = 0
        self._carry = np.zeros(2)

    def fold(self, chunk: Chunk) -> None:
        """Take one chunk in; chunks come in order, each once."""
        before = chunk.read + chunk.staleness
        after_warmup = before >= self.warmup
        if not after_warmup.all():
            cold = np.flatnonzero(~after_warmup & (chunk.kind <= DOWNWEIGHTED))
            if cold.size:
                self._ends[0] = self._totals(chunk, cold[-1:])[0]
        self.kinds += np.bincount(chunk.kind[after_warmup], minlength=len(KIND_NAMES))
        keep = np.flatnonzero(after_warmup & (chunk.kind <= DOWNWEIGHTED))
        if keep.size == 0:
            return
        staleness = chunk.staleness[keep]
        self._fold_histograms(staleness)
        self._fold_workers(chunk.worker[keep], staleness)
        self._fold_batches(staleness, self._totals(chunk, keep))
        self.rows += keep.size

    # -- parts ----------------------------------------------------------------------------------------------------

    def _totals(self, chunk: Chunk, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        totals = np.zeros((rows.size, 5))
        totals[:, 0] = chunk.time[rows]
        totals[:, 1] = chunk.read[rows] + chunk.staleness[rows] + 1
        if self._has_server:
            for column, total in enumerate((chunk.visits, chunk.waited, chunk.busy), start=2):
                assert total is not None, "a network with a server has station totals"
                totals[:, column] = total[rows]
        return totals

    def _fold_histograms(self, staleness: NDArray[np.int64]) -> None:
        longest = int(staleness.max()) + 1
        for j, histogram in enumerate(self.histograms):
            stride = 1 << j
            picked = staleness[-self.rows % stride :: stride]
            if longest > histogram.size:
                histogram = np.concatenate([histogram, np.zeros(max(longest, 2 * histogram.size), dtype=np.int64)])
                self.histograms[j] = histogram
            if picked.size:
                counts = np.bincount(picked)
                histogram[: counts.size] += counts

    def _fold_workers(self, worker: NDArray[np.int64], staleness: NDArray[np.int64]) -> None:
        size = self.per_worker.shape[1]
        value = staleness.astype(np.float64)
        self.per_worker[0] += np.bincount(worker, minlength=size)
        self.per_worker[1] += np.bincount(worker, weights=value, minlength=size)
        self.per_worker[2] += np.bincount(worker, weights=value * value, minlength=size)

    def _fold_batches(self, staleness: NDArray[np.int64], totals: NDArray[np.float64]) -> None:
        value = staleness.astype(np.float64)
        sums = np.zeros((staleness.size + 1, 2))
        np.cumsum(value, out=sums[1:, 0])
        np.cumsum(value * value, out=sums[1:, 1])
        sums += self._carry
        closed = 0  # rows of this chunk that stand in a closed batch
        while True:
            first = -(self.rows + closed) % self.batch_rows or self.batch_rows
            ends = np.arange(closed + first, staleness.size + 1, self.batch_rows)[: BATCHES - self._batches]
            if ends.size:
                previous = np.concatenate([[0.0, 0.0] if closed == 0 else sums[closed], sums[ends[:-1]].ravel()])
                self._sums[self._batches : self._batches + ends.size] = sums[ends] - previous.reshape(-1, 2)
                self._ends[self._batches + 1 : self._batches + 1 + ends.size] = totals[ends - 1]
                self._batches += ends.size
                closed = int(ends[-1])
            if self._batches < BATCHES:
                break
            self._merge_pairs()
        self._carry = sums[-1] - (sums[closed] if closed else 0.0)

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
