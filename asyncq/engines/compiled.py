"""The compiled engine: the same protocol rules and the same variates, through a calendar of its own.

Every slot of the calendar (a worker, an extra one such as a learner, or a seat of a shard) has at most one pending
event, so events are replaced in place: a winner tree whose keys carry the slot in the low bits of the event's time.
Where two keys differ only there, times and the order of scheduling are compared exactly, so that the order of events is
that of the SimPy engine to the last tie.

The kernel is one function body, specialised by constants: the name of the rule and the legs of the route. It returns
with a reason, and goes on where it stopped when it is called again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
from numba.core import types
from numba.core.compiler import Compiler
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from asyncq import clients as clients_module
from asyncq import machines as machines_module
from asyncq import protocols, variates
from asyncq import state as state_module
from asyncq.clients import Clients, arrives, attribute, call, must_draw
from asyncq.engines import Chunk, MachineTime, check_progress, why_stuck
from asyncq.errors import DeadlockError
from asyncq.graphs import Neighbours
from asyncq.machines import NEVER as NO_TIME
from asyncq.machines import Machines, back_in_service, ends, struck, used
from asyncq.network import Network
from asyncq.protocols import KINDS
from asyncq.state import (
    CANCELLED_WORKERS,
    CLOSED,
    DROPPED,
    RELEASED,
    ROWS,
    apply_part,
    lose,
    read_shards,
    start,
)
from asyncq.variates import BLOCK, Variates

__all__ = ["CompiledEngine"]

RESTART, PULL, WORK, PUSH, SERVICE, PARKED, STRUCK, REPAIR, GONE = range(9)  # what a worker's pending event ends
ROWS_FULL, STREAM_EMPTY, TARGET_REACHED, CALENDAR_EMPTY, TIME_UP = range(5)  # why the kernel returned
NEVER = np.uint64(0x7FF0_0000_0000_0000)  # the bits of infinity: keys from here on are empty slots


class Calendar(NamedTuple):
    """Pending events. ``tree`` is a winner tree of keys, leaves in the upper half; ``due`` and ``order`` are exact.

    Restarts happen at the instant at which they are scheduled and come by the hundred: they wait in a ring, first in
    first out, outside the tree. An entry of the ring is void when its slot has been scheduled again.
    """

    tree: Any  # uint64 [2 * leaves]
    due: Any  # float64 [slots], seconds
    order: Any  # int64 [slots], the number of the scheduling
    scheduled: Any  # int64 [1], how many so far
    now: Any  # float64 [1], seconds
    ring: Any  # int64 [a power of two, twice the slots or more]
    ring_order: Any  # int64 [same], the number of the scheduling
    ring_ends: Any  # int64 [2], its head and its length
    mask: Any  # uint64, the bits that hold a slot


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


# -- compiling rules --------------------------------------------------------------------------------------------------

F = TypeVar("F", bound=Callable[..., Any])


def _jit(function: F, **options: Any) -> F:
    """Machine code without reference counts: nothing in it allocates, and counting cost ten times as much."""
    njit: Any = numba.njit  # whose declared options leave out _nrt
    return njit(error_model="numpy", nogil=True, _nrt=False, **options)(function)  # type: ignore[no-any-return]


class _NothingAliases(Compiler):
    """No two arrays of the kernel share memory; knowing that, the compiler may keep their values in registers."""

    def define_pipelines(self) -> Any:
        self.state.flags.noalias = True
        usual: Any = super()
        return usual.define_pipelines()


def _inlined(function: F) -> F:
    return _jit(function, forceinline=True)


@cache
def _compiled(function: Callable[..., Any]) -> Any:
    """A rule as machine code: the same code object, with the rules it calls compiled too."""
    names = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    called = {name: _compiled(value) for name, value in names.items() if isinstance(value, FunctionType)}
    return _inlined(FunctionType(function.__code__, {**function.__globals__, **called}, function.__name__))


def _fingerprint(rule: Callable[..., Any]) -> str:
    """Changes whenever a source file does that the kernel is made of: the disk cache would not see that by itself."""
    modules = clients_module, machines_module, protocols, state_module, variates
    sources = {__file__, rule.__code__.co_filename, *(str(module.__file__) for module in modules)}
    return hashlib.sha256(b"".join(Path(source).read_bytes() for source in sorted(sources))).hexdigest()


def _rules() -> list[Callable[[Any, int], None] | None]:
    """What happens when a gradient arrives, by kind, and then what does when every shard has applied it."""
    return [kind.finish for kind in KINDS.values()] + [kind.joined for kind in KINDS.values()]


def _finish(rule: int, state: Any, worker: int) -> None:
    """A rule by its place in the list: a number, because numba takes only those for literals."""
    raise NotImplementedError


@overload(_finish, prefer_literal=True, strict=False)
def _finish_compiled(rule: Any, state: Any, worker: Any) -> Callable[..., None] | None:
    if not isinstance(rule, types.Literal):
        return None
    chosen = _rules()[rule.literal_value]
    assert chosen is not None
    called = _compiled(chosen)
    return lambda rule, state, worker: called(state, worker)


_start, _read_shards, _apply_part = _compiled(start), _compiled(read_shards), _compiled(apply_part)
_lose = _compiled(lose)
_arrives, _attribute, _call_client, _must_draw = (_compiled(one) for one in (arrives, attribute, call, must_draw))
_ends, _struck, _used, _back_in_service = _jit(ends), _jit(struck), _jit(used), _jit(back_in_service)


# -- the calendar -----------------------------------------------------------------------------------------------------


@intrinsic
def _bits_of(typing: Any, value: Any) -> Any:
    """The bits of a time as an integer; for times from 0 on, both have the same order."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.uint64))

    return types.uint64(types.float64), generate


_bits: Any = _bits_of  # which is called without the typing context

@_inlined
def _climb(calendar: Calendar, slot: int, key: np.uint64) -> None:
    """Let a slot's new key play its matches, from its leaf to the root."""
    tree, mask = calendar.tree, calendar.mask
    node = np.uint64(tree.size >> 1) + np.uint64(slot)
    first, closest = key, NEVER
    tree[node] = key
    while node > np.uint64(1):
        other = tree[node ^ np.uint64(1)]
        closest = min(closest, other ^ key)
        key = min(other, key)
        node >>= np.uint64(1)
        tree[node] = key
    if closest <= mask:
        _climb_exactly(calendar, slot, first)


@_jit
def _climb_exactly(calendar: Calendar, slot: int, key: np.uint64) -> None:
    """The same where times agree in the bits that a key has room for."""
    tree, due, order, mask = calendar.tree, calendar.due, calendar.order, calendar.mask
    node = np.uint64(tree.size >> 1) + np.uint64(slot)
    while node > np.uint64(1):
        other = tree[node ^ np.uint64(1)]
        if (other ^ key) <= mask:
            mine, theirs = key & mask, other & mask
            if due[theirs] < due[mine] or (due[theirs] == due[mine] and order[theirs] < order[mine]):
                key = other
        else:
            key = min(other, key)
        node >>= np.uint64(1)
        tree[node] = key


@_inlined
def _put(calendar: Calendar, slot: int, time: float) -> None:
    """Schedule the slot's only event."""
    calendar.due[slot] = time
    calendar.order[slot] = calendar.scheduled[0]
    calendar.scheduled[0] += 1
    _climb(calendar, slot, (_bits(time) & ~calendar.mask) | np.uint64(slot))


@_inlined
def _clear(calendar: Calendar, slot: int) -> None:
    """The slot has no event any more. Empty keys differ above the mask, so that they are no near-ties."""
    _climb(calendar, slot, NEVER + (np.uint64(slot) + np.uint64(1)) * (calendar.mask + np.uint64(1)))


@_inlined
def _restart(calendar: Calendar, slot: int, time: float) -> None:
    """Schedule the slot's only event for this instant; the slot has none in the tree."""
    calendar.due[slot] = time
    calendar.order[slot] = calendar.scheduled[0]
    if calendar.ring_ends[1] == calendar.ring.size:
        _drop_void(calendar)
    at = (calendar.ring_ends[0] + calendar.ring_ends[1]) & (calendar.ring.size - 1)
    calendar.ring[at] = slot
    calendar.ring_order[at] = calendar.scheduled[0]
    calendar.ring_ends[1] += 1
    calendar.scheduled[0] += 1


@_jit
def _drop_void(calendar: Calendar) -> None:
    """Keep the entries of the ring that still stand: at most one a slot."""
    head, kept, wrap = calendar.ring_ends[0], 0, calendar.ring.size - 1
    for i in range(calendar.ring_ends[1]):
        at, to = (head + i) & wrap, (head + kept) & wrap
        if calendar.order[calendar.ring[at]] == calendar.ring_order[at]:
            calendar.ring[to], calendar.ring_order[to] = calendar.ring[at], calendar.ring_order[at]
            kept += 1
    calendar.ring_ends[1] = kept


@_inlined
def _next(calendar: Calendar) -> int:
    """The slot whose event is next, -1 if there is none. In the tree it stays until it is put again or cleared."""
    root = calendar.tree[1]
    first: Any = np.intp(root & calendar.mask)
    while calendar.ring_ends[1] > 0:
        at = calendar.ring_ends[0]
        slot = calendar.ring[at]
        stands = calendar.order[slot] == calendar.ring_order[at]
        due, order = calendar.due, calendar.order
        if stands and root < NEVER and (due[first], order[first]) < (due[slot], order[slot]):
            return first  # type: ignore[no-any-return]
        calendar.ring_ends[0] = (at + 1) & (calendar.ring.size - 1)
        calendar.ring_ends[1] -= 1
        if stands:
            return slot  # type: ignore[no-any-return]
    return -1 if root >= NEVER else first


def _calendar(slots: int, starting: int | None = None) -> Calendar:
    """The first slots (all, if not told how many) start at time 0, in their order."""
    starting = slots if starting is None else starting
    levels = max(1, int(slots - 1).bit_length())
    leaves = 1 << levels
    tree = np.zeros(2 * leaves, dtype=np.uint64)
    tree[leaves:] = NEVER + (np.arange(leaves, dtype=np.uint64) + np.uint64(1)) * np.uint64(leaves)
    for level in range(levels):
        low = leaves >> level
        tree[low >> 1 : low] = tree[low : 2 * low].reshape(-1, 2).min(axis=1)
    ring = np.zeros(2 * leaves, dtype=np.int64)
    ring[:starting] = np.arange(starting)
    return Calendar(
        tree=tree,
        due=np.zeros(slots),
        order=np.arange(slots),
        scheduled=np.array([starting]),
        now=np.zeros(1),
        ring=ring,
        ring_order=ring.copy(),
        ring_ends=np.array([0, starting]),
        mask=np.uint64(leaves - 1),
    )


# -- the kernel -------------------------------------------------------------------------------------------------------


@_inlined
def _draw(streams: Streams, stream: int) -> float:
    number: Any = np.uintp(stream)
    at = streams.position[number]
    streams.position[number] = at + 1
    if at >= BLOCK:
        streams.starved[0] = 1
    return streams.values[number, np.uintp(at)]  # type: ignore[no-any-return]


@_inlined
def _fill(column: Any, first: np.uint32, end: np.uint32, value: float) -> None:
    """Rows from the first up to the end; where that is one row, the compiler sees it."""
    while first != end:
        column[first] = value
        first = np.uint32(first + np.uint32(1))


@_inlined
def _leave(queue: Queue, workers: Workers, worker: int, now: float) -> None:
    queue.counts[2] += 1
    queue.totals[1] += now - workers.seated[worker]


@_inlined
def _evict(queue: Queue, workers: Workers, worker: int, now: float) -> None:
    if workers.stage[worker] == SERVICE:
        _leave(queue, workers, worker, now)
    elif queue.waiting[worker]:
        queue.waiting[worker] = 0


@_inlined
def _close_ranks(queue: Queue) -> None:
    """Drop from the ring whoever does not wait any more."""
    head, length, wrap = queue.counts[0], queue.counts[1], queue.ring.size - 1
    kept = 0
    for i in range(length):
        worker = queue.ring[(head + i) & wrap]
        if queue.waiting[worker]:
            queue.ring[(head + kept) & wrap] = worker
            kept += 1
    queue.counts[1] = kept


@_jit
def _computes(calendar: Calendar, streams: Streams, machines: Machines, workers: Workers, worker: int) -> None:
    """The worker computes from now on; its event is the end, or what strikes one of its machines before."""
    now = calendar.now[0]
    end, strike = now, NO_TIME
    for machine in range(machines.first[worker], machines.first[worker + 1]):
        end = max(end, _ends(machines, machine, now, _draw(streams, machines.work[machine])))
        if machines.after[machine] >= 0 and machines.left[machine] < 0.0:
            machines.left[machine] = _draw(streams, machines.after[machine])
        strike = min(strike, _struck(machines, machine, now))
    end += machines.together
    workers.stage[worker] = STRUCK if strike < end else WORK
    _put(calendar, worker, min(end, strike))


@_jit
def _is_away(calendar: Calendar, streams: Streams, machines: Machines, workers: Workers, worker: int) -> None:
    """One of the worker's machines has been struck; its next event is the return of all of them."""
    now = calendar.now[0]
    workers.spent[7] += now - workers.began[worker]
    workers.began[worker] = now
    back = now
    for machine in range(machines.first[worker], machines.first[worker + 1]):
        if machines.after[machine] >= 0 and machines.fails[machine] <= now:
            machines.left[machine] = -1.0
            back = max(back, now + _draw(streams, machines.repair[machine]))
    workers.stage[worker] = REPAIR
    _put(calendar, worker, _back_in_service(machines, worker, back))


@_inlined
def _call(streams: Streams, clients: Clients, workers: Workers, worker: int, choice: int, now: float) -> None:
    """The slot calls a client, who stays until he goes."""
    uniform = 0.0
    if _must_draw(clients, worker):
        uniform = _draw(streams, choice)
    _call_client(clients, worker, uniform, workers.work, workers.pull, workers.push)
    stays, clients.leaves[worker] = clients.stays[clients.serving[worker]], NO_TIME
    if stays >= 0:
        clients.leaves[worker] = now + _draw(streams, stays)


@_inlined
def _sit(calendar: Calendar, streams: Streams, shards: Shards, first: int, seat: int, worker: int, stream: int) -> None:
    """The worker's part is served in a seat, from now on; ``first`` is the slot of the first seat of all."""
    now = calendar.now[0]
    shards.sitting[seat] = worker
    shards.since[seat] = now
    _put(calendar, first + seat, now + _draw(streams, stream))


@_jit
def _push_to_all(calendar: Calendar, streams: Streams, shards: Shards, workers: int, worker: int, service: int) -> None:
    """The worker's gradient comes to every shard, where its part is served or waits."""
    wrap = shards.ring.shape[1] - 1
    for shard in range(shards.spare.shape[0]):
        counts = shards.counts[shard]
        if counts[2] > 0:
            counts[2] -= 1
            _sit(calendar, streams, shards, workers, shards.spare[shard, counts[2]], worker, service + shard)
        else:
            shards.ring[shard, (counts[0] + counts[1]) & wrap] = worker
            counts[1] += 1


@_inlined
def _part_served(
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
        _sit(calendar, streams, shards, state.workers, seat, following, service + shard)
    else:
        _clear(calendar, slot)
        shards.spare[shard, counts[2]] = seat
        counts[2] += 1
    if not complete:
        return -1
    workers.seated[worker] = seated
    return worker  # type: ignore[no-any-return]


@cache
def _kernel(
    rule: int,
    fingerprint: str,
    pulls: bool,
    pushes: bool,
    serves: bool,
    reads_late: bool,
    extras: bool,
    sharded: bool,
    meets: bool,
    disturbed: bool,
    alike: bool,
    called: bool,
) -> Any:
    """The kernel for one rule and one shape of route. The arguments are constants of its code and of its cache key."""

    def advance(  # type: ignore[no-untyped-def]
        state, calendar, streams, workers, queue, columns, shards, neighbours, machines, clients, service, choice,
        target, rows, until, horizon,
    ):
        fingerprint  # noqa: B018  part of the cache key
        sizes = state.sizes
        while True:
            if state.version[0] >= target:
                return TARGET_REACHED
            if sizes[ROWS] >= rows:
                return ROWS_FULL
            if streams.starved[0]:
                return STREAM_EMPTY
            slot = _next(calendar)
            if slot < 0:
                return CALENDAR_EMPTY
            now = calendar.due[np.uintp(slot)]
            if now > until:  # no restart: those are at an instant that has begun
                return TIME_UP
            if disturbed and now >= horizon:
                calendar.now[0] = now
                return STREAM_EMPTY
            calendar.now[0] = now
            if sharded and slot >= state.workers:
                slot = _part_served(state, calendar, streams, workers, columns, shards, slot, service)
                if slot < 0:
                    continue
            worker: Any = np.uintp(slot)  # unsigned: no index counts from the end
            home: Any = np.uintp(0) if alike else worker  # whose route it takes
            stage = workers.stage[worker]
            if disturbed and slot < state.workers and stage in (WORK, STRUCK):
                _used(machines, slot, now)
            leg, stream = PARKED, 0  # what the worker does next
            if (disturbed and stage == STRUCK) or (called and stage == GONE):
                written = sizes[ROWS]
                _lose(state, worker)
                if called:
                    _attribute(clients, state, written)
                for i in range(written, sizes[ROWS]):
                    columns.time[i] = now
                    if serves:
                        columns.visits[i] = queue.counts[3]
                        columns.waited[i] = queue.totals[0]
                        columns.busy[i] = queue.totals[1]
                    if sharded:
                        columns.visits[i] = shards.counts[state.row_shard[i], 3]
                        columns.waited[i] = shards.totals[state.row_shard[i], 0]
                        columns.busy[i] = shards.totals[state.row_shard[i], 1]
                    if extras:
                        columns.busy[i] = workers.extras[0]
                if disturbed and stage == STRUCK:
                    _is_away(calendar, streams, machines, workers, slot)
                    continue
                workers.spent[7] += now - workers.began[worker]
                stage = RESTART  # with another client
            if pulls and stage == PULL:
                workers.pulled[worker] = now
                if reads_late:
                    state.read[worker] = state.version[0]
                    if sharded:
                        _read_shards(state, slot)
                leg, stream = WORK, workers.work[home]
            elif pushes and stage == WORK and workers.push[home] >= 0:
                workers.worked[worker] = now
                leg, stream = PUSH, workers.push[home]
            elif serves and stage in (WORK, PUSH):
                workers.joined[worker] = now
                if not pushes or stage == WORK:
                    workers.worked[worker] = now
                if queue.counts[2] > 0:
                    queue.counts[2] -= 1
                    workers.seated[worker] = now
                    leg, stream = SERVICE, service
                else:
                    queue.ring[(queue.counts[0] + queue.counts[1]) & (queue.ring.size - 1)] = worker
                    queue.counts[1] += 1
                    queue.waiting[worker] = 1
            elif sharded and stage in (WORK, PUSH):
                workers.joined[worker] = now
                if not pushes or stage == WORK:
                    workers.worked[worker] = now
                _push_to_all(calendar, streams, shards, state.workers, slot, service)
            else:
                goes_on = True
                if disturbed and stage == REPAIR:
                    workers.spent[8] += now - workers.began[worker]
                elif stage != RESTART:
                    began = workers.began[worker]
                    pulled = workers.pulled[worker] if pulls else began
                    worked = joined = seated = now
                    if sharded:
                        worked, joined, seated = workers.worked[worker], workers.joined[worker], workers.seated[worker]
                    elif serves:
                        worked, joined, seated = workers.worked[worker], workers.joined[worker], workers.seated[worker]
                        _leave(queue, workers, worker, now)
                        queue.counts[3] += 1
                        queue.totals[0] += seated - joined
                    elif pushes and stage == PUSH:
                        worked = workers.worked[worker]
                    workers.stage[worker] = PARKED
                    written = sizes[ROWS]
                    if meets:
                        at = neighbours.first[worker] + int(_draw(streams, choice) * neighbours.degree[worker])
                        state.neighbour[0] = (slot + neighbours.offsets[np.uintp(at)]) % state.workers
                    if called and slot < state.workers:
                        _arrives(clients, slot)
                    sizes[RELEASED] = 0  # emptied here, so that for simple rules nothing is left of the loops below
                    sizes[CANCELLED_WORKERS] = 0
                    _finish(rule, state, worker)
                    if called:
                        _attribute(clients, state, written)
                    _fill(columns.time, written, sizes[ROWS], now)
                    if extras and slot >= state.workers:
                        workers.extras[0] += now - began
                    elif not extras and sizes[ROWS] > written and state.row_kind[written] == DROPPED:
                        workers.spent[6] += now - began
                    else:
                        workers.spent[1] += worked - pulled
                        if pulls:
                            workers.spent[0] += pulled - began
                        if pushes:
                            workers.spent[2] += joined - worked
                        if serves or sharded:
                            workers.spent[3] += seated - joined
                            workers.spent[4] += now - seated
                    if extras:
                        if slot < state.workers:
                            workers.lasted[state.arrived[0]] = now - began
                        for i in range(written, sizes[ROWS]):
                            columns.busy[i] = workers.extras[0]
                            if state.row_kind[i] == DROPPED:  # its work is work no more
                                workers.spent[1] -= workers.lasted[state.row_place[i]]
                                workers.spent[6] += workers.lasted[state.row_place[i]]
                    if sizes[CANCELLED_WORKERS]:
                        for i in range(sizes[CANCELLED_WORKERS]):
                            other = state.cancelled[i]
                            workers.spent[5] += now - workers.began[other]
                            if serves:
                                _evict(queue, workers, other, now)
                            if disturbed and workers.stage[other] in (WORK, STRUCK):
                                _used(machines, other, now)
                            if workers.stage[other] != PARKED:
                                _clear(calendar, other)
                        if serves:
                            _close_ranks(queue)
                    if serves:
                        for i in range(written, sizes[ROWS]):
                            columns.visits[i] = queue.counts[3]
                            columns.waited[i] = queue.totals[0]
                            columns.busy[i] = queue.totals[1]
                        while queue.counts[2] > 0 and queue.counts[1] > 0:
                            other = queue.ring[queue.counts[0]]
                            queue.counts[0] = (queue.counts[0] + 1) & (queue.ring.size - 1)
                            queue.counts[1] -= 1
                            queue.counts[2] -= 1
                            queue.waiting[other] = 0
                            workers.seated[other] = now
                            workers.stage[other] = SERVICE
                            _put(calendar, other, now + _draw(streams, service))
                    released = sizes[RELEASED]
                    goes_on = released == 1 and state.released[0] == np.uint32(slot)  # of some rules always
                    if not goes_on:
                        for i in range(released):
                            other = state.released[i]
                            if other == np.uint32(slot):
                                goes_on = True
                            elif not disturbed or workers.stage[other] != REPAIR:  # else it reads when it is back
                                workers.stage[other] = RESTART
                                workers.began[other] = now  # it may hold a version already (round robin)
                                _restart(calendar, other, now)
                if goes_on:
                    _start(state, worker)
                    if sharded:
                        _read_shards(state, slot)
                    if called and slot < state.workers:
                        _call(streams, clients, workers, slot, choice, now)
                        if disturbed:
                            machines.work[worker] = workers.work[worker]
                    workers.began[worker] = now
                    if pulls:
                        workers.pulled[worker] = now
                    if pulls and workers.pull[home] >= 0:
                        leg, stream = PULL, workers.pull[home]
                    else:
                        leg, stream = WORK, workers.work[home]
            if disturbed and leg == WORK and slot < state.workers:
                _computes(calendar, streams, machines, workers, slot)
                if called and clients.leaves[worker] < calendar.due[worker]:
                    workers.stage[worker] = GONE
                    _put(calendar, worker, clients.leaves[worker])
                continue
            workers.stage[worker] = leg
            if leg == PARKED:
                _clear(calendar, worker)
                continue
            due = now + _draw(streams, stream)
            if called and leg != SERVICE and slot < state.workers and clients.leaves[worker] < due:
                workers.stage[worker] = GONE
                due = clients.leaves[worker]
            _put(calendar, worker, due)

    try:
        return _jit(advance, cache=True, pipeline_class=_NothingAliases)
    except RuntimeError:  # nowhere to keep a cache
        return _jit(advance)


class CompiledEngine:
    """A network as machine code; rows and totals are those of the SimPy engine to the last bit."""

    name = "compiled"

    def __init__(self, network: Network, variates: Variates) -> None:
        self.network = network
        self._variates = variates
        self._ended: float | None = None  # where the clock, not the updates, ended the run
        self._rows = np.uint32(network.chunk_rows)
        count = network.slots

        def integers(size: int, fill: int) -> NDArray[np.int64]:
            return np.full(size, fill, dtype=np.int64)

        def sequence(size: int, fill: int, bits: int) -> NDArray[Any]:
            return np.full(size, fill, dtype=np.int64 if bits == 64 else np.uint32)  # unsigned: the cheaper index

        sharded, seats = network.is_sharded, min(network.seats, count)
        extras = len(network.extras)
        sizes = network.chunk_rows, sequence, extras, network.shards
        self.state = network.kind.state(network.workers, network.parameters, *sizes)
        starting = int(self.state.sizes[RELEASED])
        self.state.sizes[RELEASED] = 0
        self._calendar = _calendar(count + network.shards * seats if sharded else count, starting)
        spare = network.seats + 1  # one event draws at most one service a seat, and one more variate
        self.machines = None if network.machines is None else network.machines.copy(variates.block)
        if self.machines is not None:
            spare += 2 * self.machines.most  # or for each machine its work, and a time to failure
        values = np.zeros((len(network.laws), BLOCK + spare))
        self._streams = Streams(values, integers(len(network.laws), BLOCK + spare), np.array([1]))
        if self.machines is not None and self.machines.slowness >= 0:
            self._streams.position[self.machines.slowness] = 0  # drawn ahead of time, not of use
        began, pulled, worked, joined, seated = np.zeros((5, count))
        stage = np.full(count, PARKED, dtype=np.int8)
        stage[:starting] = RESTART
        totals = np.zeros(9), np.zeros(1), np.zeros(len(self.state.pending_read))
        self._workers = Workers(*network.routes, stage, began, pulled, worked, joined, seated, *totals)
        room = len(self.state.row_worker)
        waiting = np.zeros(count, dtype=np.int8)
        ring = integers(1 << count.bit_length(), 0)
        self._queue = Queue(ring, waiting, np.array([0, 0, network.seats, 0]), np.zeros(2))
        served = room if network.has_server else 1
        busy = np.zeros(room if network.has_server or extras else 1)
        self._columns = Columns(np.zeros(room), integers(served, 0), np.zeros(served), busy)
        many = network.shards if sharded else 0
        counts = np.tile([0, 0, seats, 0], (many, 1))
        seat = np.arange(many * seats).reshape(many, seats)
        self._shards = Shards(
            ring=np.zeros((many, ring.size), dtype=np.int64),
            counts=counts,
            totals=np.zeros((many, 2)),
            sitting=integers(many * seats, 0),
            since=np.zeros(many * seats),
            where=np.repeat(np.arange(many), seats),
            spare=seat,
        )
        rule = network.kind.joined if sharded else network.kind.finish
        assert rule is not None
        number = _rules().index(rule)  # kinds may share a rule
        places = count + len(self.state.pending_read)
        self._clients = None if network.clients is None else network.clients.copy(room, places)
        routes = network.clients or network
        pulls, pushes = bool((routes.pull >= 0).any()), bool((routes.push >= 0).any())
        serves, disturbed = network.has_server and not sharded, network.machines is not None
        late = pulls and network.read_at_pull_end
        self._neighbours = network.neighbours or Neighbours(*(integers(1, 0) for _ in range(3)))
        called = self._clients is not None
        alike = not called and all((leg == leg[0]).all() for leg in network.routes)
        shape = pulls, pushes, serves, late, bool(extras), sharded, network.kind.peers, disturbed, alike, called
        parts = (self.state, self._calendar, self._streams, self._workers, self._queue, self._columns, self._shards)
        self._parts = (*parts, self._neighbours, self.machines, self._clients, network.service, network.choice)
        limits = 0, self._rows, NO_TIME, NO_TIME
        kernel = _kernel(number, _fingerprint(rule), *shape)
        self._advance = kernel.compile(tuple(map(numba.typeof, self._parts + limits)))  # no look at types at every call

    def chunks(self, updates: int, until: float = NO_TIME) -> Iterator[Chunk]:
        """Advance until ``updates`` updates have been applied in all, or all that happens by ``until`` (seconds) has;
        hand out rows as they fill a chunk, whose arrays are reused by the next."""
        sizes, machines = self.state.sizes, self.machines
        before = self.version
        while self.version < updates and self._ended is None:
            horizon = NO_TIME if machines is None else machines.horizon
            reason = self._advance(*self._parts, updates, self._rows, until, horizon)
            if reason == STREAM_EMPTY:
                self._refill()
                if machines is not None:
                    machines.draw_ahead(self._variates.block, self.now)
            elif reason == CALENDAR_EMPTY:
                queued = set(np.flatnonzero(self._queue.waiting).tolist())
                raise DeadlockError(why_stuck(self.now, self.version, self.state.clock, queued))
            else:
                if reason == TIME_UP:
                    self._ended = until
                rows = self._chunk(int(sizes[ROWS]))
                check_progress(rows, self.version - before, self.now)
                before = self.version
                yield rows
                sizes[ROWS] = 0

    def _refill(self) -> None:
        """Draw the next block of every stream that could run dry within one event."""
        values, position, starved = self._streams
        for stream in np.flatnonzero(position > BLOCK):
            left = values[stream, position[stream] :].copy()
            position[stream] -= BLOCK
            values[stream, position[stream] : position[stream] + left.size] = left
            values[stream, -BLOCK:] = self._variates.block(int(stream))
        starved[0] = 0

    def _chunk(self, rows: int) -> Chunk:
        state, added = self.state, self._columns
        columns = (added.time, state.row_worker, state.row_staleness, state.row_read, state.row_kind)
        station = (added.visits, added.waited, added.busy) if self.network.has_server else ()
        if self.network.is_sharded:
            station = (*station, state.row_shard, state.row_stalest)
        chunk = Chunk(*(column[:rows] for column in columns + station))
        if self._clients is not None:
            chunk = chunk._replace(client=self._clients.row_client[:rows])
        if self.network.neighbours is not None:
            return chunk._replace(neighbour=state.row_neighbour[:rows], averagings=state.row_averagings[:rows])
        if self.network.extras:
            chunk = chunk._replace(busy=added.busy[:rows])
        return chunk._replace(last_staleness=state.row_last[:rows]) if self.network.reads_on else chunk

    @property
    def now(self) -> float:
        """Simulated seconds."""
        return float(self._calendar.now[0]) if self._ended is None else self._ended

    @property
    def version(self) -> int:
        """Updates applied."""
        return int(self.state.version[0])

    @property
    def open_reads(self) -> NDArray[np.int64]:
        """Versions held by the gradients whose fate is still open: in work or waiting for their update."""
        held = np.concatenate([self.state.read[: self.network.workers], self.state.pending_read])
        return np.asarray(held[held != CLOSED])

    @property
    def machine_time(self) -> MachineTime:
        """Where the workers' time went."""
        workers = slice(self.network.workers)
        own = self._workers
        in_repair = own.stage[workers] == REPAIR
        return MachineTime.of(own.spent, own.began[workers], self.state.read[workers], self.now, in_repair=in_repair)
