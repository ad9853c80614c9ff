"""The accumulator's inner loop as machine code, for runs of the compiled engine; elsewhere numpy counts the same."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

__all__ = ["BITS", "count", "kernel"]


BITS = 36  # of a sum of staleness; above them a number of rows


def count(
    staleness: Any,
    worker: Any,
    read: Any,
    time: Any,
    first: int,
    level: Any,
    counts: Any,
    parts: Any,
    part_bits: int,
    by_worker: Any,
    sums: Any,
    ends: Any,
    batch_bits: int,
) -> None:
    """Count rows number ``first`` and on: ``parts[row >> part_bits, staleness]``; of every other row
    ``counts[level, staleness]``, where ``level`` repeats and its size is a power of two; rows and sums, packed in one
    number, by worker; by batch (``row >> batch_bits``) sums and sums of squares, and time and version at its end."""
    i, rows, mask = 0, staleness.size, level.size - 1
    one = 1 << BITS
    while i < rows:
        batch = (first + i) >> batch_bits
        end = ((batch + 1) << batch_bits) - first
        begin, last = i, min(rows, end)
        part = parts[(first + i) >> part_bits]  # batches do not straddle parts
        total = squares = 0
        for i in range(begin, last):
            late = staleness[i]
            part[np.uintp(late)] += 1  # unsigned: not counted from the end
            by_worker[np.uintp(worker[i])] += one + late
            total += late
            squares += late * late
        for i in range(begin + ((first + begin) & 1), last, 2):
            counts[level[np.uintp((first + i) & mask)], np.uintp(staleness[i])] += 1
        i = last
        sums[batch, 0] += total
        sums[batch, 1] += squares
        if last == end:
            ends[batch + 1, 0] = time[last - 1]
            ends[batch + 1, 1] = read[last - 1] + staleness[last - 1] + 1


@cache
def kernel() -> Any:
    """``count``, compiled; it lets other threads run meanwhile."""
    import numba

    njit: Any = numba.njit
    try:
        return njit(nogil=True, cache=True, error_model="numpy", _nrt=False)(count)
    except RuntimeError:  # nowhere to keep a cache
        return njit(nogil=True, error_model="numpy", _nrt=False)(count)
