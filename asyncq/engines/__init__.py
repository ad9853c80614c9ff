"""Calendars that know time and nothing else: what an engine yields, and what it can say when it stops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["CHUNK_ROWS", "Chunk", "Engine", "MachineTime"]

CHUNK_ROWS = 16_384


class Chunk(NamedTuple):
    """Consecutive rows (gradients whose fate is decided), one entry per row, in the order of the events.

    ``time`` (seconds) is when the update was made; ``staleness`` counts the updates since ``read``, the version the
    gradient was computed on; ``kind`` is COMMITTED, DROPPED or CANCELLED. ``visits``, ``waited`` and ``busy`` are the
    server's totals so far: services completed, seconds queued by them, seat-seconds spent; None without a server.
    """

    time: NDArray[np.float64]
    worker: NDArray[np.int64]
    staleness: NDArray[np.int64]
    read: NDArray[np.int64]
    kind: NDArray[np.int64]
    visits: NDArray[np.int64] | None = None
    waited: NDArray[np.float64] | None = None
    busy: NDArray[np.float64] | None = None

    @classmethod
    def join(cls, chunks: Sequence[Chunk]) -> Chunk:
        """Consecutive chunks as one."""
        columns: list[Any] = [None if c[0] is None else np.concatenate(c) for c in zip(*chunks, strict=True)]
        return cls(*columns)


class MachineTime(NamedTuple):
    """Where the workers' time went, in machine-seconds since the start. Together they are workers times seconds."""

    pull: float
    work: float
    push: float
    queue: float
    service: float
    cancelled: float  # cycles thrown away before they finished
    dropped: float  # cycles whose gradient was too stale to be applied
    unfinished: float  # cycles still under way at the end
    blocked: float  # between a finished cycle and the next read: gates, barriers, the wait for an update

    @classmethod
    def of(cls, spent: Sequence[float], unfinished: float, total: float) -> MachineTime:
        """From the first seven entries; whatever of the total is in no cycle was spent blocked."""
        pull, work, push, queue, service, cancelled, dropped = map(float, spent)
        blocked = max(0.0, total - sum(spent) - unfinished)
        return cls(pull, work, push, queue, service, cancelled, dropped, unfinished, blocked)


class Engine(Protocol):
    """A resumable simulation of one network. After ``chunks`` is exhausted the other members speak of its end."""

    name: str

    def chunks(self, updates: int) -> Iterator[Chunk]:
        """Advance until ``updates`` updates have been applied in all; raises DeadlockError if that cannot happen."""

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
        """Where the workers' time went."""
