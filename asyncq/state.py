"""What a protocol's rule sees and writes, and the steps that rules are made of.

A :class:`State` is integers and sequences of integers. A rule (:mod:`asyncq.protocols`) writes to its three outboxes:

* ``rows``: gradients whose fate is now decided (worker, version read, staleness, kind). The engine empties the other
  two boxes between calls; rows it lets stand until a chunk of them is full;
* ``cancelled``: workers whose unfinished work is thrown away, wherever it is;
* ``released``: workers that read and start again, in this order. The finisher reads at once, in the same event; the
  others read when the calendar reaches them. In a fresh state it holds who starts at time 0.

Steps index plain lists in the SimPy engine and arrays in the compiled one, so they are written in the common subset:
integers, indexing, ``while``, ``for``, ``if``, calls of one another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = [
    "BUFFERS",
    "CANCELLED",
    "CANCELLED_WORKERS",
    "CLOSED",
    "COMMITTED",
    "DOWNWEIGHTED",
    "DROPPED",
    "HEAD",
    "KIND_NAMES",
    "LENGTH",
    "LOST",
    "MOST_WAITING",
    "NO_LIMIT",
    "RELEASED",
    "ROWS",
    "State",
    "apply_part",
    "cancel_open",
    "commit_pending",
    "enqueue",
    "fresh",
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

COMMITTED, DOWNWEIGHTED, DROPPED, CANCELLED, LOST = range(5)  # kinds of rows: applied up to DOWNWEIGHTED
KIND_NAMES = ("committed", "downweighted", "dropped", "cancelled", "lost")
CLOSED = -1  # in `read` and `pending_read`: no interval is open here
ROWS, RELEASED, CANCELLED_WORKERS = 0, 1, 2  # positions in `sizes`
HEAD, LENGTH = 0, 1  # positions in the two ends of a ring
NO_LIMIT = 2**62
MOST_WAITING = 10_000_000  # gradients that may wait in queues
BUFFERS = 1000  # messages that a leaf may hold, if nothing is said


class State(NamedTuple):
    """Everything a rule may see: parameters as integers, the rest as sequences of integers it may write."""

    workers: int
    k: int
    bound: int  # clocks (stale-synchronous) or the budget of mean staleness (actor-learner)
    limit: int  # workers that may be at work at once (actor-learner), gradients that fill a leaf (tree)
    room: int  # gradients that fit in a queue (actor-learner, tree)
    crew: int  # workers that fill a queue
    leaf_k: int  # gradients in a message of a leaf (tree)
    forwards: int  # whether a message takes time (tree)
    maximum_staleness: int
    too_stale: int  # the kind of a row beyond the maximum: DROPPED or DOWNWEIGHTED
    version: Any  # [1] updates applied
    read: Any  # [slots] version read by the gradient in progress, CLOSED when there is none
    pending: Any  # [1] gradients (k-*) or workers (stale-synchronous) that wait for something
    pending_worker: Any
    pending_read: Any
    pending_last: Any  # the version when the gradient joined its queue
    queue_ends: Any  # [2 * queues] rings of `room` gradients, one after the other behind the first k of `pending_*`
    arrived: Any  # [1] where in `pending_*` the last gradient to join a queue was put
    accepted: Any  # [1] samples finished and not dropped (actor-learner)
    idle: Any  # [workers] a ring of `crew` for each queue: who waits to go on, the longest first
    idle_ends: Any  # [2 * queues]
    leaf_of: Any  # [slots] the leaf of a worker, or whose link a slot is (tree)
    clock: Any  # [workers] gradients finished by each worker; [0] is the turn in round robin
    at_clock: Any  # [bound + 2] workers at each clock, as a ring
    slowest: Any  # [2] the slowest clock, and its place in that ring
    shards: int  # of the server; 1: nothing below is used but by the rules that say so
    shard_version: Any  # [shards] updates applied by each shard
    shard_read: Any  # [workers * shards] version of each shard read by the gradient in progress
    parts: Any  # [workers] shards that have applied their part of the gradient in progress
    stalest: Any  # [workers] largest staleness among those parts
    neighbour: Any  # [1] whom the worker averages with, drawn by the engine before it finishes
    averaged: Any  # [workers] averagings by others of the worker's copy since it read it
    sizes: Any  # [3] how many rows, released, cancelled stand in the outboxes
    row_worker: Any
    row_read: Any
    row_staleness: Any
    row_kind: Any
    row_shard: Any
    row_stalest: Any
    row_neighbour: Any
    row_averagings: Any
    row_last: Any  # staleness counted from the version when the sample was finished (actor-learner)
    row_place: Any  # where in `pending_*` the sample stood (actor-learner)
    released: Any
    cancelled: Any


def fresh(
    workers: int,
    k: int,
    parameters: dict[str, Any],
    rows: int,
    make: Callable[[int, int, int], Any],
    *,
    extras: int = 0,
    shards: int = 1,
    peers: bool = False,
) -> State:
    """A state at time 0 with room for ``rows`` rows and what one more event may add to them; an update takes ``k``
    gradients. ``make(size, fill, bits)`` builds its sequences (lists or arrays); 32 bits, none of them a sign, are
    enough for counts and workers. There are ``extras`` slots besides the workers."""
    bound = int(parameters.get("bound", parameters.get("staleness_budget", 0)))
    limit = min(workers, int(parameters.get("limit", workers)))
    leaf_k, leaves = int(parameters.get("leaf_k", 1)), int(parameters.get("leaves", 0))
    queues, room, starting = 0, 1, workers
    decided = workers + k + shards  # one event decides at most k gradients that waited and cancels the rest
    if "staleness_budget" in parameters:
        queues, room = 1, (bound + 1) * k
        starting = min(limit, room)
        decided += room
    elif leaves:
        limit = leaf_k * int(parameters.get("buffers", min(BUFFERS, MOST_WAITING // (leaves * leaf_k))))
        queues, room = leaves, limit + workers // leaves
    pending = k + queues * room if queues else workers + k
    at_clock = make(bound + 2, 0, 64)
    at_clock[0] = workers
    sharded = workers if shards > 1 else 0
    beside = rows + decided if shards > 1 else 1
    met = rows + decided if peers else 1
    released = make(workers + extras, 0, 32)
    released[:starting] = range(starting)
    idle = make(workers if queues else 1, 0, 32)
    idle[: workers - starting] = range(starting, workers)
    idle_ends = make(2 * max(1, queues), 0, 64)
    idle_ends[LENGTH] = workers - starting
    leaf_of = make(workers + extras if leaves else 1, 0, 32)
    for leaf in range(leaves):
        crew = workers // leaves
        leaf_of[leaf * crew : (leaf + 1) * crew] = [leaf] * crew
    leaf_of[workers:] = range(extras if leaves else 0)
    sizes = make(3, 0, 32)
    sizes[RELEASED] = starting
    per_sample = rows + decided if "staleness_budget" in parameters else 1
    return State(
        workers=workers,
        k=k,
        bound=bound,
        limit=limit,
        room=room,
        crew=workers // max(1, queues),
        leaf_k=leaf_k,
        forwards=int(extras > 0),
        maximum_staleness=int(parameters.get("maximum_staleness", parameters.get("discard_older_than", NO_LIMIT))),
        too_stale=DOWNWEIGHTED if parameters.get("policy") == "downweight" else DROPPED,
        version=make(1, 0, 64),
        read=make(workers + extras, CLOSED, 64),
        pending=make(1, 0, 32),
        pending_worker=make(pending, 0, 32),
        pending_read=make(pending, CLOSED, 64),
        pending_last=make(pending if queues else 1, 0, 64),
        queue_ends=make(2 * max(1, queues), 0, 64),
        arrived=make(1, 0, 64),
        accepted=make(1, 0, 64),
        idle=idle,
        idle_ends=idle_ends,
        leaf_of=leaf_of,
        clock=make(workers, 0, 64),
        at_clock=at_clock,
        slowest=make(2, 0, 64),
        shards=shards,
        shard_version=make(shards, 0, 64),
        shard_read=make(max(1, sharded * shards), CLOSED, 64),
        parts=make(max(1, sharded), 0, 64),
        stalest=make(max(1, sharded), 0, 64),
        neighbour=make(1, 0, 64),
        averaged=make(workers if peers else 1, 0, 64),
        sizes=sizes,
        row_worker=make(rows + decided, 0, 64),
        row_read=make(rows + decided, 0, 64),
        row_staleness=make(rows + decided, 0, 64),
        row_kind=make(rows + decided, 0, 64),
        row_shard=make(beside, 0, 64),
        row_stalest=make(beside, CLOSED, 64),
        row_neighbour=make(met, 0, 64),
        row_averagings=make(met, 0, 64),
        row_last=make(per_sample, 0, 64),
        row_place=make(per_sample, 0, 64),
        released=released,
        cancelled=make(workers, 0, 32),
    )


# -- the steps of rules ------------------------------------------------------------------------------------------------


def row(s: State, worker: int, read: int, kind: int) -> None:
    """The fate of one gradient is decided; its staleness counts the updates since its read."""
    n = s.sizes[ROWS]
    s.row_worker[n] = worker
    s.row_read[n] = read
    s.row_staleness[n] = s.version[0] - read
    s.row_kind[n] = kind
    s.sizes[ROWS] = n + 1


def update(s: State) -> None:
    """The version goes up by one."""
    s.version[0] += 1


def release(s: State, worker: int) -> None:
    """The worker may read and start again."""
    n = s.sizes[RELEASED]
    s.released[n] = worker
    s.sizes[RELEASED] = n + 1


def release_all(s: State) -> None:
    """Everybody reads and starts again, in the order of the workers."""
    for worker in range(s.workers):
        release(s, worker)


def enqueue(s: State, worker: int) -> int:
    """The worker's gradient joins those that wait for an update; how many there are now."""
    n = s.pending[0]
    s.pending_worker[n] = worker
    s.pending_read[n] = s.read[worker]
    s.pending[0] = n + 1
    s.read[worker] = CLOSED
    return n + 1  # type: ignore[no-any-return]


def commit_pending(s: State) -> None:
    """One row for every gradient that waits, in order of arrival; none waits any more."""
    for i in range(s.pending[0]):
        row(s, s.pending_worker[i], s.pending_read[i], COMMITTED)
        s.pending_read[i] = CLOSED
    s.pending[0] = 0


def cancel_open(s: State) -> None:
    """Every gradient still being made is thrown away, in the order of the workers."""
    for worker in range(s.workers):
        if s.read[worker] != CLOSED:
            row(s, worker, s.read[worker], CANCELLED)
            s.read[worker] = CLOSED
            n = s.sizes[CANCELLED_WORKERS]
            s.cancelled[n] = worker
            s.sizes[CANCELLED_WORKERS] = n + 1


def join_queue(s: State, worker: int, queue: int) -> None:
    """The worker's gradient joins the end of a queue."""
    ends = 2 * queue
    place = s.k + queue * s.room + (s.queue_ends[ends + HEAD] + s.queue_ends[ends + LENGTH]) % s.room
    s.pending_worker[place] = worker
    s.pending_read[place] = s.read[worker]
    s.pending_last[place] = s.version[0]
    s.arrived[0] = place
    s.queue_ends[ends + LENGTH] += 1
    s.read[worker] = CLOSED


def leave_queue(s: State, queue: int) -> None:
    """The oldest of a queue joins those that make the next update, unless its fate is decided already."""
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
    """The worker has nothing to do until its turn comes."""
    ends = 2 * queue
    s.idle[queue * s.crew + (s.idle_ends[ends + HEAD] + s.idle_ends[ends + LENGTH]) % s.crew] = worker
    s.idle_ends[ends + LENGTH] += 1


def wake(s: State, queue: int) -> None:
    """Who has had nothing to do for longest reads and starts again."""
    ends = 2 * queue
    release(s, s.idle[queue * s.crew + s.idle_ends[ends + HEAD]])
    s.idle_ends[ends + HEAD] = (s.idle_ends[ends + HEAD] + 1) % s.crew
    s.idle_ends[ends + LENGTH] -= 1


# -- what happens whatever the protocol ------------------------------------------------------------------------------


def start(s: State, worker: int) -> None:
    """The worker reads the version, unless a rule already handed it one (round robin)."""
    if s.read[worker] == CLOSED:
        s.read[worker] = s.version[0]


def lose(s: State, worker: int) -> None:
    """The worker's machine is struck while it computes: its gradient is lost. It reads again when it is back."""
    if s.shards == 1:
        row(s, worker, s.read[worker], LOST)
    else:
        stalest = 0
        for shard in range(s.shards):
            stalest = max(stalest, part(s, worker, shard, LOST))
            s.shard_read[worker * s.shards + shard] = CLOSED
        s.row_stalest[s.sizes[ROWS] - 1] = stalest
    s.read[worker] = CLOSED


def part(s: State, worker: int, shard: int, kind: int) -> int:
    """The row of a shard's part of the worker's gradient, not yet known to be the last; its staleness."""
    at = worker * s.shards + shard
    n = s.sizes[ROWS]
    s.row_worker[n] = worker
    s.row_read[n] = s.shard_read[at]
    s.row_staleness[n] = s.shard_version[shard] - s.shard_read[at]
    s.row_kind[n] = kind
    s.row_shard[n] = shard
    s.row_stalest[n] = CLOSED
    s.sizes[ROWS] = n + 1
    return s.row_staleness[n]  # type: ignore[no-any-return]


def read_shards(s: State, worker: int) -> None:
    """The worker reads the version of every shard, all at once."""
    for shard in range(s.shards):
        s.shard_read[worker * s.shards + shard] = s.shard_version[shard]


def apply_part(s: State, worker: int, shard: int) -> bool:
    """A shard applies its part of the worker's gradient, an update of that shard; whether all shards now have."""
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
