"""The SimPy engine: one process per slot, walking pull -> read -> work -> push -> server -> commit -> read again.

Order of events (docs/design.md): a worker released by its own commit reads at once, in the same event; workers released
by another's commit read when the calendar reaches them; simultaneous events run in the order in which they were
scheduled. When a service ends: the commit first, then cancellations, then the freed seats are granted, then releases.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from functools import partial
from heapq import heappush
from typing import Any, NamedTuple

import numpy as np
import simpy
from numpy.typing import NDArray

from asyncq.engines.rows import Chunk, MachineTime, check_progress, why_stuck
from asyncq.errors import DeadlockError
from asyncq.protocols.state import CANCELLED_WORKERS, CLOSED, DROPPED, RELEASED, ROWS
from asyncq.protocols.steps import apply_part, lose, read_shards, start
from asyncq.system.clients import NOBODY, arrives, attribute, call, must_draw
from asyncq.system.machines import NEVER, back_in_service, ends, struck, used
from asyncq.system.network import NO_STREAM, Network
from asyncq.system.variates import Variates

__all__ = ["Cycle", "SimpyEngine"]

THROWN_AWAY = "thrown away"  # what a worker hears when what it waited for was taken from it
NOT_YET = float("nan")
Walk = Generator[simpy.Event, Any, None]


class Cycle(NamedTuple):
    """One worker's way from a read to the arrival of its gradient: when each leg ended (seconds), nan if it did not.

    The pull lasts from ``began`` to ``pulled``, then work, push (to ``joined``), queue (to ``seated``) and service. Of
    several shards, queue and service are those of the last to be done.
    """

    worker: int
    began: float
    pulled: float
    worked: float
    joined: float
    seated: float
    ended: float
    cancelled: bool
    lost: bool = False  # with its machine or its client, at ``ended``: cancelled, too
    client: int = NOBODY  # the class of the client that computed, through all pools


class _Station:
    """A first-in first-out queue with seats, on plain SimPy events: grant and release happen inside the same event."""

    def __init__(self, engine: SimpyEngine, seats: int, service: Callable[[], float]) -> None:
        self.engine = engine
        self.free = seats
        self.service = service
        self.queue: deque[int] = deque()
        self.seated: set[int] = set()
        self.visits = 0
        self.waited = 0.0
        self.busy = 0.0

    def join(self, worker: int) -> simpy.Event:
        """The event on which the worker's service ends; while it queues, one that will never happen."""
        if not self.free:
            self.queue.append(worker)
            return self.engine.env.event()
        self.free -= 1
        return self._serve(worker)

    def _serve(self, worker: int) -> simpy.Event:
        self.seated.add(worker)
        self.engine.seated_at[worker] = self.engine.env.now
        return self.engine.env.timeout(self.service())

    def served(self, worker: int, waited: float) -> None:
        """The worker's service has ended, after ``waited`` seconds in the queue."""
        self._leave(worker)
        self.visits += 1
        self.waited += waited

    def _leave(self, worker: int) -> None:
        self.seated.remove(worker)
        self.free += 1
        self.busy += self.engine.env.now - self.engine.seated_at[worker]

    def evict(self, worker: int) -> None:
        """The worker's gradient is thrown away, wherever in the station it is."""
        if worker in self.seated:
            self._leave(worker)
        elif worker in self.queue:
            self.queue.remove(worker)

    def grant(self) -> None:
        """Seat whoever waits, as long as there are seats."""
        while self.free and self.queue:
            self.free -= 1
            worker = self.queue.popleft()
            self.engine.redirect(worker, self._serve(worker))


class _Shard:
    """The same queue at one of several shards. A worker waits for all of them: its process is resumed by the service
    that is the last to end, in the same event."""

    def __init__(self, engine: SimpyEngine, number: int, seats: int, service: Callable[[], float]) -> None:
        self.engine = engine
        self.number = number
        self.free = seats
        self.service = service
        self.queue: deque[int] = deque()
        self.visits = 0
        self.waited = 0.0
        self.busy = 0.0

    def join(self, worker: int) -> None:
        """The worker's part of this shard has come."""
        if self.free:
            self._serve(worker)
        else:
            self.queue.append(worker)

    def _serve(self, worker: int) -> None:
        self.free -= 1
        self.engine.seated_at[worker] = seated = self.engine.env.now

        def served(event: simpy.Event) -> None:
            self._served(worker, seated, event)

        self.engine.env.timeout(self.service()).callbacks.append(served)

    def _served(self, worker: int, seated: float, event: simpy.Event) -> None:
        engine = self.engine
        self.free += 1
        self.visits += 1
        self.waited += seated - engine.joined_at[worker]
        self.busy += engine.env.now - seated
        complete = engine.part_served(worker, self)
        if self.queue:
            self._serve(self.queue.popleft())
        if complete:
            engine.seated_at[worker] = seated
            engine.resume(worker, event)


class SimpyEngine:
    """A network as SimPy processes; the engine to read first, and the one the compiled engine is held to."""

    name = "simpy"

    def __init__(self, network: Network, variates: Variates, *, record: Callable[[Cycle], None] | None = None) -> None:
        """``record`` is told of every cycle when it is finished or cancelled."""
        self.record = record
        self.env = simpy.Environment()
        self.network = network
        self.state = network.kind.state(
            network.workers,
            network.parameters,
            network.chunk_rows,
            lambda size, fill, bits: [fill] * size,
            len(network.extras),
            network.shards,
        )
        self.began_at = [0.0] * network.slots
        self.seated_at = [0.0] * network.workers
        self.joined_at = [0.0] * network.workers  # the shards
        self._spent = [0.0] * 9  # the first seven fields of MachineTime, lost and repair
        self._extras_busy = 0.0  # seconds
        self._lasted = [0.0] * len(self.state.pending_read)  # the work, in seconds, of samples whose fate is open
        # what the engine adds to a row: its time and the station's totals
        self._row_time = [0.0] * len(self.state.row_worker)
        self._row_station = [(0, 0.0, 0.0)] * len(self.state.row_worker)
        self._streams = streams = variates.hand_out()
        self._block = variates.block
        self.machines = None if network.machines is None else network.machines.copy(variates.block)
        self._clients = None
        if network.clients is not None:
            places = network.workers + len(self.state.pending_read)
            self._clients = network.clients.copy(len(self.state.row_worker), places)
        self._in_repair = [False] * network.workers
        self._ended: float | None = None  # where the clock, not the updates, ended the run
        self._station: _Station | None = None
        self._shards: list[_Shard] = []
        if network.is_sharded:
            self._shards = [
                _Shard(self, number, network.seats, streams[network.service + number])
                for number in range(network.shards)
            ]
        elif network.has_server:
            self._station = _Station(self, network.seats, streams[network.service])
        self._so_far: dict[int, Callable[[], tuple[float, float, float, float]]] = {}
        sizes = self.state.sizes
        starting = set(self.state.released[: sizes[RELEASED]])
        sizes[RELEASED] = 0
        self._routes = network.routes
        self._processes = [
            self.env.process(self._walk(slot, streams, slot in starting)) for slot in range(network.slots)
        ]

    # -- one slot: a worker, or an extra one -----------------------------------------------------------------------

    def _walk(self, worker: int, streams: list[Callable[[], float]], starting: bool) -> Walk:
        env, state, network, station, shards = self.env, self.state, self.network, self._station, self._shards
        timeout, spent, began_at, read = env.timeout, self._spent, self.began_at, state.read
        finish, sizes, released, row_time = network.kind.finish, state.sizes, state.released, self._row_time
        if shards:
            assert network.kind.joined is not None
            finish = network.kind.joined
        choose, neighbours = streams[network.choice], network.neighbours
        legs = (leg[worker] for leg in self._routes)
        work, pull, push = (None if number == NO_STREAM else streams[number] for number in legs)
        with_extras, is_extra = bool(network.extras), worker >= network.workers
        machines, clients = (None, None) if is_extra else (self.machines, self._clients)
        lasts = timeout if clients is None else partial(self._lasts, worker)
        record = self.record
        began = pulled = worked = joined = NOT_YET
        self._so_far[worker] = lambda: (began, pulled, worked, joined)
        if not starting:
            yield env.event()  # until a rule releases it
        while True:
            start(state, worker)
            if shards:
                read_shards(state, worker)
            if clients is not None:
                work, pull, push = self._call(worker)  # from other streams
            began_at[worker] = began = pulled = env.now
            worked = joined = NOT_YET
            if pull is not None:
                pulled = NOT_YET
                if (yield lasts(pull())) is THROWN_AWAY:
                    continue
                pulled = env.now
                if network.read_at_pull_end:
                    read[worker] = state.version[0]
                    if shards:
                        read_shards(state, worker)
            assert work is not None
            if machines is None:
                if (yield lasts(work())) is THROWN_AWAY:
                    continue
            else:
                end, strike = self._computes(worker)
                thrown = (yield self._until(worker, min(end, strike))) is THROWN_AWAY
                used(machines, worker, env.now)
                if thrown:
                    continue
                if strike < end:
                    yield from self._is_away(worker)
                    continue
            now = worked = env.now
            if push is not None:
                if (yield lasts(push())) is THROWN_AWAY:
                    continue
                now = env.now
            joined = seated = now
            if station is not None:
                if (yield station.join(worker)) is THROWN_AWAY:
                    continue
                now = env.now
                seated = self.seated_at[worker]
                station.served(worker, seated - joined)
            elif shards:
                self.joined_at[worker] = now
                for shard in shards:
                    shard.join(worker)
                yield env.event()  # until the last shard resumes this process
                now = env.now
                seated = self.seated_at[worker]

            if record is not None:
                record(Cycle(worker, began, pulled, worked, joined, seated, now, False, client=self._class_of(worker)))
            written = sizes[ROWS]
            if neighbours is not None:
                state.neighbour[0] = neighbours.pick(worker, choose())
            if clients is not None:
                arrives(clients, worker)
            finish(state, worker)
            if self._clients is not None:
                attribute(self._clients, state, written)
            for i in range(written, sizes[ROWS]):
                row_time[i] = now
            if is_extra:
                self._extras_busy += now - began
            elif not with_extras and sizes[ROWS] > written and state.row_fate[written] == DROPPED:
                spent[6] += now - began
            else:
                spent[1] += worked - pulled
                if pull is not None:
                    spent[0] += pulled - began
                if push is not None:
                    spent[2] += joined - worked
                if network.has_server:
                    spent[3] += seated - joined
                    spent[4] += now - seated
            if with_extras:
                if not is_extra:
                    self._lasted[state.arrived[0]] = now - began
                self._book_rows(written)
            if station is None and sizes[RELEASED] == 1 and released[0] == worker and not sizes[CANCELLED_WORKERS]:
                sizes[RELEASED] = 0  # the ordinary case, without a call
            elif not self._settle(worker, written):
                yield env.event()  # until another's commit releases it

    def _at(self, time: float) -> simpy.Event:
        """An event at an instant, which "so much from now" would miss by a rounding."""
        event = self.env.event()
        event._ok, event._value = True, None
        heappush(self.env._queue, (time, simpy.events.NORMAL, next(self.env._eid), event))
        return event

    def _until(self, worker: int, end: float) -> simpy.Event:
        """An event at the ``end`` of a leg, or when the worker's client goes before that."""
        if self._clients is None or self._clients.leaves[worker] >= end:
            return self._at(end)
        event = self._at(float(self._clients.leaves[worker]))
        event._value = THROWN_AWAY

        def goes(event: simpy.Event) -> None:
            if self._processes[worker].target is event:  # else it was cancelled meanwhile
                self._loses(worker)

        event.callbacks.append(goes)
        return event

    def _lasts(self, worker: int, seconds: float) -> simpy.Event:
        return self._until(worker, self.env.now + seconds)

    def _call(self, worker: int) -> list[Callable[[], float] | None]:
        """The worker's slot calls a client; where its work, pull and push come from."""
        c, streams = self._clients, self._streams
        assert c is not None
        uniform = streams[self.network.choice]() if must_draw(c, worker) else 0.0
        call(c, worker, uniform, *self._routes)
        if (stays := c.stays[c.serving[worker]]) != NO_STREAM:
            c.leaves[worker] = self.env.now + streams[stays]()
        else:
            c.leaves[worker] = NEVER
        if self.machines is not None:
            self.machines.work[worker] = c.work[c.serving[worker]]
        return [None if leg[worker] == NO_STREAM else streams[leg[worker]] for leg in self._routes]

    def _computes(self, worker: int) -> tuple[float, float]:
        """When the work that the worker begins now would end, and when one of its machines is struck."""
        m, now = self.machines, float(self.env.now)
        assert m is not None
        m.draw_ahead(self._block, now)
        end, strike = now, NEVER
        for machine in range(m.first[worker], m.first[worker + 1]):
            end = max(end, ends(m, machine, now, self._streams[m.work[machine]]()))
            if m.after[machine] != NO_STREAM and m.left[machine] < 0.0:
                m.left[machine] = self._streams[m.after[machine]]()
            strike = min(strike, struck(m, machine, now))
        return end + m.together, strike

    def _is_away(self, worker: int) -> Walk:
        """One of the worker's machines has been struck: the gradient is lost, and it waits until all are back."""
        m, now = self.machines, self.env.now
        assert m is not None
        self._loses(worker)
        self.began_at[worker] = now
        back = now
        for machine in range(m.first[worker], m.first[worker + 1]):
            if m.after[machine] != NO_STREAM and m.fails[machine] <= now:
                m.left[machine] = -1.0
                back = max(back, now + self._streams[m.repair[machine]]())
        back = back_in_service(m, worker, back)
        self._in_repair[worker] = True
        yield self._at(back)
        self._in_repair[worker] = False
        self._spent[8] += self.env.now - now

    def _loses(self, worker: int) -> None:
        """The worker's gradient is lost, with its machine or its client."""
        state, now = self.state, self.env.now
        if self.record is not None:
            self.record(self.latest(worker)._replace(cancelled=True, lost=True))
        written = state.sizes[ROWS]
        lose(state, worker)
        if self._clients is not None:
            attribute(self._clients, state, written)
        for i in range(written, state.sizes[ROWS]):
            self._row_time[i] = now
            station = self._shards[state.row_shard[i]] if self._shards else self._station
            if station is not None:
                self._row_station[i] = (station.visits, station.waited, station.busy)
        if self.network.extras:
            self._book_rows(written)
        self._spent[7] += now - self.began_at[worker]

    def _book_rows(self, written: int) -> None:
        """With extra slots: their time beside the new rows; and the work of what was dropped is work no more."""
        state = self.state
        for i in range(written, state.sizes[ROWS]):
            self._row_station[i] = (0, 0.0, self._extras_busy)
            if state.row_fate[i] == DROPPED:
                lasted = self._lasted[state.row_place[i]]
                self._spent[1] -= lasted
                self._spent[6] += lasted

    def _settle(self, finisher: int, written: int) -> bool:
        """Carry out what a rule wrote to its outboxes; whether the finisher itself may go on."""
        state, sizes, station = self.state, self.state.sizes, self._station
        for i in range(sizes[CANCELLED_WORKERS]):
            worker = state.cancelled[i]
            self._spent[5] += self.env.now - self.began_at[worker]
            if self.record is not None:
                self.record(self.latest(worker)._replace(cancelled=True))
            if station is not None:
                station.evict(worker)
        sizes[CANCELLED_WORKERS] = 0
        if station is not None:
            for i in range(written, sizes[ROWS]):
                self._row_station[i] = (station.visits, station.waited, station.busy)
            station.grant()
        goes_on = False
        for i in range(sizes[RELEASED]):
            worker = state.released[i]
            if worker == finisher:
                goes_on = True
            elif worker >= len(self._in_repair) or not self._in_repair[worker]:  # else it reads when it is back
                self.began_at[worker] = self.env.now  # it may hold a version already (round robin)
                self.redirect(worker, self.env.timeout(0.0, THROWN_AWAY))
        sizes[RELEASED] = 0
        return goes_on

    def redirect(self, worker: int, event: simpy.Event) -> None:
        """Let the worker wait for ``event`` instead of what it waits for now.

        An interrupt would be scheduled ahead of everything else at this instant; moving the callback is not.
        """
        process = self._processes[worker]
        resume = process._resume
        process.target.callbacks.remove(resume)
        event.callbacks.append(resume)
        process._target = event

    def resume(self, worker: int, event: simpy.Event) -> None:
        """Let the worker go on at once, in ``event``, which is happening."""
        self._processes[worker]._resume(event)

    def part_served(self, worker: int, shard: _Shard) -> bool:
        """The shard applies its part of the worker's gradient; whether it is the last to do so."""
        at = self.state.sizes[ROWS]
        self._row_time[at] = self.env.now
        self._row_station[at] = (shard.visits, shard.waited, shard.busy)
        return apply_part(self.state, worker, shard.number)

    def latest(self, worker: int) -> Cycle:
        """What is known by now of the cycle that the worker began last."""
        began, pulled, worked, joined = self._so_far[worker]()
        if self._shards:
            seated = joined == joined and not any(worker in shard.queue for shard in self._shards)
        else:
            seated = self._station is not None and worker in self._station.seated
        when = self.seated_at[worker] if seated else NOT_YET
        ends = began, pulled, worked, joined, when, self.env.now
        return Cycle(worker, *ends, False, client=self._class_of(worker))

    def _class_of(self, worker: int) -> int:
        """That of the client that the worker called last."""
        if self._clients is None or worker >= self.network.workers:
            return NOBODY
        return int(self._clients.serving[worker])

    # -- rows -----------------------------------------------------------------------------------------------------

    def chunks(self, updates: int, until: float = NEVER) -> Iterator[Chunk]:
        """Advance until ``updates`` updates have been applied in all, or all that happens by ``until`` (seconds) has;
        hand out rows as they fill a chunk."""
        version, sizes, env = self.state.version, self.state.sizes, self.env
        step = env.step if until == NEVER else lambda: self._step_until(until)
        full = self.network.chunk_rows
        while version[0] < updates and self._ended is None:
            before = version[0]
            try:
                while sizes[ROWS] < full and version[0] < updates and self._ended is None:
                    step()
            except simpy.core.EmptySchedule:
                queued = self._station.queue if self._station else ()
                raise DeadlockError(why_stuck(self.now, self.version, self.state.clock, queued)) from None
            rows = self._chunk(sizes[ROWS])
            check_progress(rows, self.version - before, self.now)
            yield rows
            sizes[ROWS] = 0

    def _step_until(self, until: float) -> None:
        if until < self.env.peek() < NEVER:
            self._ended = until
        else:
            self.env.step()

    def _chunk(self, rows: int) -> Chunk:
        def column(values: list[Any], dtype: type) -> NDArray[Any]:
            return np.array(values[:rows], dtype=dtype)

        state = self.state
        chunk = Chunk(
            time=column(self._row_time, float),
            worker=column(state.row_worker, int),
            staleness=column(state.row_staleness, int),
            read=column(state.row_read, int),
            fate=column(state.row_fate, int),
        )
        if self._clients is not None:
            chunk = chunk._replace(client=self._clients.row_client[:rows].copy())
        if self.network.neighbours is not None:
            neighbour, averagings = column(state.row_neighbour, int), column(state.row_averagings, int)
            chunk = chunk._replace(neighbour=neighbour, averagings=averagings)
        if self.network.extras:
            chunk = chunk._replace(busy=column([busy for _, _, busy in self._row_station[:rows]], float))
            if self.network.reads_on:
                chunk = chunk._replace(last_staleness=column(state.row_last, int))
        if not self.network.has_server:
            return chunk
        if self._shards:
            chunk = chunk._replace(shard=column(state.row_shard, int), stalest=column(state.row_stalest, int))
        visits, waited, busy = column(self._row_station, float).reshape(rows, 3).T
        return chunk._replace(visits=visits.astype(np.int64), waited=waited, busy=busy)

    # -- at the end -----------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Simulated seconds."""
        return float(self.env.now) if self._ended is None else self._ended

    @property
    def version(self) -> int:
        """Updates applied."""
        return int(self.state.version[0])

    @property
    def open_reads(self) -> NDArray[np.int64]:
        """Versions held by the gradients whose fate is still open: in work or waiting for their update."""
        held = [*self.state.read[: self.network.workers], *self.state.pending_read]
        return np.array([version for version in held if version != CLOSED], dtype=np.int64)

    @property
    def machine_time(self) -> MachineTime:
        """Where the workers' time went."""
        workers = self.network.workers
        return MachineTime.of(
            self._spent, self.began_at[:workers], self.state.read[:workers], self.now, in_repair=self._in_repair
        )
