"""The rules of all protocols, and the registry: **the only** protocol semantics.

A protocol is a pair of integer rules over a :class:`~asyncq.protocols.state.State`. ``start(state, worker)``, the same
for all, opens an interval: the worker reads the version. ``finish(state, worker)`` says what the arrival of the
worker's gradient does, by steps that write to the outboxes of the state.

Slots from ``workers`` on are extra: a learner, the links of a tree. An extra slot is parked until a rule releases it,
and ``finish(state, slot)`` says what the end of its work does.

Rules know no time and draw nothing. Adding a protocol is adding a rule and one entry of :data:`KINDS`. Kinds that need
no rule, because their staleness is known without a simulation, are in :data:`EXACT_KINDS`.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable
from typing import Any

from asyncq.protocols.kind import ExactKind, Kind, Parameter
from asyncq.protocols.state import (
    CLOSED,
    COMMITTED,
    DROPPED,
    HEAD,
    LENGTH,
    ROWS,
    State,
    queue_per_leaf,
    sample_queue,
)
from asyncq.protocols.steps import (
    cancel_open,
    commit_pending,
    enqueue,
    join_queue,
    leave_queue,
    park,
    release,
    release_all,
    row,
    update,
    wake,
)

__all__ = [
    "ALL_KINDS",
    "EXACT_KINDS",
    "KINDS",
    "PARAMETERS",
    "WEIGHTS",
    "actor_learner",
    "asynchronous",
    "bounded",
    "decide_sample",
    "deliver",
    "fill_batch",
    "gate",
    "go_on",
    "gossip",
    "k_async",
    "k_batch_async",
    "k_batch_sync",
    "k_sync",
    "round_robin",
    "stale_synchronous",
    "tree",
]

WEIGHTS: dict[str, Callable[[Any], Any]] = {
    "1/sqrt(1+staleness)": lambda staleness: (1.0 + staleness) ** -0.5,
    "1/(1+staleness)": lambda staleness: 1.0 / (1.0 + staleness),
}


# -- the rules ----------------------------------------------------------------------------------------------------


def go_on(s: State, worker: int) -> None:
    """Apply the worker's gradient, an update; it reads at once."""
    s.read[worker] = CLOSED
    update(s)
    release(s, worker)


def asynchronous(s: State, worker: int) -> None:
    """Each push is an update; the pusher reads at once."""
    row(s, worker, s.read[worker], COMMITTED)
    go_on(s, worker)


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
    gate(s, worker)


def gate(s: State, worker: int) -> None:
    """Apply the worker's gradient, an update; raise its clock; release all that may start their next clock."""
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


def gossip(s: State, worker: int) -> None:
    """The worker's copy is averaged with a neighbour's and its gradient applied to it; it reads its copy at once."""
    n, neighbour = s.sizes[ROWS], s.neighbour[0]
    row(s, worker, s.read[worker], COMMITTED)
    s.row_neighbour[n] = neighbour
    s.row_averagings[n] = s.averaged[worker]
    s.averaged[worker] = 0
    s.averaged[neighbour] += 1
    go_on(s, worker)


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
    """Fill the learner's batch with the oldest samples, drop those too stale, and start the learner on B samples."""
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
    """Append the row of the sample at a place of `pending_*`."""
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
    """Deliver a leaf's oldest message to the root."""
    for _ in range(s.leaf_k):
        leave_queue(s, leaf)
    if s.pending[0] == s.k:
        commit_pending(s)
        update(s)


# -- the registry -------------------------------------------------------------------------------------------------


PARAMETERS: dict[str, Parameter] = {
    "k": Parameter("gradients in each update", minimum=1, maximum=1_000_000),
    "bound": Parameter("clocks a worker may be ahead of the slowest", maximum=1_000_000),
    "maximum_staleness": Parameter("updates a gradient may be old"),
    "policy": Parameter("what becomes of a gradient that is too stale", choices=("reject", "downweight")),
    "weight": Parameter("its weight, with downweight", choices=tuple(WEIGHTS)),
    "graph": Parameter("who may average with whom", choices=("ring", "complete", "torus"), edges=True),
    "stages": Parameter("stages of the pipeline, one worker each", minimum=1, maximum=10_000),
    "batch": Parameter("samples in each update of the learner", minimum=1, maximum=1_000_000),
    "staleness_budget": Parameter("updates that bound the mean staleness, not each sample's", maximum=1_000_000),
    "discard_older_than": Parameter("updates a sample may be old when the learner takes it"),
    "limit": Parameter("generators at work at once, all if left out", minimum=1, maximum=1_000_000),
    "read": Parameter("when a generator reads the weights", choices=("start", "continuous")),
}


_ONE_BUFFER = "shards would fill an update with different gradients"
_ONE_TURN = "the order of the updates is one for the whole model"

KINDS: dict[str, Kind] = {
    "asynchronous": Kind(
        asynchronous,
        "each push is an update; the pusher reads at once",
        joined=go_on,
        family="free",
        keeps_all=True,
        nobody_waits=True,
    ),
    "round-robin": Kind(
        round_robin,
        "updates are applied in fixed worker order; who is early waits",
        why_one=_ONE_TURN,
        family="turns",
        keeps_all=True,
        equally_often=True,
    ),
    "synchronous": Kind(
        k_sync,
        "a barrier over all: everybody's gradients make one update",
        all_workers=True,
        why_one=_ONE_BUFFER,
        family="barrier",
        never_stale=True,
        keeps_all=True,
        equally_often=True,
    ),
    "k-sync": Kind(
        k_sync,
        "the first K of M workers make the update, the rest are cancelled, all restart",
        parameters=("k",),
        required=("k",),
        distinct=True,
        why_one=_ONE_BUFFER,
        family="barrier",
        never_stale=True,
    ),
    "backup-workers": Kind(
        k_sync,
        "synchronous over K with M - K backups, whose unfinished work is cancelled (the rule of k-sync)",
        parameters=("k",),
        required=("k",),
        distinct=True,
        why_one=_ONE_BUFFER,
        family="barrier",
        never_stale=True,
    ),
    "k-batch-sync": Kind(
        k_batch_sync,
        "the first K gradients from anybody make the update, the rest are cancelled, all restart",
        parameters=("k",),
        required=("k",),
        why_one=_ONE_BUFFER,
        family="batch barrier",
        never_stale=True,
    ),
    "k-async": Kind(
        k_async,
        "the first K distinct pushers make the update, having waited for it; the others compute on",
        parameters=("k",),
        required=("k",),
        distinct=True,
        why_one=_ONE_BUFFER,
        family="k-async",
        keeps_all=True,
    ),
    "k-batch-async": Kind(
        k_batch_async,
        "every K-th push is an update, nobody waits (n-softsync; FedBuff with buffer K)",
        parameters=("k",),
        required=("k",),
        why_one=_ONE_BUFFER,
        family="free",
        keeps_all=True,
        nobody_waits=True,
    ),
    "stale-synchronous": Kind(
        stale_synchronous,
        "a worker starts clock c only while the slowest clock is at least c - bound",
        parameters=("bound",),
        required=("bound",),
        joined=gate,
        family="gate",
        keeps_all=True,
    ),
    "bounded": Kind(
        bounded,
        "asynchronous; a gradient staler than the maximum is dropped, or given less weight",
        parameters=("maximum_staleness", "policy", "weight"),
        required=("maximum_staleness",),
        why_one="some shards would drop a gradient that others apply",
        family="bounded",
        nobody_waits=True,
    ),
    "gossip": Kind(
        gossip,
        "every worker has a copy; it averages with a random neighbour, then applies its gradient to its own",
        parameters=("graph",),
        peers=True,
        family="free",
        keeps_all=True,
        nobody_waits=True,
    ),
    "actor-learner": Kind(
        actor_learner,
        "generators' samples queue for a learner; a budget on the mean staleness gates the generators",
        parameters=("batch", "staleness_budget", "discard_older_than", "limit", "read"),
        required=("batch", "staleness_budget"),
        table="learner",
        queues=sample_queue,
        family="learner",
    ),
    "tree": Kind(
        tree,
        "workers push to leaves, which forward a message for every so many pushes to a root; nobody waits",
        table="tree",
        queues=queue_per_leaf,
        family="tree",
        keeps_all=True,
    ),
}


EXACT_KINDS: dict[str, ExactKind] = {
    "pipeline": ExactKind(
        "pipelined SGD with weight stashing (1F1B): stage s of S is S - s updates late; exact, no simulation",
        parameters=("stages",),
        required=("stages",),
    ),
}
ALL_KINDS: ChainMap[str, Kind | ExactKind] = ChainMap(EXACT_KINDS, KINDS)  # type: ignore[arg-type]  # KINDS come first
