"""The compiled engine's kernel: one function body, specialised by constants: the name of the rule and the shape of the
routes. It returns with a reason, and goes on where it stopped when it is called again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba.core import types
from numba.extending import overload

from asyncq.engines.compiled import calendar, machine_code, stages
from asyncq.engines.compiled.calendar import clear, following, put, restart
from asyncq.engines.compiled.machine_code import NothingAliases, compiled_rule, jit
from asyncq.engines.compiled.stages import (
    GONE,
    PARKED,
    PULL,
    PUSH,
    REPAIR,
    RESTART,
    SERVICE,
    STRUCK,
    WORK,
    call,
    close_ranks,
    computes,
    draw,
    evict,
    fill,
    is_away,
    leave,
    part_served,
    push_to_all,
)
from asyncq.protocols import KINDS, state, steps
from asyncq.protocols import rules as protocol_rules
from asyncq.protocols.state import CANCELLED_WORKERS, DROPPED, RELEASED, ROWS
from asyncq.protocols.steps import lose, read_shards, start
from asyncq.system import clients, machines, variates
from asyncq.system.clients import arrives, attribute
from asyncq.system.machines import used

__all__ = ["CALENDAR_EMPTY", "STREAM_EMPTY", "TIME_UP", "fingerprint_of", "kernel", "rules"]

ROWS_FULL, STREAM_EMPTY, TARGET_REACHED, CALENDAR_EMPTY, TIME_UP = range(5)  # why the kernel returned


def fingerprint_of(rule: Callable[..., Any]) -> str:
    """Changes whenever a source file does that the kernel is made of: the disk cache would not see that by itself."""
    modules = calendar, clients, machine_code, machines, protocol_rules, stages, state, steps, variates
    sources = {__file__, rule.__code__.co_filename, *(str(module.__file__) for module in modules)}
    return hashlib.sha256(b"".join(Path(source).read_bytes() for source in sorted(sources))).hexdigest()


def rules() -> list[Callable[[Any, int], None] | None]:
    """What happens when a gradient arrives, by kind, and then what does when every shard has applied it."""
    return [kind.finish for kind in KINDS.values()] + [kind.joined for kind in KINDS.values()]


def _finish(rule: int, state: Any, worker: int) -> None:
    """A rule by its place in the list: a number, because numba takes only those for literals."""
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


@cache
def kernel(
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
                    is_away(calendar, streams, machines, workers, slot)
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
                push_to_all(calendar, streams, shards, state.workers, slot, service)
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
                        leave(queue, workers, worker, now)
                        queue.counts[3] += 1
                        queue.totals[0] += seated - joined
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
                            if state.row_fate[i] == DROPPED:  # its work is work no more
                                workers.spent[1] -= workers.lasted[state.row_place[i]]
                                workers.spent[6] += workers.lasted[state.row_place[i]]
                    if sizes[CANCELLED_WORKERS]:
                        for i in range(sizes[CANCELLED_WORKERS]):
                            other = state.cancelled[i]
                            workers.spent[5] += now - workers.began[other]
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

    try:
        return jit(advance, cache=True, pipeline_class=NothingAliases)
    except RuntimeError:  # nowhere to keep a cache
        return jit(advance)
