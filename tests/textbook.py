"""Textbook SimPy programs of the protocols, written from their prose alone, and batch means to compare with.

Plain ``Resource``, ``Store``, ``Event`` and ``Process.interrupt``: nothing of ``asyncq`` is imported or imitated, so a
wrong rule there is not wrong here as well. What they cannot share is the order of simultaneous events: compare them
under continuous laws only, and in law, never row by row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

Law = Callable[[np.random.Generator, int], np.ndarray]


def exponential(mean: float) -> Law:
    return lambda rng, size: rng.exponential(mean, size)


def gamma(mean: float, cv: float) -> Law:
    return lambda rng, size: rng.gamma(cv**-2, mean * cv**2, size)


def scaled(factor: float, law: Law) -> Law:
    return lambda rng, size: factor * law(rng, size)


@dataclass(frozen=True)
class Log:
    """Gradients in order, with the time of their update; visits to the server in order of leaving it."""

    time: np.ndarray
    worker: np.ndarray
    staleness: np.ndarray
    kept: np.ndarray  # False where the gradient was dropped
    waited: np.ndarray  # seconds in the queue, per visit
    served: np.ndarray  # seconds in a seat, per visit
    left: np.ndarray  # when the visit ended


@dataclass
class Book:
    """The master's copy: its version, and what has been written about it."""

    env: simpy.Environment
    updates: int
    version: int = 0
    rows: list[tuple[float, int, int, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.full = self.env.event()

    def update(self, gradients: Sequence[tuple[int, int]]) -> None:
        """One update by gradients given as (worker, version read)."""
        self.rows.extend((self.env.now, worker, self.version - read, True) for worker, read in gradients)
        self.version += 1
        if self.version == self.updates:
            self.full.succeed()

    def drop(self, worker: int, read: int) -> None:
        """One gradient for the bin."""
        self.rows.append((self.env.now, worker, self.version - read, False))


@dataclass
class Desk:
    """A server: first come, first served, ``seats`` at once."""

    env: simpy.Environment
    seats: int
    service: Iterator[float]
    visits: list[tuple[float, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seat = simpy.Resource(self.env, capacity=self.seats)

    def serve(self) -> Iterator[Any]:
        came = self.env.now
        with self.seat.request() as turn:
            yield turn
            seated = self.env.now
            try:
                yield self.env.timeout(next(self.service))
            except simpy.Interrupt:
                self.visits.append((self.env.now, seated - came, self.env.now - seated))
                raise
            self.visits.append((self.env.now, seated - came, self.env.now - seated))


class System:
    """M workers with a law each, a master's copy and perhaps a server. A subclass says what a worker does."""

    def __init__(
        self,
        work: Sequence[Law],
        *,
        updates: int,
        seed: int,
        service: Law | None = None,
        seats: int = 1,
    ) -> None:
        rng = np.random.default_rng([seed, 20_03])
        self.env = simpy.Environment()
        self.workers = len(work)
        self.work = [_stream(rng, law) for law in work]
        self.book = Book(self.env, updates)
        self.desk = None if service is None else Desk(self.env, seats, _stream(rng, service))

    def gradient(self, worker: int) -> Iterator[Any]:
        """Compute one gradient and have it served."""
        yield self.env.timeout(next(self.work[worker]))
        if self.desk is not None:
            yield from self.desk.serve()

    def start(self) -> None:
        raise NotImplementedError

    def log(self) -> Log:
        self.start()
        self.env.run(until=self.book.full)
        time, worker, staleness, kept = (np.array(column) for column in zip(*self.book.rows, strict=True))
        visits = np.array(self.desk.visits if self.desk is not None else []).reshape(-1, 3)
        return Log(time, worker, staleness, kept, waited=visits[:, 1], served=visits[:, 2], left=visits[:, 0])


def _stream(rng: np.random.Generator, law: Law) -> Iterator[float]:
    while True:
        yield from law(rng, 1024).tolist()


class _Independent(System):
    """A process for each worker."""

    def start(self) -> None:
        self.process = [self.env.process(self.life(worker)) for worker in range(self.workers)]

    def life(self, worker: int) -> Iterator[Any]:
        raise NotImplementedError


class Asynchronous(_Independent):
    """Each push is an update; the pusher reads at once. Older than ``maximum_staleness``: dropped."""

    def __init__(self, work: Sequence[Law], *, maximum_staleness: float = float("inf"), **options: Any) -> None:
        super().__init__(work, **options)
        self.maximum_staleness = maximum_staleness

    def life(self, worker: int) -> Iterator[Any]:
        while True:
            read = self.book.version
            yield from self.gradient(worker)
            if self.book.version - read > self.maximum_staleness:
                self.book.drop(worker, read)
            else:
                self.book.update([(worker, read)])


class Groups(_Independent):
    """Machines in synchronous groups, asynchronous between groups: a group waits for all its machines."""

    def __init__(self, work: Sequence[Law], *, count: int, all_reduce: float = 0.0, **options: Any) -> None:
        super().__init__(work, **options)
        self.workers = count
        self.members = np.arange(len(work)).reshape(count, -1).tolist()
        self.all_reduce = all_reduce

    def gradient(self, worker: int) -> Iterator[Any]:
        yield self.env.all_of([self.env.timeout(next(self.work[member])) for member in self.members[worker]])
        yield self.env.timeout(self.all_reduce)
        if self.desk is not None:
            yield from self.desk.serve()

    life = Asynchronous.life
    maximum_staleness = float("inf")


class BatchAsynchronous(_Independent):
    """Update on every k-th push; nobody waits."""

    def __init__(self, work: Sequence[Law], *, k: int, **options: Any) -> None:
        super().__init__(work, **options)
        self.k = k
        self.buffer: list[tuple[int, int]] = []

    def life(self, worker: int) -> Iterator[Any]:
        while True:
            read = self.book.version
            yield from self.gradient(worker)
            self.buffer.append((worker, read))
            if len(self.buffer) == self.k:
                self.book.update(self.buffer)
                self.buffer = []


class BatchSynchronous(_Independent):
    """The first k gradients from anybody make the update; then everybody drops what he does and restarts."""

    def __init__(self, work: Sequence[Law], *, k: int, **options: Any) -> None:
        super().__init__(work, **options)
        self.k = k
        self.buffer: list[tuple[int, int]] = []

    def life(self, worker: int) -> Iterator[Any]:
        while True:
            read = self.book.version
            try:
                yield from self.gradient(worker)
            except simpy.Interrupt:
                continue
            self.buffer.append((worker, read))
            if len(self.buffer) == self.k:
                self.book.update(self.buffer)
                self.buffer = []
                for other, process in enumerate(self.process):
                    if other != worker:
                        process.interrupt()


class StaleSynchronous(_Independent):
    """A worker may start clock c only while the slowest clock is at least c - bound."""

    def __init__(self, work: Sequence[Law], *, bound: int, **options: Any) -> None:
        super().__init__(work, **options)
        self.bound = bound
        self.clock = [0] * self.workers
        self.tick = self.env.event()

    def life(self, worker: int) -> Iterator[Any]:
        while True:
            while min(self.clock) < self.clock[worker] - self.bound:
                yield self.tick
            read = self.book.version
            yield from self.gradient(worker)
            self.book.update([(worker, read)])
            self.clock[worker] += 1
            self.tick.succeed()
            self.tick = self.env.event()


class KAsynchronous(_Independent):
    """Update on the first k pushes, whose workers wait for it and read again; the others compute on."""

    def __init__(self, work: Sequence[Law], *, k: int, **options: Any) -> None:
        super().__init__(work, **options)
        self.k = k
        self.pushes = simpy.Store(self.env)

    def start(self) -> None:
        super().start()
        self.env.process(self.master())

    def life(self, worker: int) -> Iterator[Any]:
        while True:
            read = self.book.version
            yield from self.gradient(worker)
            applied = self.env.event()
            self.pushes.put((worker, read, applied))
            yield applied

    def master(self) -> Iterator[Any]:
        while True:
            batch = []
            for _ in range(self.k):
                batch.append((yield self.pushes.get()))
            self.book.update([(worker, read) for worker, read, _ in batch])
            for _, _, applied in batch:
                applied.succeed()


class RoundRobin(_Independent):
    """The master takes one gradient of each worker in turn; who is early waits for his turn."""

    def __init__(self, work: Sequence[Law], **options: Any) -> None:
        super().__init__(work, **options)
        self.box = [simpy.Store(self.env) for _ in work]

    def start(self) -> None:
        super().start()
        self.env.process(self.master())

    def life(self, worker: int) -> Iterator[Any]:
        while True:
            read = self.book.version
            yield from self.gradient(worker)
            applied = self.env.event()
            self.box[worker].put((read, applied))
            yield applied

    def master(self) -> Iterator[Any]:
        for worker in itertools.cycle(range(self.workers)):
            read, applied = yield self.box[worker].get()
            self.book.update([(worker, read)])
            applied.succeed()


class KSynchronous(System):
    """Rounds: all read, the first k make the update, the rest are cancelled wherever they are."""

    def __init__(self, work: Sequence[Law], *, k: int, **options: Any) -> None:
        super().__init__(work, **options)
        self.k = k

    def start(self) -> None:
        self.env.process(self.rounds())

    def attempt(self, worker: int, done: simpy.Store) -> Iterator[Any]:
        try:
            yield from self.gradient(worker)
        except simpy.Interrupt:
            return
        done.put(worker)

    def rounds(self) -> Iterator[Any]:
        while True:
            read = self.book.version
            done = simpy.Store(self.env)
            tasks = [self.env.process(self.attempt(worker, done)) for worker in range(self.workers)]
            first = []
            for _ in range(self.k):
                first.append((yield done.get()))
            for task in tasks:
                if task.is_alive:
                    task.interrupt()
            self.book.update([(worker, read) for worker in first])


class ActorLearner(System):
    """Generators put samples into a store; a learner takes ``batch`` of them, first come, first served, and drops those
    older than ``discard``. A generator may start while fewer than ``limit`` are at work and the samples that are
    accepted or under way are fewer than (budget + version + 1) batches."""

    def __init__(
        self,
        work: Sequence[Law],
        *,
        learning: Law,
        batch: int,
        budget: int,
        limit: int | None = None,
        discard: float = float("inf"),
        **options: Any,
    ) -> None:
        super().__init__(work, **options)
        self.learning = _stream(np.random.default_rng([options["seed"], 20_04]), learning)
        self.batch, self.budget, self.discard = batch, budget, discard
        self.limit = len(work) if limit is None else limit
        self.samples = simpy.Store(self.env)
        self.running = self.accepted = 0
        self.gate: list[simpy.Event] = []
        self.learnt: list[float] = []  # seconds, by update

    def start(self) -> None:
        for worker in range(self.workers):
            self.env.process(self.generator(worker))
        self.env.process(self.learner())

    def open_gate(self) -> None:
        most = (self.budget + self.book.version + 1) * self.batch
        while self.gate and self.running < self.limit and self.accepted + self.running < most:
            self.running += 1
            self.gate.pop(0).succeed()

    def generator(self, worker: int) -> Iterator[Any]:
        while True:
            turn = self.env.event()
            self.gate.append(turn)
            self.open_gate()
            yield turn
            read = self.book.version
            yield self.env.timeout(next(self.work[worker]))
            self.running -= 1
            self.accepted += 1
            self.samples.put((worker, read))

    def learner(self) -> Iterator[Any]:
        while True:
            batch: list[tuple[int, int]] = []
            while len(batch) < self.batch:
                worker, read = yield self.samples.get()
                if self.book.version - read > self.discard:
                    self.book.drop(worker, read)
                    self.accepted -= 1
                    self.open_gate()
                else:
                    batch.append((worker, read))
            began = self.env.now
            yield self.env.timeout(next(self.learning))
            self.learnt.append(self.env.now - began)
            self.book.update(batch)
            self.open_gate()


class Tree(System):
    """Workers push to the leaf of their block. A leaf gathers ``leaf_k`` gradients into a message and puts it into the
    mailbox of its link, a process that carries one message at a time; the root updates on every ``root_k`` messages."""

    def __init__(self, work: Sequence[Law], *, leaves: int, leaf_k: int, root_k: int, forward: Law | None = None,
                 **options: Any) -> None:  # fmt: skip
        super().__init__(work, **options)
        rng = np.random.default_rng([options["seed"], 20_05])
        self.leaf_k, self.root_k = leaf_k, root_k
        self.block = self.workers // leaves
        self.filling: list[list[tuple[int, int]]] = [[] for _ in range(leaves)]
        self.mailbox = [simpy.Store(self.env) for _ in range(leaves)]
        self.forward = None if forward is None else [_stream(rng, forward) for _ in range(leaves)]
        self.messages: list[list[tuple[int, int]]] = []

    def start(self) -> None:
        for worker in range(self.workers):
            self.env.process(self.life(worker))
        for leaf in range(len(self.mailbox) if self.forward else 0):
            self.env.process(self.link(leaf))

    def at_root(self, message: list[tuple[int, int]]) -> None:
        self.messages.append(message)
        if len(self.messages) == self.root_k:
            self.book.update([gradient for one in self.messages for gradient in one])
            self.messages.clear()

    def link(self, leaf: int) -> Iterator[Any]:
        assert self.forward is not None
        while True:
            message = yield self.mailbox[leaf].get()
            yield self.env.timeout(next(self.forward[leaf]))
            self.at_root(message)

    def life(self, worker: int) -> Iterator[Any]:
        leaf = worker // self.block
        while True:
            read = self.book.version
            yield self.env.timeout(next(self.work[worker]))
            self.filling[leaf].append((worker, read))
            if len(self.filling[leaf]) == self.leaf_k:
                message, self.filling[leaf] = self.filling[leaf], []
                if self.forward is None:
                    self.at_root(message)
                else:
                    self.mailbox[leaf].put(message)


# -- batch means ------------------------------------------------------------------------------------------------------

BATCHES = 32
STUDENT = 2.0395  # the 97.5 % point of Student's t with 31 degrees of freedom


@dataclass(frozen=True)
class Figure:
    """A mean and its standard error from ``df`` + 1 batches or runs."""

    mean: float
    error: float
    df: float = BATCHES - 1

    def excess(self, other: Figure | float, chance: float) -> float:
        """How far this is from ``other``, over the distance that is passed with probability ``chance`` only."""
        other = other if isinstance(other, Figure) else Figure(float(other), 0.0)
        gap = abs(self.mean - other.mean)
        a, b = self.error**2, other.error**2
        slack = 1e-9 * (abs(other.mean) + 1e-3)  # rounding, where nothing is random
        if gap <= slack:
            return 0.0
        if a + b == 0.0:
            return float("inf")
        from scipy.special import stdtrit

        df = (a + b) ** 2 / (a**2 / self.df + b**2 / other.df)  # Welch
        return float(gap / (-stdtrit(df, chance / 2) * (a + b) ** 0.5 + slack))


def ratio(above: np.ndarray, below: np.ndarray | float = 1.0, batches: int = BATCHES) -> Figure:
    """sum(above) / sum(below) over a stationary sequence; the error is that of ``batches`` batches."""
    below = np.broadcast_to(np.asarray(below, dtype=float), np.shape(above))
    size = len(above) // batches
    first = len(above) - size * batches
    up, down = (np.asarray(x[first:], dtype=float).reshape(batches, size).sum(axis=1) for x in (above, below))
    mean = up.sum() / down.sum()
    return Figure(float(mean), float(np.std(up - mean * down, ddof=1) * batches**0.5 / down.sum()), batches - 1)


def from_interval(estimate: Any) -> Figure:
    """An estimate of asyncq that comes with Student's 95 % interval from about 32 batches."""
    return Figure(estimate.mean, estimate.half_width / STUDENT, BATCHES - 1)


def over_runs(values: Sequence[float]) -> Figure:
    """The mean over independent runs."""
    n = len(values)
    return Figure(float(np.mean(values)), float(np.std(values, ddof=1) / n**0.5), n - 1)
