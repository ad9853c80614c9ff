"""The stages of a worker's cycle in the compiled engine: at work on its machines, waiting, served, away."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from asyncq.engines.compiled.calendar import Calendar, clear, put
from asyncq.engines.compiled.machine_code import compiled_rule, inlined, jit
from asyncq.protocols.state import ROWS
from asyncq.protocols.steps import apply_part
from asyncq.system import clients as of_clients
from asyncq.system.clients import Clients
from asyncq.system.machines import NEVER, Machines, back_in_service, ends, struck
from asyncq.system.variates import BLOCK

__all__ = [
    "GONE",
    "PARKED",
    "PULL",
    "PUSH",
    "REPAIR",
    "RESTART",
    "SERVICE",
    "STRUCK",
    "WORK",
    "Columns",
    "Queue",
    "Shards",
    "Streams",
    "Workers",
    "call",
    "close_ranks",
    "computes",
    "draw",
    "evict",
    "fill",
    "is_away",
    "leave",
    "part_served",
    "push_to_all",
]

RESTART, PULL, WORK, PUSH, SERVICE, PARKED, STRUCK, REPAIR, GONE = range(9)  # what a worker's pending event ends

_apply_part, _call, _must_draw = (compiled_rule(one) for one in (apply_part, of_clients.call, of_clients.must_draw))
_ends, _struck, _back_in_service = jit(ends), jit(struck), jit(back_in_service)


class Streams(NamedTuple):
    """Variates ahead of their use: ``values[stream, position[stream]]`` is next, the last one stands at the end."""

    values: Any
    position: Any
    starved: Any  # int64 [1], whether some stream should be refilled before the next event


class Workers(NamedTuple):
    """Routes (stream numbers) and, for the cycle under way, the times at which its stages ended."""

    work: Any
    pull: Any
    push: Any
    stage: Any
    began: Any
    pulled: Any
    worked: Any
    joined: Any
    seated: Any
    spent: Any  # [9] the first seven fields of MachineTime, lost and repair
    extras: Any  # [1] seconds that extra slots have worked
    lasted: Any  # the work, in seconds, of samples whose fate is open, by their place in `pending_*`


class Queue(NamedTuple):
    """The station: a ring (of a power of two) of waiting workers, free seats, and totals of what was served."""

    ring: Any
    waiting: Any  # int8 [workers]
    counts: Any  # int64 [4] head of the ring, its length, free seats, visits
    totals: Any  # float64 [2] waited, busy


class Shards(NamedTuple):
    """The stations of a sharded server: rings as above, and seats, which have slots of the calendar after the workers'.
    The free seats of a shard are the first of its row in ``spare``."""

    ring: Any  # int64 [shards, a power of two]
    counts: Any  # int64 [shards, 4] as in Queue
    totals: Any  # float64 [shards, 2] as in Queue
    sitting: Any  # int64 [shards * seats] who sits there
    since: Any  # float64 [shards * seats]
    where: Any  # int64 [shards * seats] the shard of a seat
    spare: Any  # int64 [shards, seats]


class Columns(NamedTuple):
    """What the engine adds to a row."""

    time: Any
    visits: Any
    waited: Any
    busy: Any


@inlined
def draw(streams: Streams, stream: int) -> float:
    number: Any = np.uintp(stream)
    at = streams.position[number]
    streams.position[number] = at + 1
    if at >= BLOCK:
        streams.starved[0] = 1
    return streams.values[number, np.uintp(at)]  # type: ignore[no-any-return]


@inlined
def fill(column: Any, first: np.uint32, end: np.uint32, value: float) -> None:
    """Rows from the first up to the end; where that is one row, the compiler sees it."""
    while first != end:
        column[first] = value
        first = np.uint32(first + np.uint32(1))


@inlined
def leave(queue: Queue, workers: Workers, worker: int, now: float) -> None:
    queue.counts[2] += 1
    queue.totals[1] += now - workers.seated[worker]


@inlined
def evict(queue: Queue, workers: Workers, worker: int, now: float) -> None:
    if workers.stage[worker] == SERVICE:
        leave(queue, workers, worker, now)
    elif queue.waiting[worker]:
        queue.waiting[worker] = 0


@inlined
def close_ranks(queue: Queue) -> None:
    """Drop from the ring whoever does not wait any more."""
    head, length, wrap = queue.counts[0], queue.counts[1], queue.ring.size - 1
    kept = 0
    for i in range(length):
        worker = queue.ring[(head + i) & wrap]
        if queue.waiting[worker]:
            queue.ring[(head + kept) & wrap] = worker
            kept += 1
    queue.counts[1] = kept


@jit
def computes(calendar: Calendar, streams: Streams, machines: Machines, workers: Workers, worker: int) -> None:
    """The worker computes from now on; its event is the end, or what strikes one of its machines before."""
    now = calendar.now[0]
    end, strike = now, NEVER
    for machine in range(machines.first[worker], machines.first[worker + 1]):
        end = max(end, _ends(machines, machine, now, draw(streams, machines.work[machine])))
        if machines.after[machine] >= 0 and machines.left[machine] < 0.0:
            machines.left[machine] = draw(streams, machines.after[machine])
        strike = min(strike, _struck(machines, machine, now))
    end += machines.together
    workers.stage[worker] = STRUCK if strike < end else WORK
    put(calendar, worker, min(end, strike))


@jit
def is_away(calendar: Calendar, streams: Streams, machines: Machines, workers: Workers, worker: int) -> None:
    """One of the worker's machines has been struck; its next event is the return of all of them."""
    now = calendar.now[0]
    workers.spent[7] += now - workers.began[worker]
    workers.began[worker] = now
    back = now
    for machine in range(machines.first[worker], machines.first[worker + 1]):
        if machines.after[machine] >= 0 and machines.fails[machine] <= now:
            machines.left[machine] = -1.0
            back = max(back, now + draw(streams, machines.repair[machine]))
    workers.stage[worker] = REPAIR
    put(calendar, worker, _back_in_service(machines, worker, back))


@inlined
def call(streams: Streams, clients: Clients, workers: Workers, worker: int, choice: int, now: float) -> None:
    """The slot calls a client, who stays until he goes."""
    uniform = 0.0
    if _must_draw(clients, worker):
        uniform = draw(streams, choice)
    _call(clients, worker, uniform, workers.work, workers.pull, workers.push)
    stays, clients.leaves[worker] = clients.stays[clients.serving[worker]], NEVER
    if stays >= 0:
        clients.leaves[worker] = now + draw(streams, stays)


@inlined
def sit(calendar: Calendar, streams: Streams, shards: Shards, first: int, seat: int, worker: int, stream: int) -> None:
    """The worker's part is served in a seat, from now on; ``first`` is the slot of the first seat of all."""
    now = calendar.now[0]
    shards.sitting[seat] = worker
    shards.since[seat] = now
    put(calendar, first + seat, now + draw(streams, stream))


@jit
def push_to_all(calendar: Calendar, streams: Streams, shards: Shards, workers: int, worker: int, service: int) -> None:
    """The worker's gradient comes to every shard, where its part is served or waits."""
    wrap = shards.ring.shape[1] - 1
    for shard in range(shards.spare.shape[0]):
        counts = shards.counts[shard]
        if counts[2] > 0:
            counts[2] -= 1
            sit(calendar, streams, shards, workers, shards.spare[shard, counts[2]], worker, service + shard)
        else:
            shards.ring[shard, (counts[0] + counts[1]) & wrap] = worker
            counts[1] += 1


@inlined
def part_served(
    state: Any, calendar: Calendar, streams: Streams, workers: Workers, columns: Columns, shards: Shards, slot: int,
    service: int,
) -> int:  # fmt: skip
    """A seat's service has ended: the part is applied, the seat taken by the next; the worker, if that was its last."""
    now, row, seat = calendar.now[0], state.sizes[ROWS], slot - state.workers
    shard, worker = shards.where[seat], shards.sitting[seat]
    counts, totals = shards.counts[shard], shards.totals[shard]
    seated = shards.since[seat]
    counts[3] += 1
    totals[0] += seated - workers.joined[worker]
    totals[1] += now - seated
    columns.time[row] = now
    columns.visits[row] = counts[3]
    columns.waited[row] = totals[0]
    columns.busy[row] = totals[1]
    complete = _apply_part(state, worker, shard)
    if counts[1] > 0:
        following = shards.ring[shard, counts[0]]
        counts[0] = (counts[0] + 1) & (shards.ring.shape[1] - 1)
        counts[1] -= 1
        sit(calendar, streams, shards, state.workers, seat, following, service + shard)
    else:
        clear(calendar, slot)
        shards.spare[shard, counts[2]] = seat
        counts[2] += 1
    if not complete:
        return -1
    workers.seated[worker] = seated
    return worker  # type: ignore[no-any-return]
