"""Calendars that know time and nothing else: what an engine yields, and what it can say when it stops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

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
