"""Machine time: shares of the workers' seconds. Both engines keep totals, an entry for each of the constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asyncq.protocols.state import CLOSED

__all__ = [
    "CANCELLED",
    "DROPPED",
    "ENTRIES",
    "LOST",
    "PULL",
    "PUSH",
    "QUEUE",
    "REPAIR",
    "SERVICE",
    "WORK",
    "MachineTime",
]

PULL, WORK, PUSH, QUEUE, SERVICE, CANCELLED, DROPPED, LOST, REPAIR = range(9)  # entries of the totals
ENTRIES = 9


class MachineTime(NamedTuple):
    """Totals of machine time, in machine-seconds since the start. Their sum is workers times seconds."""

    pull: float
    work: float
    push: float
    queue: float
    service: float
    cancelled: float  # cycles cancelled before they finished
    dropped: float  # cycles whose gradient was too stale to be applied
    unfinished: float  # cycles still under way at the end
    blocked: float  # between a finished cycle and the next read: gates, barriers, the wait for an update
    lost: float  # cycles lost with the machine that computed them
    repair: float  # until machines that failed or had an outage were back

    @classmethod
    def of(
        cls,
        spent: Sequence[float],
        began: Sequence[float],
        read: Sequence[int],
        now: float,
        *,
        in_repair: Sequence[bool] | NDArray[np.bool_],
    ) -> MachineTime:
        """Close the totals ``spent`` at ``now``: add the cycles and repairs under way; the remainder is blocked.

        ``began``: start of each worker's cycle or repair. ``read``: version that the worker holds.
        """
        pull, work, push, queue, service, cancelled, dropped, lost, repair = map(float, spent)
        since = now - np.asarray(began)
        unfinished = float(since[np.asarray(read) != CLOSED].sum())
        repair += float(since[np.asarray(in_repair, dtype=bool)].sum())
        booked = pull + work + push + queue + service + cancelled + dropped + lost + repair + unfinished
        blocked = max(0.0, len(since) * now - booked)
        return cls(pull, work, push, queue, service, cancelled, dropped, unfinished, blocked, lost, repair)
