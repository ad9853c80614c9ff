"""Chunks of rows folded into sums of bounded size; the same code for every engine.

Everything is counted in integers, so that engines agree to the last bit. The sums are kept so that what is learnt only
at the end can still be used: the warm-up (sums are copied whenever the rows reach a power of two, the *boundaries*, and
what stands before the one chosen is subtracted), the thinning (histograms of every 2^j-th row), the batch size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asyncq.engines import Chunk
from asyncq.network import Network
from asyncq.protocols import COMMITTED, DOWNWEIGHTED, KIND_NAMES
from asyncq.statistics.counting import BITS, kernel

__all__ = ["BATCHES", "BLOCKS", "BLOCK_ROWS", "PARTS", "STRIDES", "Accumulator", "Collected"]

BATCHES = 2048
PARTS = 64  # with a histogram each
BLOCKS = 16  # of consecutive rows kept as they are
BLOCK_ROWS = 4096
STRIDES = 13  # histograms of every 2^j-th row, j = 0 .. 12
FIRST_PART = 16  # rows
FIRST_BOUNDARY = 64  # rows; a power of two, as all these are
MOST_AT_ONCE = 32_768  # rows
DENSE = 65_536  # staleness from min(64 workers, DENSE) on is counted in sorted pairs
NARROW = 65_536  # cells that are cheap to clear for every chunk
FEW_PARTS = 8

Integers = NDArray[np.int64]


class _Snapshot(NamedTuple):
    """What had been counted at a boundary."""

    levels: Integers
    beyond: tuple[Integers, Integers]
    per_worker: Integers
    kinds: Integers
    totals: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Collected:
    """What was counted of the rows after a warm-up.

    ``warmup`` (updates) and ``seconds`` are when it ended. ``levels[j]`` counts the staleness of the rows with a number
    that 2^j is the highest power of two to divide (2^12: or a higher one). ``batches`` are equal batches of
    ``batch_rows`` rows in order, shape (batches, 8): rows, sums of staleness and its square, then the seconds,
    updates, visits, seconds waited and seat-seconds that passed. ``parts`` are the histograms of consecutive
    ``part_rows`` rows (staleness beyond the last column left out); ``blocks`` the staleness and the worker of
    ``BLOCK_ROWS`` consecutive rows, or fewer at the run's end, from places spread evenly over the run.
    """

    workers: int
    warmup: int
    rows: int
    kinds: Integers
    levels: Integers
    per_worker: Integers  # [2, workers] rows and the sum of their staleness
    batch_rows: int
    batches: NDArray[np.float64]
    part_rows: int
    parts: Integers
    blocks: tuple[tuple[NDArray[np.int32], NDArray[np.int32]], ...] = field(default=())

    @property
    def cycle(self) -> int:
        """How many batches hold a gradient of every worker, or more: no interval should rest on shorter ones."""
        return -(-self.workers // self.batch_rows)

    @property
    def histogram(self) -> Integers:
        """Counts of the staleness of applied rows, without trailing zeros (at least one cell)."""
        return self.thinned(0)

    def thinned(self, j: int) -> Integers:
        """Counts of the staleness of every 2^j-th applied row, without trailing zeros (at least one cell)."""
        counts = self.levels[j:].sum(axis=0)
        filled = np.flatnonzero(counts)
        return np.asarray(counts[: filled[-1] + 1 if filled.size else 1])


@cache
def _levels(width: int) -> Integers:
    """``width`` times the number of trailing zero bits, at most 12, of 0, 1, 2, ...: 0 counts as 12."""
    numbers = np.arange(MOST_AT_ONCE + (1 << (STRIDES - 1)))
    level = np.full(numbers.size, STRIDES - 1)
    for j in reversed(range(STRIDES - 1)):
        level[numbers % (2 << j) == 1 << j] = j
    table = level * width
    table.setflags(write=False)
    return np.asarray(table)


class Accumulator:
    """What is remembered of the rows after the first ``warmup`` updates. Memory does not grow with their number.

    If ``compiled``, rows are counted by machine code (needs numba): the same numbers, at a quarter of the time."""

    def __init__(self, network: Network, *, warmup: int, compiled: bool = False) -> None:
        self._kernel = kernel() if compiled else None
        self.warmup = warmup
        self.workers = network.workers
        self.rows = 0
        self._kinds = np.zeros(len(KIND_NAMES), dtype=np.int64)
        self._dense = max(64, min(64 * network.workers, DENSE))
        self._counts = np.zeros((STRIDES, 64), dtype=np.int64)
        self._seen = 0  # the largest staleness in it
        self._beyond = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)  # staleness * 16 + level, how often
        self._per_worker = np.zeros((2, network.workers), dtype=np.int64)
        self._by_worker = np.zeros(network.workers, dtype=np.int64)  # not in it yet: number and sum in one
        self._packed = 0  # rows
        self._part_rows = FIRST_PART
        self._parts = np.zeros((PARTS, 64), dtype=np.int64)
        self._batch_rows = 1
        # time, version, visits, waited, busy at the end of the warm-up and at the end of every batch
        self._ends = np.zeros((BATCHES + 1, 5))
        self._sums = np.zeros((BATCHES + 1, 2), dtype=np.int64)  # staleness, staleness squared; the last one is open
        self._gap = 1  # every so many blocks one is kept
        self._blocks: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
        self._boundary = FIRST_BOUNDARY
        self._snapshots: dict[int, _Snapshot] = {}
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
        if np.count_nonzero(chunk.kind):
            self._fold_mixed(chunk)
        else:
            self._kinds[COMMITTED] += chunk.kind.size
            self._fold_applied(chunk)

    def _fold_mixed(self, chunk: Chunk) -> None:
        """Rows of several kinds: those that are applied count, and at a boundary the kinds before it do."""
        applied = np.flatnonzero(chunk.kind <= DOWNWEIGHTED)
        done = first = 0
        while (left := self._boundary - self.rows) <= applied.size - done:
            done += left
            last = int(applied[done - 1]) + 1
            self._kinds += np.bincount(chunk.kind[first:last], minlength=len(KIND_NAMES))
            self._fold_applied(chunk.pick(applied[done - left : done]))
            first = last
        self._kinds += np.bincount(chunk.kind[first:], minlength=len(KIND_NAMES))
        self._fold_applied(chunk.pick(applied[done:]))

    def _fold_applied(self, chunk: Chunk) -> None:
        first, rows = 0, chunk.staleness.size
        while first < rows:
            last = min(rows, first + min(self._boundary - self.rows, MOST_AT_ONCE))
            here = chunk if last - first == rows else chunk.pick(slice(first, last))
            top = int(here.staleness.max())
            if self._kernel is not None and top < self._dense:
                self._fold_compiled(here, top)
            else:
                self._fold_histograms(here.staleness, top)
                self._fold_workers(here)
                self._fold_sums(here.staleness)
            if self._kernel is None or top >= self._dense or here.busy is not None:
                self._mark_ends(here)
            self._keep_blocks(here)
            self.rows += last - first
            first = last
            if self.rows == self._boundary:
                self._cross(_totals(chunk, np.array([last - 1]))[0], rows - last)

    def _cross(self, totals: NDArray[np.float64], ahead: int) -> None:
        """At a boundary: remember what was counted, less the ``ahead`` rows after it, and halve what is full."""
        if self.rows >= self.workers:  # nobody would cut off less than a cycle
            self._unpack()
            kinds = self._kinds.copy()
            kinds[COMMITTED] -= ahead
            levels = self._all_levels()
            self._snapshots[self.rows] = _Snapshot(levels, self._beyond, self._per_worker.copy(), kinds, totals)
        self._boundary *= 2
        if self.rows == PARTS * self._part_rows:
            half, seen = PARTS // 2, slice(self._seen + 1)
            self._parts[:half, seen] = self._parts[0::2, seen] + self._parts[1::2, seen]
            self._parts[half:, seen] = 0
            self._part_rows *= 2
        if self.rows == BATCHES * self._batch_rows:
            half = BATCHES // 2
            self._sums[:half] = self._sums[0:BATCHES:2] + self._sums[1:BATCHES:2]
            self._ends[1 : half + 1] = self._ends[2::2]
            self._sums[half:] = 0
            self._batch_rows *= 2

    def _fold_compiled(self, chunk: Chunk, top: int) -> None:
        assert self._kernel is not None
        self._make_room(top)
        self._kernel(
            chunk.staleness, chunk.worker, chunk.read, chunk.time, self.rows,
            _levels(1)[: 1 << (STRIDES - 1)], self._counts,
            self._parts, self._part_rows.bit_length() - 1, self._by_worker,
            self._sums, self._ends, self._batch_rows.bit_length() - 1,
        )  # fmt: skip
        self._packed += chunk.staleness.size
        if self._packed * self._dense >= 1 << (BITS - 1):
            self._unpack()

    def _unpack(self) -> None:
        """Before a sum or a number of rows outgrows its bits."""
        self._per_worker[0] += self._by_worker >> BITS
        self._per_worker[1] += self._by_worker & ((1 << BITS) - 1)
        self._by_worker[:] = 0
        self._packed = 0

    def _make_room(self, top: int) -> None:
        self._seen = max(self._seen, top)
        if top >= self._counts.shape[1]:
            width = min(self._dense, max(top + 1, 2 * self._counts.shape[1]))
            self._counts = _widened(self._counts, width)
            self._parts = _widened(self._parts, width)

    def _fold_histograms(self, staleness: Integers, top: int) -> None:
        rows = staleness.size
        level = _levels(1)[self.rows % (1 << (STRIDES - 1)) :][:rows]
        start = self.rows  # of the rows counted in dense cells; None if some are left out
        numbers = None
        if top >= self._dense:
            far = staleness >= self._dense
            self._beyond = _merged(self._beyond, staleness[far] * 16 + level[far])
            numbers = np.flatnonzero(~far) + start
            staleness, level = staleness[~far], level[~far]
            if not staleness.size:
                return
            top = int(staleness.max())
        self._make_room(top)
        width = 1 << (top + 1).bit_length()
        size = self._part_rows
        first, last = start // size, (start + rows - 1) // size
        if width * STRIDES <= NARROW:
            if numbers is None:
                key = staleness + _levels(width)[start % (1 << (STRIDES - 1)) :][:rows]
            else:
                key = staleness + level * width
            counts = np.bincount(key, minlength=STRIDES * width).reshape(STRIDES, width)[:, : top + 1]
            self._counts[:, : top + 1] += counts
            if first == last:
                self._parts[first, : top + 1] += counts.sum(axis=0)
        else:
            np.add.at(self._counts.reshape(-1), staleness + level * self._counts.shape[1], 1)
            if first == last:
                self._parts[first, : top + 1] += np.bincount(staleness)
        if first != last and numbers is None and last - first < FEW_PARTS:
            for part in range(first, last + 1):
                counts = np.bincount(staleness[max(0, part * size - start) : (part + 1) * size - start])
                self._parts[part, : counts.size] += counts
        elif first != last:
            shift = size.bit_length() - 1
            number = (np.arange(start, start + rows) if numbers is None else numbers) >> shift
            np.add.at(self._parts.reshape(-1), staleness + number * self._parts.shape[1], 1)

    def _fold_workers(self, chunk: Chunk) -> None:
        rows = chunk.staleness.size
        if self.workers > MOST_AT_ONCE:
            np.add.at(self._per_worker[0], chunk.worker, 1)
            np.add.at(self._per_worker[1], chunk.worker, chunk.staleness)
        elif self._counts.shape[1] * rows < 1 << BITS and not self._beyond[0].size:
            both = np.bincount(chunk.worker, weights=chunk.staleness + float(1 << BITS), minlength=self.workers)
            whole = both.astype(np.int64)  # exact: at most 2^51
            self._per_worker[0] += whole >> BITS
            self._per_worker[1] += whole & ((1 << BITS) - 1)
        else:
            self._per_worker[0] += np.bincount(chunk.worker, minlength=self.workers)
            np.add.at(self._per_worker[1], chunk.worker, chunk.staleness)

    def _fold_sums(self, value: Integers) -> None:
        rows, size = value.size, self._batch_rows
        number = self.rows // size
        starts = np.append(0, np.arange(size - self.rows % size, rows, size))
        here = slice(number, number + starts.size)
        self._sums[here, 0] += np.add.reduceat(value, starts)
        self._sums[here, 1] += np.add.reduceat(value * value, starts)

    def _mark_ends(self, chunk: Chunk) -> None:
        """Where totals stand as batches end."""
        number, size = self.rows // self._batch_rows, self._batch_rows
        last = np.arange(size - self.rows % size, chunk.staleness.size + 1, size) - 1
        if last.size:
            self._ends[number + 1 : number + 1 + last.size] = _totals(chunk, last)

    def _keep_blocks(self, chunk: Chunk) -> None:
        """Copy the rows that stand in a block to keep, which starts at a multiple of gap * BLOCK_ROWS."""
        end = self.rows + chunk.staleness.size
        while True:
            step = self._gap * BLOCK_ROWS
            for start in range(self.rows // step * step, end, step):
                low, high = max(start, self.rows), min(start + BLOCK_ROWS, end)
                if low >= high:
                    continue
                if start // step == BLOCKS:
                    break
                if low == start:
                    self._blocks.append((np.zeros(BLOCK_ROWS, np.int32), np.zeros(BLOCK_ROWS, np.int32)))
                for kept, column in zip(self._blocks[start // step], (chunk.staleness, chunk.worker), strict=True):
                    kept[low - start : high - start] = column[low - self.rows : high - self.rows]
            else:
                return
            self._blocks = self._blocks[::2]
            self._gap *= 2

    # -- what it says ---------------------------------------------------------------------------------------------

    @property
    def boundaries(self) -> list[int]:
        """Numbers of rows that may be cut off: 0, and the powers of two that were reached."""
        return [0, *self._snapshots]

    def _all_levels(self) -> Integers:
        """Dense counts by level: of rows with odd numbers, level 0, only the parts' histograms are kept."""
        counts = self._counts[:, : self._seen + 1].copy()
        used = -(-self.rows // self._part_rows)
        counts[0] = self._parts[:used, : self._seen + 1].sum(axis=0) - counts[1:].sum(axis=0)
        return counts

    def collected(self, after: int = 0) -> Collected:
        """What was counted after the first ``after`` rows, which must be one of the ``boundaries``."""
        rows = self.rows
        self._unpack()
        counts, beyond, per_worker, kinds = self._all_levels(), self._beyond, self._per_worker, self._kinds
        warmup = self.warmup
        if after:
            then = self._snapshots[after]
            counts[:, : then.levels.shape[1]] -= then.levels
            beyond = _merged(beyond, then.beyond[0], -then.beyond[1])
            per_worker, kinds = per_worker - then.per_worker, kinds - then.kinds
            warmup = int(then.totals[1])
        if beyond[0].size:
            counts = _widened(counts, int(beyond[0].max() >> 4) + 1)
            counts[beyond[0] & 15, beyond[0] >> 4] += beyond[1]
        batch_rows, part_rows = self._batch_rows, self._part_rows
        first, last = -(-after // batch_rows), rows // batch_rows
        sums, ends = self._sums[first:last], self._ends[first : last + 1]
        batches = np.hstack([np.full((len(sums), 1), float(batch_rows)), sums, np.diff(ends, axis=0)])
        blocks = []
        for number, (staleness, worker) in enumerate(self._blocks):
            start = number * self._gap * BLOCK_ROWS
            here = slice(max(0, after - start), max(0, min(BLOCK_ROWS, rows - start)))
            if here.stop > here.start:
                blocks.append((staleness[here], worker[here]))
        return Collected(
            workers=self.workers,
            warmup=warmup,
            rows=rows - after,
            kinds=kinds.copy(),
            levels=counts,
            per_worker=per_worker.copy(),
            batch_rows=batch_rows,
            batches=batches,
            part_rows=part_rows,
            parts=self._parts[-(-after // part_rows) : rows // part_rows, : self._seen + 1].copy(),
            blocks=tuple(blocks),
        )


def _widened(counts: Integers, width: int) -> Integers:
    wide = np.zeros((counts.shape[0], max(width, counts.shape[1])), dtype=np.int64)
    wide[:, : counts.shape[1]] = counts
    return wide


def _merged(
    pairs: tuple[Integers, Integers], keys: Integers, times: Integers | None = None
) -> tuple[Integers, Integers]:
    """Sorted keys and how often each was met, with more of them; those met 0 times are dropped."""
    more = np.ones(keys.size, dtype=np.int64) if times is None else times
    found, where = np.unique(np.concatenate([pairs[0], keys]), return_inverse=True)
    counts = np.zeros(found.size, dtype=np.int64)
    np.add.at(counts, where, np.concatenate([pairs[1], more]))
    return found[counts != 0], counts[counts != 0]


def _totals(chunk: Chunk, rows: Integers) -> NDArray[np.float64]:
    """Seconds, updates and the station's totals as they stand after each of the rows, shape (rows, 5)."""
    totals = np.zeros((rows.size, 5))
    totals[:, 0] = chunk.time[rows]
    totals[:, 1] = chunk.read[rows] + chunk.staleness[rows] + 1
    for column, total in enumerate((chunk.visits, chunk.waited, chunk.busy), start=2):
        if total is not None:
            totals[:, column] = total[rows]
    return totals
