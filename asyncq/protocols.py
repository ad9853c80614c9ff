"""What happens when a gradient arrives: **the only** protocol semantics.

A protocol is a pair of integer rules over a :class:`State`. ``start(state, worker)`` opens an interval: the worker
reads the version. ``finish(state, worker)`` says what the arrival of the worker's gradient does, by writing to three
outboxes:

* ``rows``: gradients whose fate is now decided (worker, version read, staleness, kind). The engine empties the other
  two boxes after every call; rows it lets stand until a chunk of them is full;
* ``cancelled``: workers whose unfinished work is thrown away, wherever it is;
* ``released``: workers that read and start again, in this order. The finisher reads at once, in the same event; the
  others read when the calendar reaches them. In a fresh state it holds who starts at time 0.

Slots from ``workers`` on are extra: a learner, the links of a tree. An extra slot is parked until a rule releases it,
and ``finish(state, slot)`` says what the end of its work does.

Rules know no time and draw nothing. They index plain lists in the SimPy engine and arrays in the compiled one, so they
are written in the common subset: integers, indexing, ``while``, ``if``, calls of the helpers below.

Adding a protocol is adding a rule and one entry of :data:`KINDS`. Kinds that need no rule, because their staleness is
known without a simulation, are in :data:`EXACT_KINDS`.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = [
    "ALL_KINDS",
    "CANCELLED",
    "COMMITTED",
    "DOWNWEIGHTED",
    "DROPPED",
    "EXACT_KINDS",
    "KINDS",
    "KIND_NAMES",
    "LOST",
    "PARAMETERS",
    "WEIGHTS",
    "ExactKind",
    "Kind",
    "Parameter",
    "State",
    "actor_learner",
    "asynchronous",
    "bounded",
    "cancel_open",
    "commit_pending",
    "decide_sample",
    "deliver",
    "enqueue",
    "fill_batch",
    "join_queue",
    "k_async",
    "k_batch_async",
    "k_batch_sync",
    "k_sync",
    "leave_queue",
    "lose",
    "park",
    "release",
    "release_all",
    "round_robin",
    "row",
    "stale_synchronous",
    "start",
    "tree",
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


WEIGHTS: dict[str, Callable[[Any], Any]] = {
    "1/sqrt(1+staleness)": lambda staleness: (1.0 + staleness) ** -0.5,
    "1/(1+staleness)": lambda staleness: 1.0 / (1.0 + staleness),
}


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
    sizes: Any  # [3] how many rows, released, cancelled stand in the outboxes
    row_worker: Any
    row_read: Any
    row_staleness: Any
    row_kind: Any
    row_last: Any  # staleness counted from the version when the sample was finished (actor-learner)
    row_place: Any  # where in `pending_*` the sample stood (actor-learner)
    released: Any
    cancelled: Any


# -- the helpers that rules are written with ----------------------------------------------------------------------


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


# -- the rules ----------------------------------------------------------------------------------------------------


def start(s: State, worker: int) -> None:
    """The worker reads the version, unless a rule already handed it one (round robin)."""
    if s.read[worker] == CLOSED:
        s.read[worker] = s.version[0]


def lose(s: State, worker: int) -> None:
    """The worker's machine is struck while it computes: its gradient is lost. It reads again when it is back."""
    row(s, worker, s.read[worker], LOST)
    s.read[worker] = CLOSED


def asynchronous(s: State, worker: int) -> None:
    """Each push is an update; the pusher reads at once."""
    row(s, worker, s.read[worker], COMMITTED)
    s.read[worker] = CLOSED
    update(s)
    release(s, worker)


def round_robin(s: State, worker: int) -> None:
    """Updates are applied in the order of the workers; each gets back the version its own update made."""
    s.pending_read[worker] = s.read[worker]
    s.read[worker] = CLOSED
    turn = s.clock[0]
    while s.pending_read[turn] != CLOSED:
        row(s, turn, s.pending_read[turn], COMMITTED)
        s.pending_read[turn] = CLOSED
        update(s)
        s.read[turn] = s.version[0]
        release(s, turn)
        turn = turn + 1 if turn + 1 < s.workers else 0
    s.clock[0] = turn


def k_sync(s: State, worker: int) -> None:
    """The first K workers make the update, the work of the rest is cancelled, all restart."""
    if enqueue(s, worker) == s.k:
        commit_pending(s)
        cancel_open(s)
        update(s)
        release_all(s)


def k_batch_sync(s: State, worker: int) -> None:
    """The first K gradients, from anybody, make the update; the rest are cancelled, all restart."""
    if enqueue(s, worker) == s.k:
        commit_pending(s)
        cancel_open(s)
        update(s)
        release_all(s)
    else:
        release(s, worker)


def k_async(s: State, worker: int) -> None:
    """The first K workers to push make the update, having waited for it; the others compute on."""
    if enqueue(s, worker) == s.k:
        for i in range(s.k):
            release(s, s.pending_worker[i])
        commit_pending(s)
        update(s)


def k_batch_async(s: State, worker: int) -> None:
    """Every K-th push is an update of the last K gradients; nobody waits."""
    if enqueue(s, worker) == s.k:
        commit_pending(s)
        update(s)
    release(s, worker)


def stale_synchronous(s: State, worker: int) -> None:
    """Each push is an update; a worker starts clock c only while the slowest clock is at least c - bound."""
    row(s, worker, s.read[worker], COMMITTED)
    s.read[worker] = CLOSED
    update(s)
    clock = s.clock[worker]
    s.clock[worker] = clock + 1
    ring = s.bound + 2
    place = s.slowest[1] + clock - s.slowest[0]
    if place >= ring:
        place -= ring
    following = place + 1 if place + 1 < ring else 0
    s.at_clock[place] -= 1
    s.at_clock[following] += 1
    opened = clock == s.slowest[0] and s.at_clock[place] == 0
    if opened:
        s.slowest[0] = clock + 1
        s.slowest[1] = following
    if clock + 1 - s.slowest[0] <= s.bound:
        release(s, worker)
    else:
        s.pending_worker[s.pending[0]] = worker
        s.pending[0] += 1
    if opened:  # whoever is blocked is blocked at slowest + bound + 1, so all of them may go
        for i in range(s.pending[0]):
            release(s, s.pending_worker[i])
        s.pending[0] = 0


def bounded(s: State, worker: int) -> None:
    """Asynchronous, but a gradient staler than the maximum is dropped or downweighted; the pusher reads at once."""
    kind = s.too_stale if s.version[0] - s.read[worker] > s.maximum_staleness else COMMITTED
    row(s, worker, s.read[worker], kind)
    s.read[worker] = CLOSED
    if kind != DROPPED:
        update(s)
    release(s, worker)


def actor_learner(s: State, slot: int) -> None:
    """Samples of the generators queue for the learner, who learns B at a time; a generator may start one only while
    the samples that are accepted or under way stay within the budget."""
    if slot < s.workers:
        join_queue(s, slot, 0)
        park(s, slot, 0)
        s.accepted[0] += 1
    else:
        s.read[slot] = CLOSED
        for place in range(s.k):
            decide_sample(s, place, COMMITTED)
        s.pending[0] = 0
        update(s)
    fill_batch(s)
    running = s.workers - s.idle_ends[LENGTH]
    room = min(s.limit - running, (s.bound + s.version[0] + 1) * s.k - s.accepted[0] - running)
    while room > 0:
        wake(s, 0)
        room -= 1


def fill_batch(s: State) -> None:
    """A learner without a full batch takes the oldest samples, drops those that are too stale, and starts on B."""
    if s.pending[0] == s.k:
        return
    while s.queue_ends[LENGTH] > 0 and s.pending[0] < s.k:
        place = s.k + s.queue_ends[HEAD]
        if s.version[0] - s.pending_read[place] > s.maximum_staleness:
            decide_sample(s, place, DROPPED)
            s.accepted[0] -= 1
        leave_queue(s, 0)
    if s.pending[0] == s.k:
        release(s, s.workers)


def decide_sample(s: State, place: int, kind: int) -> None:
    """The fate of the sample at a place of `pending_*`."""
    n = s.sizes[ROWS]
    s.row_last[n] = s.version[0] - s.pending_last[place]
    s.row_place[n] = place
    row(s, s.pending_worker[place], s.pending_read[place], kind)
    s.pending_read[place] = CLOSED


def tree(s: State, slot: int) -> None:
    """Every leaf hands on its workers' pushes, a message for every so many of them, and one message at a time; the
    root makes an update of the last K gradients. A pusher reads at once, unless its leaf holds too many messages."""
    leaf = s.leaf_of[slot]
    if slot < s.workers:
        join_queue(s, slot, leaf)
        park(s, slot, leaf)
    else:
        s.read[slot] = CLOSED
        deliver(s, leaf)
    if s.queue_ends[2 * leaf + LENGTH] >= s.leaf_k:
        link = s.workers + leaf
        if s.forwards == 0:
            deliver(s, leaf)
        elif s.read[link] == CLOSED:
            s.read[link] = s.version[0]
            release(s, link)
    if s.queue_ends[2 * leaf + LENGTH] < s.limit:
        for _ in range(s.idle_ends[2 * leaf + LENGTH]):
            wake(s, leaf)


def deliver(s: State, leaf: int) -> None:
    """A leaf's oldest message reaches the root."""
    for _ in range(s.leaf_k):
        leave_queue(s, leaf)
    if s.pending[0] == s.k:
        commit_pending(s)
        update(s)


# -- the registry -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter:
    """One key of ``[protocol]``: a whole number from ``minimum`` to ``maximum``, or one of ``choices``."""

    summary: str
    minimum: int = 0
    maximum: int = 2**40
    choices: tuple[str, ...] = ()


PARAMETERS: dict[str, Parameter] = {
    "k": Parameter("gradients in each update", minimum=1, maximum=1_000_000),
    "bound": Parameter("clocks a worker may be ahead of the slowest", maximum=1_000_000),
    "maximum_staleness": Parameter("updates a gradient may be old"),
    "policy": Parameter("what becomes of a gradient that is too stale", choices=("reject", "downweight")),
    "weight": Parameter("its weight, with downweight", choices=tuple(WEIGHTS)),
    "stages": Parameter("stages of the pipeline, one worker each", minimum=1, maximum=10_000),
    "batch": Parameter("samples in each update of the learner", minimum=1, maximum=1_000_000),
    "staleness_budget": Parameter("updates that bound the mean staleness, not each sample's", maximum=1_000_000),
    "discard_older_than": Parameter("updates a sample may be old when the learner takes it"),
    "limit": Parameter("generators at work at once, all if left out", minimum=1, maximum=1_000_000),
    "read": Parameter("when a generator reads the weights", choices=("start", "continuous")),
}


@dataclass(frozen=True)
class Kind:
    """One protocol kind: its rule, the keys of ``[protocol]`` it takes, and what a reader should know."""

    finish: Callable[[State, int], None]
    summary: str
    parameters: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    all_workers: bool = False  # K is the number of workers
    distinct: bool = False  # K gradients of K different workers: K may not exceed their number
    table: str = ""  # the table of a scenario that goes with this kind only, and which it needs

    def gradients(self, workers: int, parameters: dict[str, Any]) -> int:
        """In each update, not counting cancelled ones."""
        if self.all_workers:
            return workers
        sizes = (int(parameters.get(key, 1)) for key in ("k", "batch", "leaf_k", "root_k"))
        return math.prod(sizes)

    def state(
        self,
        workers: int,
        parameters: dict[str, Any],
        rows: int,
        make: Callable[[int, int, int], Any],
        extras: int = 0,
    ) -> State:
        """A fresh state with room for ``rows`` rows and what one more event may add to them. ``make(size, fill, bits)``
        builds its sequences (lists or arrays); 32 bits, none of them a sign, are enough for counts and workers. There
        are ``extras`` slots besides the workers."""
        k = self.gradients(workers, parameters)
        bound = int(parameters.get("bound", parameters.get("staleness_budget", 0)))
        limit = min(workers, int(parameters.get("limit", workers)))
        leaf_k, leaves = int(parameters.get("leaf_k", 1)), int(parameters.get("leaves", 0))
        queues, room, starting = 0, 1, workers
        decided = workers + k  # one event decides at most k gradients that waited and cancels the rest
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
            sizes=sizes,
            row_worker=make(rows + decided, 0, 64),
            row_read=make(rows + decided, 0, 64),
            row_staleness=make(rows + decided, 0, 64),
            row_kind=make(rows + decided, 0, 64),
            row_last=make(per_sample, 0, 64),
            row_place=make(per_sample, 0, 64),
            released=released,
            cancelled=make(workers, 0, 32),
        )


KINDS: dict[str, Kind] = {
    "asynchronous": Kind(asynchronous, "each push is an update; the pusher reads at once"),
    "round-robin": Kind(round_robin, "updates are applied in fixed worker order; who is early waits"),
    "synchronous": Kind(k_sync, "a barrier over all: everybody's gradients make one update", all_workers=True),
    "k-sync": Kind(
        k_sync,
        "the first K of M workers make the update, the rest are cancelled, all restart",
        parameters=("k",),
        required=("k",),
        distinct=True,
    ),
    "backup-workers": Kind(
        k_sync,
        "synchronous over K with M - K backups, whose unfinished work is cancelled (the rule of k-sync)",
        parameters=("k",),
        required=("k",),
        distinct=True,
    ),
    "k-batch-sync": Kind(
        k_batch_sync,
        "the first K gradients from anybody make the update, the rest are cancelled, all restart",
        parameters=("k",),
        required=("k",),
    ),
    "k-async": Kind(
        k_async,
        "the first K distinct pushers make the update, having waited for it; the others compute on",
        parameters=("k",),
        required=("k",),
        distinct=True,
    ),
    "k-batch-async": Kind(
        k_batch_async,
        "every K-th push is an update, nobody waits (n-softsync; FedBuff with buffer K)",
        parameters=("k",),
        required=("k",),
    ),
    "stale-synchronous": Kind(
        stale_synchronous,
        "a worker starts clock c only while the slowest clock is at least c - bound",
        parameters=("bound",),
        required=("bound",),
    ),
    "bounded": Kind(
        bounded,
        "asynchronous; a gradient staler than the maximum is dropped, or given less weight",
        parameters=("maximum_staleness", "policy", "weight"),
        required=("maximum_staleness",),
    ),
    "actor-learner": Kind(
        actor_learner,
        "generators' samples queue for a learner; a budget on the mean staleness gates the generators",
        parameters=("batch", "staleness_budget", "discard_older_than", "limit", "read"),
        required=("batch", "staleness_budget"),
        table="learner",
    ),
    "tree": Kind(
        tree,
        "workers push to leaves, which forward a message for every so many pushes to a root; nobody waits",
        table="tree",
    ),
}


@dataclass(frozen=True)
class ExactKind:
    """A protocol kind without a rule: ``asyncq.theory`` knows its staleness, and no engine runs it."""

    summary: str
    parameters: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    distinct: bool = False
    table: str = ""


EXACT_KINDS: dict[str, ExactKind] = {
    "pipeline": ExactKind(
        "pipelined SGD with weight stashing (1F1B): stage s of S is S - s updates late; exact, no simulation",
        parameters=("stages",),
        required=("stages",),
    ),
}
ALL_KINDS: ChainMap[str, Kind | ExactKind] = ChainMap(EXACT_KINDS, KINDS)  # type: ignore[arg-type]  # KINDS come first
