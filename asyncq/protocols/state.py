"""The state that a protocol's rule sees and writes.

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
    "FATES",
    "HEAD",
    "LENGTH",
    "LOST",
    "MOST_WAITING",
    "NO_LIMIT",
    "RELEASED",
    "ROWS",
    "Queues",
    "State",
    "fresh",
    "no_queues",
    "queue_per_leaf",
    "sample_queue",
]

COMMITTED, DOWNWEIGHTED, DROPPED, CANCELLED, LOST = range(5)  # fates of rows: applied up to DOWNWEIGHTED
FATES = ("committed", "downweighted", "dropped", "cancelled", "lost")
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
    row_fate: Any
    row_shard: Any
    row_stalest: Any
    row_neighbour: Any
    row_averagings: Any
    row_last: Any  # staleness counted from the version when the sample was finished (actor-learner)
    row_place: Any  # where in `pending_*` the sample stood (actor-learner)
    released: Any
    cancelled: Any


class Queues(NamedTuple):
    """Queues in which gradients wait for their update, and which workers wait with them."""

    number: int
    room: int  # gradients that fit in a queue
    limit: int  # workers at work at once (actor-learner), gradients that fill a leaf (tree)
    starting: int  # workers that start at time 0; the others are parked
    may_drop: bool = False  # one event may drop a whole queue, and rows say where their sample stood


def no_queues(workers: int, k: int, parameters: dict[str, Any]) -> Queues:
    """Gradients wait for the update that they are part of, nowhere else."""
    return Queues(0, room=1, limit=workers, starting=workers)


def sample_queue(workers: int, k: int, parameters: dict[str, Any]) -> Queues:
    """A queue of samples for a learner, as long as the budget of mean staleness allows."""
    room = (int(parameters["staleness_budget"]) + 1) * k
    limit = min(workers, int(parameters.get("limit", workers)))
    return Queues(1, room=room, limit=limit, starting=min(limit, room), may_drop=True)


def queue_per_leaf(workers: int, k: int, parameters: dict[str, Any]) -> Queues:
    """A queue of pushes at every leaf of a tree."""
    leaves, leaf_k = int(parameters["leaves"]), int(parameters["leaf_k"])
    limit = leaf_k * int(parameters.get("buffers", min(BUFFERS, MOST_WAITING // (leaves * leaf_k))))
    return Queues(leaves, room=limit + workers // leaves, limit=limit, starting=workers)


def fresh(
    workers: int,
    k: int,
    parameters: dict[str, Any],
    rows: int,
    make: Callable[[int, int, int], Any],
    *,
    queues: Queues,
    extras: int = 0,
    shards: int = 1,
    peers: bool = False,
) -> State:
    """A state at time 0 with room for ``rows`` rows and those that one more event may add; an update takes ``k``
    gradients. ``make(size, fill, bits)`` builds its sequences (lists or arrays); 32 bits, none of them a sign, are
    enough for counts and workers. There are ``extras`` slots besides the workers."""
    bound = int(parameters.get("bound", parameters.get("staleness_budget", 0)))
    # one event decides at most k gradients that waited and cancels the rest
    most = rows + workers + k + shards + (queues.room if queues.may_drop else 0)
    pending = k + queues.number * queues.room if queues.number else workers + k
    sharded = workers if shards > 1 else 0
    state = State(
        workers=workers,
        k=k,
        bound=bound,
        limit=queues.limit,
        room=queues.room,
        crew=workers // max(1, queues.number),
        leaf_k=int(parameters.get("leaf_k", 1)),
        forwards=int(extras > 0),
        maximum_staleness=int(parameters.get("maximum_staleness", parameters.get("discard_older_than", NO_LIMIT))),
        too_stale=DOWNWEIGHTED if parameters.get("policy") == "downweight" else DROPPED,
        version=make(1, 0, 64),
        read=make(workers + extras, CLOSED, 64),
        pending=make(1, 0, 32),
        pending_worker=make(pending, 0, 32),
        pending_read=make(pending, CLOSED, 64),
        pending_last=make(pending if queues.number else 1, 0, 64),
        queue_ends=make(2 * max(1, queues.number), 0, 64),
        arrived=make(1, 0, 64),
        accepted=make(1, 0, 64),
        idle=make(workers if queues.number else 1, 0, 32),
        idle_ends=make(2 * max(1, queues.number), 0, 64),
        leaf_of=make(workers + extras if queues.number else 1, 0, 32),
        clock=make(workers, 0, 64),
        at_clock=make(bound + 2, 0, 64),
        slowest=make(2, 0, 64),
        shards=shards,
        shard_version=make(shards, 0, 64),
        shard_read=make(max(1, sharded * shards), CLOSED, 64),
        parts=make(max(1, sharded), 0, 64),
        stalest=make(max(1, sharded), 0, 64),
        neighbour=make(1, 0, 64),
        averaged=make(workers if peers else 1, 0, 64),
        sizes=make(3, 0, 32),
        row_worker=make(most, 0, 64),
        row_read=make(most, 0, 64),
        row_staleness=make(most, 0, 64),
        row_fate=make(most, 0, 64),
        row_shard=make(most if shards > 1 else 1, 0, 64),
        row_stalest=make(most if shards > 1 else 1, CLOSED, 64),
        row_neighbour=make(most if peers else 1, 0, 64),
        row_averagings=make(most if peers else 1, 0, 64),
        row_last=make(most if queues.may_drop else 1, 0, 64),
        row_place=make(most if queues.may_drop else 1, 0, 64),
        released=make(workers + extras, 0, 32),
        cancelled=make(workers, 0, 32),
    )
    _begin(state, queues, extras)
    return state


def _begin(s: State, queues: Queues, extras: int) -> None:
    """Release the workers that start at time 0 and park the others; give every worker and every link its queue."""
    s.at_clock[0] = s.workers
    s.sizes[RELEASED] = queues.starting
    s.released[: queues.starting] = range(queues.starting)
    s.idle_ends[LENGTH] = parked = s.workers - queues.starting
    s.idle[:parked] = range(queues.starting, s.workers)
    if queues.number:
        for leaf in range(queues.number):
            s.leaf_of[leaf * s.crew : (leaf + 1) * s.crew] = [leaf] * s.crew
        s.leaf_of[s.workers :] = range(extras)
