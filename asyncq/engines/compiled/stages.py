"""The stages of a worker's cycle in the compiled engine: computing, queueing, in service, in repair."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from asyncq.engines import machine_time as spent
from asyncq.engines.compiled.calendar import Calendar, clear, put
from asyncq.engines.compiled.machine_code import compiled_rule, inlined, jit
from asyncq.protocols.state import ROWS
from asyncq.protocols.steps import apply_part
from asyncq.system import clients as of_clients
from asyncq.system.clients import Clients
from asyncq.system.machines import NEVER, Machines, back_in_service, ends, struck
from asyncq.system.variates import BLOCK

__all__ = [
    "BUSY",
    "FREE",
    "GONE",
    "HEAD",
    "PARKED",
    "PULL",
    "PUSH",
    "REPAIR",
    "RESTART",
    "SERVICE",
    "STRUCK",
    "VISITS",
    "WAITED",
    "WAITING",
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
    "leave",
    "part_served",
    "push_to_all",
    "repair",
]

RESTART, PULL, WORK, PUSH, SERVICE, PARKED, STRUCK, REPAIR, GONE = range(9)  # the stage that a worker's event ends
HEAD, WAITING, FREE, VISITS = range(4)  # `counts` of a station: head of its ring, its length, free seats, services
WAITED, BUSY = range(2)  # `totals` of a station, in seconds

_apply_part, _call, _must_draw = (compiled_rule(rule) for rule in (apply_part, of_clients.call, of_clients.must_draw))
_ends, _struck, _back_in_service = jit(ends), jit(struck), jit(back_in_service)


class Streams(NamedTuple):
    """Variates drawn ahead: the next of a stream is ``values[stream, position[stream]]``."""

    values: Any
    position: Any
    starved: Any  # int64 [1], whether a stream must be refilled before the next event


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
    spent: Any  # the totals of machine_time
    extras: Any  # [1] seconds that extra slots have worked
    lasted: Any  # seconds of work on samples whose fate is open, by their place in `pending_*`


class Queue(NamedTuple):
    """The station: a ring of waiting workers, whose size is a power of two, and its counts and totals."""

    ring: Any
    waiting: Any  # int8 [workers]
    counts: Any  # int64 [4] HEAD, WAITING, FREE, VISITS
    totals: Any  # float64 [2] WAITED, BUSY


class Shards(NamedTuple):
    """The stations of a sharded server. Seats have slots of the calendar, after those of the workers; the free seats of
    a shard are the first in its row of ``spare``."""

    ring: Any  # int64 [shards, a power of two]
    counts: Any  # int64 [shards, 4] as in Queue
    totals: Any  # float64 [shards, 2] as in Queue
    sitting: Any  # int64 [shards * seats] the worker served
    since: Any  # float64 [shards * seats]
    where: Any  # int64 [shards * seats] the shard of a seat
    spare: Any  # int64 [shards, seats]


class Columns(NamedTuple):
    """The columns of a row that the engine writes, not the rule."""

    time: Any
    visits: Any
    waited: Any
    busy: Any


@inlined
def draw(streams: Streams, stream: int) -> float:
    """Return the next variate of a stream."""
    number: Any = np.uintp(stream)
    at = streams.position[number]
    streams.position[number] = at + 1
    if at >= BLOCK:
        streams.starved[0] = 1
    return streams.values[number, np.uintp(at)]  # type: ignore[no-any-return]


@inlined
def fill(column: Any, first: np.uint32, end: np.uint32, value: float) -> None:
    """Set the rows from ``first`` up to ``end``; a loop that the compiler drops where it sees a single row."""
    while first != end:
        column[first] = value
        first = np.uint32(first + np.uint32(1))


@inlined
def leave(queue: Queue, workers: Workers, worker: int, now: float) -> None:
    """Free the worker's seat."""
    queue.counts[FREE] += 1
    queue.totals[BUSY] += now - workers.seated[worker]


@inlined
def evict(queue: Queue, workers: Workers, worker: int, now: float) -> None:
    """Remove a cancelled gradient from its seat, or mark it as not waiting."""
    if workers.stage[worker] == SERVICE:
        leave(queue, workers, worker, now)
    elif queue.waiting[worker]:
        queue.waiting[worker] = 0


@inlined
def close_ranks(queue: Queue) -> None:
    """Drop the workers from the ring that wait no more."""
    head, length, wrap = queue.counts[HEAD], queue.counts[WAITING], queue.ring.size - 1
    kept = 0
    for i in range(length):
        worker = queue.ring[(head + i) & wrap]
        if queue.waiting[worker]:
            queue.ring[(head + kept) & wrap] = worker
            kept += 1
    queue.counts[WAITING] = kept


@jit
def computes(calendar: Calendar, streams: Streams, machines: Machines, workers: Workers, worker: int) -> None:
    """Begin the worker's work; its event is the end, or the failure or outage that comes before."""
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
def repair(calendar: Calendar, streams: Streams, machines: Machines, workers: Workers, worker: int) -> None:
    """Begin the repair of a worker's machines; its event is the return of all of them."""
    now = calendar.now[0]
    workers.spent[spent.LOST] += now - workers.began[worker]
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
    """Call a client for the slot, and draw when that client leaves."""
    uniform = 0.0
    if _must_draw(clients, worker):
        uniform = draw(streams, choice)
    _call(clients, worker, uniform, workers.work, workers.pull, workers.push)
    stays, clients.leaves[worker] = clients.stays[clients.serving[worker]], NEVER
    if stays >= 0:
        clients.leaves[worker] = now + draw(streams, stays)


@inlined
def sit(calendar: Calendar, streams: Streams, shards: Shards, first: int, seat: int, worker: int, stream: int) -> None:
    """Begin to serve the worker's part in a seat; ``first`` is the slot of the first seat of all."""
    now = calendar.now[0]
    shards.sitting[seat] = worker
    shards.since[seat] = now
    put(calendar, first + seat, now + draw(streams, stream))


@jit
def push_to_all(calendar: Calendar, streams: Streams, shards: Shards, workers: int, worker: int, service: int) -> None:
    """Push the worker's gradient to every shard, where its part is served or waits."""
    wrap = shards.ring.shape[1] - 1
    for shard in range(shards.spare.shape[0]):
        counts = shards.counts[shard]
        if counts[FREE] > 0:
            counts[FREE] -= 1
            sit(calendar, streams, shards, workers, shards.spare[shard, counts[FREE]], worker, service + shard)
        else:
            shards.ring[shard, (counts[HEAD] + counts[WAITING]) & wrap] = worker
            counts[WAITING] += 1


@inlined
def part_served(
    state: Any, calendar: Calendar, streams: Streams, workers: Workers, columns: Columns, shards: Shards, slot: int,
    service: int,
) -> int:  # fmt: skip
    """End a seat's service: apply the part, seat the next; return the worker if this was its last part, else -1."""
    now, row, seat = calendar.now[0], state.sizes[ROWS], slot - state.workers
    shard, worker = shards.where[seat], shards.sitting[seat]
    counts, totals = shards.counts[shard], shards.totals[shard]
    seated = shards.since[seat]
    counts[VISITS] += 1
    totals[WAITED] += seated - workers.joined[worker]
    totals[BUSY] += now - seated
    columns.time[row] = now
    columns.visits[row] = counts[VISITS]
    columns.waited[row] = totals[WAITED]
    columns.busy[row] = totals[BUSY]
    complete = _apply_part(state, worker, shard)
    if counts[WAITING] > 0:
        following = shards.ring[shard, counts[HEAD]]
        counts[HEAD] = (counts[HEAD] + 1) & (shards.ring.shape[1] - 1)
        counts[WAITING] -= 1
        sit(calendar, streams, shards, state.workers, seat, following, service + shard)
    else:
        clear(calendar, slot)
        shards.spare[shard, counts[FREE]] = seat
        counts[FREE] += 1
    if not complete:
        return -1
    workers.seated[worker] = seated
    return worker  # type: ignore[no-any-return]
