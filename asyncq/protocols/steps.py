"""The steps that rules are made of: each reads and writes a :class:`~asyncq.protocols.state.State`."""

from __future__ import annotations

from asyncq.protocols.state import (
    CANCELLED,
    CANCELLED_WORKERS,
    CLOSED,
    COMMITTED,
    HEAD,
    LENGTH,
    LOST,
    RELEASED,
    ROWS,
    State,
)

__all__ = [
    "apply_part",
    "cancel_open",
    "commit_pending",
    "enqueue",
    "join_queue",
    "leave_queue",
    "lose",
    "park",
    "part",
    "read_shards",
    "release",
    "release_all",
    "row",
    "start",
    "update",
    "wake",
]


def row(s: State, worker: int, read: int, fate: int) -> None:
    """Append the row of a gradient whose fate is decided; its staleness counts the updates since its read."""
    n = s.sizes[ROWS]
    s.row_worker[n] = worker
    s.row_read[n] = read
    s.row_staleness[n] = s.version[0] - read
    s.row_fate[n] = fate
    s.sizes[ROWS] = n + 1


def update(s: State) -> None:
    """Raise the version by 1."""
    s.version[0] += 1


def release(s: State, worker: int) -> None:
    """Let the worker read and start again."""
    n = s.sizes[RELEASED]
    s.released[n] = worker
    s.sizes[RELEASED] = n + 1


def release_all(s: State) -> None:
    """Let every worker read and start again, in the order of the workers."""
    for worker in range(s.workers):
        release(s, worker)


def enqueue(s: State, worker: int) -> int:
    """Add the worker's gradient to those that wait for an update; return how many wait now."""
    n = s.pending[0]
    s.pending_worker[n] = worker
    s.pending_read[n] = s.read[worker]
    s.pending[0] = n + 1
    s.read[worker] = CLOSED
    return n + 1  # type: ignore[no-any-return]


def commit_pending(s: State) -> None:
    """Append a row for every gradient that waits, in order of arrival; none waits afterwards."""
    for i in range(s.pending[0]):
        row(s, s.pending_worker[i], s.pending_read[i], COMMITTED)
        s.pending_read[i] = CLOSED
    s.pending[0] = 0


def cancel_open(s: State) -> None:
    """Cancel every gradient still being computed, in the order of the workers."""
    for worker in range(s.workers):
        if s.read[worker] != CLOSED:
            row(s, worker, s.read[worker], CANCELLED)
            s.read[worker] = CLOSED
            n = s.sizes[CANCELLED_WORKERS]
            s.cancelled[n] = worker
            s.sizes[CANCELLED_WORKERS] = n + 1


def join_queue(s: State, worker: int, queue: int) -> None:
    """Put the worker's gradient at the end of a queue."""
    ends = 2 * queue
    place = s.k + queue * s.room + (s.queue_ends[ends + HEAD] + s.queue_ends[ends + LENGTH]) % s.room
    s.pending_worker[place] = worker
    s.pending_read[place] = s.read[worker]
    s.pending_last[place] = s.version[0]
    s.arrived[0] = place
    s.queue_ends[ends + LENGTH] += 1
    s.read[worker] = CLOSED


def leave_queue(s: State, queue: int) -> None:
    """Move the oldest gradient of a queue to those that make the next update, unless its fate is decided already."""
    ends = 2 * queue
    place = s.k + queue * s.room + s.queue_ends[ends + HEAD]
    s.queue_ends[ends + HEAD] = (s.queue_ends[ends + HEAD] + 1) % s.room
    s.queue_ends[ends + LENGTH] -= 1
    if s.pending_read[place] != CLOSED:
        n = s.pending[0]
        s.pending_worker[n] = s.pending_worker[place]
        s.pending_read[n] = s.pending_read[place]
        s.pending_last[n] = s.pending_last[place]
        s.pending_read[place] = CLOSED
        s.pending[0] = n + 1


def park(s: State, worker: int, queue: int) -> None:
    """Park the worker with a queue until `wake` releases it."""
    ends = 2 * queue
    s.idle[queue * s.crew + (s.idle_ends[ends + HEAD] + s.idle_ends[ends + LENGTH]) % s.crew] = worker
    s.idle_ends[ends + LENGTH] += 1


def wake(s: State, queue: int) -> None:
    """Release the worker parked longest with this queue."""
    ends = 2 * queue
    release(s, s.idle[queue * s.crew + s.idle_ends[ends + HEAD]])
    s.idle_ends[ends + HEAD] = (s.idle_ends[ends + HEAD] + 1) % s.crew
    s.idle_ends[ends + LENGTH] -= 1


# -- for every protocol ------------------------------------------------------------------------------


def start(s: State, worker: int) -> None:
    """Record the version that the worker reads, unless a rule already handed it a version (round robin)."""
    if s.read[worker] == CLOSED:
        s.read[worker] = s.version[0]


def lose(s: State, worker: int) -> None:
    """Append the row of a gradient lost by a failure or an outage; the worker reads again when its machine is back."""
    if s.shards == 1:
        row(s, worker, s.read[worker], LOST)
    else:
        stalest = 0
        for shard in range(s.shards):
            stalest = max(stalest, part(s, worker, shard, LOST))
            s.shard_read[worker * s.shards + shard] = CLOSED
        s.row_stalest[s.sizes[ROWS] - 1] = stalest
    s.read[worker] = CLOSED


def part(s: State, worker: int, shard: int, fate: int) -> int:
    """Append a row for one shard's part of the worker's gradient, not known to be the last; return its staleness."""
    at = worker * s.shards + shard
    n = s.sizes[ROWS]
    s.row_worker[n] = worker
    s.row_read[n] = s.shard_read[at]
    s.row_staleness[n] = s.shard_version[shard] - s.shard_read[at]
    s.row_fate[n] = fate
    s.row_shard[n] = shard
    s.row_stalest[n] = CLOSED
    s.sizes[ROWS] = n + 1
    return s.row_staleness[n]  # type: ignore[no-any-return]


def read_shards(s: State, worker: int) -> None:
    """Record the versions of all shards, which the worker reads at once."""
    for shard in range(s.shards):
        s.shard_read[worker * s.shards + shard] = s.shard_version[shard]


def apply_part(s: State, worker: int, shard: int) -> bool:
    """Apply a shard's part of the worker's gradient, an update of that shard; return whether all shards have theirs."""
    n = s.sizes[ROWS]
    s.stalest[worker] = max(s.stalest[worker], part(s, worker, shard, COMMITTED))
    s.shard_read[worker * s.shards + shard] = CLOSED
    s.shard_version[shard] += 1
    s.parts[worker] += 1
    if s.parts[worker] < s.shards:
        return False
    s.row_stalest[n] = s.stalest[worker]
    s.stalest[worker] = 0
    s.parts[worker] = 0
    return True
