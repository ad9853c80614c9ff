"""Rows that engines yield, and errors of an engine that cannot go on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from asyncq.engines.machine_time import MachineTime
from asyncq.errors import DeadlockError, old_attributes
from asyncq.protocols.state import FATES, LOST
from asyncq.system.machines import NEVER, Machines

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Chunk", "Engine", "check_progress", "why_stuck"]


HOPELESS = 10_000  # gradients lost in a row


@old_attributes(kind="fate")
class Chunk(NamedTuple):
    """Consecutive rows (gradients whose fate is decided), one entry per row, in the order of the events.

    ``time`` (seconds) is when the update was made; ``staleness`` counts the updates since ``read``, the version the
    gradient was computed on; ``fate`` is COMMITTED, DOWNWEIGHTED, DROPPED, CANCELLED or LOST. ``visits``,
    ``waited`` and ``busy`` are the server's totals so far: services completed, seconds queued by them, seat-seconds
    spent; None without a server.

    With a sharded server, a row is the part of a gradient at a ``shard``, with that shard's versions, staleness and
    totals; ``stalest`` is the largest staleness of the gradient's parts in the row of the last part, else -1.

    In gossip, ``neighbour`` is the worker averaged with just before the gradient was applied, and ``averagings`` the
    number of averagings by others since the worker read its copy.

    With a population ``client`` is the number of the client class, counted through all pools.

    With extra slots (a learner) ``busy`` are the seconds they worked. ``last_staleness`` counts the updates since the
    last version used in a sample; None if that is always the version read.
    """

    time: NDArray[np.float64]
    worker: NDArray[np.int64]
    staleness: NDArray[np.int64]
    read: NDArray[np.int64]
    fate: NDArray[np.int64]
    visits: NDArray[np.int64] | None = None
    waited: NDArray[np.float64] | None = None
    busy: NDArray[np.float64] | None = None
    shard: NDArray[np.int64] | None = None
    stalest: NDArray[np.int64] | None = None
    neighbour: NDArray[np.int64] | None = None
    averagings: NDArray[np.int64] | None = None
    last_staleness: NDArray[np.int64] | None = None
    client: NDArray[np.int64] | None = None

    def to_frame(self) -> DataFrame:
        """The rows as a pandas frame with the columns of trace.csv; fates in words."""
        import pandas

        fates = np.array(FATES)[self.fate]
        columns = {"seconds": self.time, "worker": self.worker, "staleness": self.staleness, "read": self.read}
        return pandas.DataFrame({**columns, "fate": fates, **self.topology()})

    def topology(self) -> dict[str, NDArray[np.int64]]:
        """Columns of particular topologies, by name."""
        columns = zip(self._fields[8:], self[8:], strict=True)
        return {name: column for name, column in columns if column is not None}

    def pick(self, rows: slice | NDArray[np.int64]) -> Chunk:
        """A selection of rows."""
        if isinstance(rows, slice):
            columns: list[Any] = [None if column is None else column[rows] for column in self]
        else:  # twice as fast as indexing
            columns = [None if column is None else column.take(rows) for column in self]
        return Chunk(*columns)

    def copy(self) -> Chunk:
        """A copy: engines may reuse the arrays of their chunks."""
        columns: list[Any] = [None if column is None else column.copy() for column in self]
        return Chunk(*columns)

    def counted_by(self, count: NDArray[np.int64] | None) -> Chunk:
        """Rows with another count as staleness, without the columns of topologies."""
        assert count is not None
        read = self.read + self.staleness - count
        return Chunk(self.time, self.worker, count, read, self.fate, self.visits, self.waited, self.busy)

    @classmethod
    def join(cls, chunks: Sequence[Chunk]) -> Chunk:
        """Consecutive chunks as one."""
        columns: list[Any] = [None if c[0] is None else np.concatenate(c) for c in zip(*chunks, strict=True)]
        return cls(*columns)


def check_progress(rows: Chunk, updates: int, now: float) -> None:
    """Raise ``DeadlockError`` if a whole chunk of gradients was lost and no update made."""
    if not updates and rows.fate.size >= HOPELESS and bool((rows.fate == LOST).all()):
        raise DeadlockError(
            f"no progress at {now:g} s: the last {rows.fate.size:,} gradients were all lost, no work outlasts a "
            "failure or a client's stay; make failure.after, or stays, longer than work_time"
        )


def why_stuck(now: float, updates: int, finished: Sequence[int], queued: Collection[int]) -> str:
    """Describe a deadlock in one line: the state of the first twenty workers."""
    waits = [
        f"worker {worker}: " + ("in the server's queue" if worker in queued else f"blocked, {count} gradients finished")
        for worker, count in enumerate(finished[:20])
    ]
    return f"deadlock at {now:g} s after {updates} updates: nothing is scheduled; " + "; ".join(waits)


class Engine(Protocol):
    """A resumable simulation of a network. After ``chunks`` is exhausted the other members describe its end."""

    name: str

    def chunks(self, updates: int, until: float = NEVER) -> Iterator[Chunk]:
        """Advance until ``updates`` updates have been applied in all, or until the time ``until`` (seconds). Raises
        ``DeadlockError`` if neither can be reached."""

    @property
    def now(self) -> float:
        """Simulated seconds."""

    @property
    def version(self) -> int:
        """Updates applied."""

    @property
    def open_reads(self) -> NDArray[np.int64]:
        """Versions held by the gradients whose fate is still open: in work or waiting for their update."""

    @property
    def machine_time(self) -> MachineTime:
        """Totals of machine time."""

    @property
    def machines(self) -> Machines | None:
        """State of the machines; None without disturbances."""
