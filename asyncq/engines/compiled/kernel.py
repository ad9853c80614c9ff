"""The compiled engine's kernel: a function body specialised by constants, the number of the rule and a `Shape`.

It returns a reason, and goes on where it stopped when it is called again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba.core import types
from numba.extending import overload

from asyncq.engines import machine_time as spent
from asyncq.engines.compiled import calendar, machine_code, stages
from asyncq.engines.compiled.calendar import clear, following, put, restart
from asyncq.engines.compiled.machine_code import NothingAliases, compiled_rule, jit, kept
from asyncq.engines.compiled.stages import (
    BUSY,
    FREE,
    GONE,
    HEAD,
    PARKED,
    PULL,
    PUSH,
    REPAIR,
    RESTART,
    SERVICE,
    STRUCK,
    VISITS,
    WAITED,
    WAITING,
    WORK,
    call,
    close_ranks,
    computes,
    draw,
    evict,
    fill,
    leave,
    part_served,
    push_to_all,
    repair,
)
from asyncq.protocols import KINDS, state, steps
from asyncq.protocols import rules as protocol_rules
from asyncq.protocols.state import CANCELLED_WORKERS, DROPPED, RELEASED, ROWS
from asyncq.protocols.steps import lose, read_shards, start
from asyncq.system import clients, machines, variates
from asyncq.system.clients import arrives, attribute
from asyncq.system.machines import used

__all__ = ["CALENDAR_EMPTY", "STREAM_EMPTY", "TIME_UP", "Shape", "fingerprint_of", "kernel", "rules"]

ROWS_FULL, STREAM_EMPTY, TARGET_REACHED, CALENDAR_EMPTY, TIME_UP = range(5)  # why the kernel returned


def fingerprint_of(rule: Callable[..., Any]) -> str:
    """Hash the source files that the kernel is made of: numba's disk cache looks at the kernel's own file only."""
    modules = calendar, clients, machine_code, machines, protocol_rules, spent, stages, state, steps, variates
    sources = {__file__, rule.__code__.co_filename, *(str(module.__file__) for module in modules)}
    return hashlib.sha256(b"".join(Path(source).read_bytes() for source in sorted(sources))).hexdigest()


def rules() -> list[Callable[[Any, int], None] | None]:
    """The rules for a gradient's arrival, by kind, then those for a gradient that every shard has applied."""
    return [kind.finish for kind in KINDS.values()] + [kind.joined for kind in KINDS.values()]


def _finish(rule: int, state: Any, worker: int) -> None:
    """Call a rule by its place in `rules`: numba specialises by literal numbers, not by functions."""
    raise NotImplementedError


@overload(_finish, prefer_literal=True, strict=False)
def _finish_compiled(rule: Any, state: Any, worker: Any) -> Callable[..., None] | None:
    if not isinstance(rule, types.Literal):
        return None
    chosen = rules()[rule.literal_value]
    assert chosen is not None
    called = compiled_rule(chosen)
    return lambda rule, state, worker: called(state, worker)


_start, _lose, _read_shards = compiled_rule(start), compiled_rule(lose), compiled_rule(read_shards)
_arrives, _attribute, _used = compiled_rule(arrives), compiled_rule(attribute), jit(used)


class Shape(NamedTuple):
    """What a kernel is specialised for; code for what a network lacks is not compiled."""

    pulls: bool  # some route has a pull
    pushes: bool
    serves: bool  # gradients queue at a single server
    reads_late: bool  # the version is fixed when the pull ends
    extras: bool  # slots besides the workers
    sharded: bool
    meets: bool  # a worker that finishes averages with a neighbour
    disturbed: bool  # machines are slowed, fail or have outages
    alike: bool  # all workers take the same route
    called: bool  # slots call clients


@cache
def kernel(rule: int, fingerprint: str, shape: Shape) -> Any:
    """The kernel for a rule and a shape; both are constants of its code and of its cache key, as ``fingerprint`` is."""
    pulls, pushes, serves, reads_late, extras, sharded, meets, disturbed, alike, called = shape

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
            slot = following(calendar)
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
                slot = part_served(state, calendar, streams, workers, columns, shards, slot, service)
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
                        columns.visits[i] = queue.counts[VISITS]
                        columns.waited[i] = queue.totals[WAITED]
                        columns.busy[i] = queue.totals[BUSY]
                    if sharded:
                        columns.visits[i] = shards.counts[state.row_shard[i], VISITS]
                        columns.waited[i] = shards.totals[state.row_shard[i], WAITED]
                        columns.busy[i] = shards.totals[state.row_shard[i], BUSY]
                    if extras:
                        columns.busy[i] = workers.extras[0]
                if disturbed and stage == STRUCK:
                    repair(calendar, streams, machines, workers, slot)
                    continue
                workers.spent[spent.LOST] += now - workers.began[worker]
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
                if queue.counts[FREE] > 0:
                    queue.counts[FREE] -= 1
                    workers.seated[worker] = now
                    leg, stream = SERVICE, service
                else:
                    queue.ring[(queue.counts[HEAD] + queue.counts[WAITING]) & (queue.ring.size - 1)] = worker
                    queue.counts[WAITING] += 1
                    queue.waiting[worker] = 1
            elif sharded and stage in (WORK, PUSH):
                workers.joined[worker] = now
                if not pushes or stage == WORK:
                    workers.worked[worker] = now
                push_to_all(calendar, streams, shards, state.workers, slot, service)
            else:
                goes_on = True
                if disturbed and stage == REPAIR:
                    workers.spent[spent.REPAIR] += now - workers.began[worker]
                elif stage != RESTART:
                    began = workers.began[worker]
                    pulled = workers.pulled[worker] if pulls else began
                    worked = joined = seated = now
                    if sharded:
                        worked, joined, seated = workers.worked[worker], workers.joined[worker], workers.seated[worker]
                    elif serves:
                        worked, joined, seated = workers.worked[worker], workers.joined[worker], workers.seated[worker]
                        leave(queue, workers, worker, now)
                        queue.counts[VISITS] += 1
                        queue.totals[WAITED] += seated - joined
                    elif pushes and stage == PUSH:
                        worked = workers.worked[worker]
                    workers.stage[worker] = PARKED
                    written = sizes[ROWS]
                    if meets:
                        at = neighbours.first[worker] + int(draw(streams, choice) * neighbours.degree[worker])
                        state.neighbour[0] = (slot + neighbours.offsets[np.uintp(at)]) % state.workers
                    if called and slot < state.workers:
                        _arrives(clients, slot)
                    sizes[RELEASED] = 0  # emptied here, so that for simple rules nothing is left of the loops below
                    sizes[CANCELLED_WORKERS] = 0
                    _finish(rule, state, worker)
                    if called:
                        _attribute(clients, state, written)
                    fill(columns.time, written, sizes[ROWS], now)
                    if extras and slot >= state.workers:
                        workers.extras[0] += now - began
                    elif not extras and sizes[ROWS] > written and state.row_fate[written] == DROPPED:
                        workers.spent[spent.DROPPED] += now - began
                    else:
                        workers.spent[spent.WORK] += worked - pulled
                        if pulls:
                            workers.spent[spent.PULL] += pulled - began
                        if pushes:
                            workers.spent[spent.PUSH] += joined - worked
                        if serves or sharded:
                            workers.spent[spent.QUEUE] += seated - joined
                            workers.spent[spent.SERVICE] += now - seated
                    if extras:
                        if slot < state.workers:
                            workers.lasted[state.arrived[0]] = now - began
                        for i in range(written, sizes[ROWS]):
                            columns.busy[i] = workers.extras[0]
                            if state.row_fate[i] == DROPPED:  # its work is work no more
                                workers.spent[spent.WORK] -= workers.lasted[state.row_place[i]]
                                workers.spent[spent.DROPPED] += workers.lasted[state.row_place[i]]
                    if sizes[CANCELLED_WORKERS]:
                        for i in range(sizes[CANCELLED_WORKERS]):
                            other = state.cancelled[i]
                            workers.spent[spent.CANCELLED] += now - workers.began[other]
                            if serves:
                                evict(queue, workers, other, now)
                            if disturbed and workers.stage[other] in (WORK, STRUCK):
                                _used(machines, other, now)
                            if workers.stage[other] != PARKED:
                                clear(calendar, other)
                        if serves:
                            close_ranks(queue)
                    if serves:
                        for i in range(written, sizes[ROWS]):
                            columns.visits[i] = queue.counts[VISITS]
                            columns.waited[i] = queue.totals[WAITED]
                            columns.busy[i] = queue.totals[BUSY]
                        while queue.counts[FREE] > 0 and queue.counts[WAITING] > 0:
                            other = queue.ring[queue.counts[HEAD]]
                            queue.counts[HEAD] = (queue.counts[HEAD] + 1) & (queue.ring.size - 1)
                            queue.counts[WAITING] -= 1
                            queue.counts[FREE] -= 1
                            queue.waiting[other] = 0
                            workers.seated[other] = now
                            workers.stage[other] = SERVICE
                            put(calendar, other, now + draw(streams, service))
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
                                restart(calendar, other, now)
                if goes_on:
                    _start(state, worker)
                    if sharded:
                        _read_shards(state, slot)
                    if called and slot < state.workers:
                        call(streams, clients, workers, slot, choice, now)
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
                computes(calendar, streams, machines, workers, slot)
                if called and clients.leaves[worker] < calendar.due[worker]:
                    workers.stage[worker] = GONE
                    put(calendar, worker, clients.leaves[worker])
                continue
            workers.stage[worker] = leg
            if leg == PARKED:
                clear(calendar, worker)
            elif called and leg != SERVICE and slot < state.workers:
                due = now + draw(streams, stream)
                if clients.leaves[worker] < due:
                    workers.stage[worker] = GONE
                    due = clients.leaves[worker]
                put(calendar, worker, due)
            else:
                put(calendar, worker, now + draw(streams, stream))

    return kept(jit(advance, pipeline_class=NothingAliases))
