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
    parts: Any,
    part_rows: int,
    by_worker: Any,
    sums: Any,
    ends: Any,
    batch_rows: int,
) -> None:
    """Count rows number ``first`` and on: ``parts[row // part_rows, staleness]``; rows and sums, packed in one number,
    by worker; by batch (``row // batch_rows``) sums and sums of squares, and time and version at its end. Parts are
    whole batches."""
    begin, rows = 0, staleness.size
    one = 1 << BITS
    while begin < rows:
        batch = (first + begin) // batch_rows
        end = (batch + 1) * batch_rows - first
        last = min(rows, end)
        part = parts[(first + begin) // part_rows]
        total = squares = 0
        for i in range(begin, last):
            late = staleness[i]
            part[np.uintp(late)] += 1  # unsigned: not counted from the end
            by_worker[np.uintp(worker[i])] += one + late
            total += late
            squares += late * late
        begin = last
        sums[batch, 0] += total
        sums[batch, 1] += squares
        if last == end:
            ends[batch + 1, 0] = time[last - 1]
            ends[batch + 1, 1] = read[last - 1] + staleness[last - 1] + 1


@cache
def kernel() -> Any:
    """``count``, compiled; it lets other threads run meanwhile."""
    from asyncq.engines.compiled.machine_code import jit, kept

    return kept(jit(count))
