"""The accumulator's inner loop as machine code, for runs of the compiled engine; without it numpy counts the same."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

__all__ = ["BITS", "BUSY", "SQUARES", "SUM", "TIME", "TOTALS", "VERSION", "VISITS", "WAITED", "count", "kernel"]

BITS = 36  # of a sum of staleness; above them a number of rows
SUM, SQUARES = range(2)  # columns of the batches' sums: staleness, and its square
TOTALS = 5
TIME, VERSION, VISITS, WAITED, BUSY = range(TOTALS)  # columns of the totals at the batches' ends


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
    """Count rows from number ``first`` on: ``parts[row // part_rows, staleness]``; rows and sums by worker, packed in a
    number; by batch (``row // batch_rows``) the sums of staleness and its square, and time and version at its end. A
    part is a whole number of batches."""
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
        sums[batch, SUM] += total
        sums[batch, SQUARES] += squares
        if last == end:
            ends[batch + 1, TIME] = time[last - 1]
            ends[batch + 1, VERSION] = read[last - 1] + staleness[last - 1] + 1


@cache
def kernel() -> Any:
    """Compile :func:`count`, once; it releases the interpreter's lock."""
    from asyncq.engines.compiled.machine_code import jit, kept

    return kept(jit(count))
