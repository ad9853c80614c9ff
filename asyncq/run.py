"""The main job: simulate a scenario and say what was seen, with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asyncq import __version__
from asyncq.engines import Chunk, Engine, MachineTime
from asyncq.errors import ScenarioError, TooShortError
from asyncq.estimate import Estimate
from asyncq.network import Network
from asyncq.protocols import KIND_NAMES
from asyncq.staleness import StalenessLaw
from asyncq.statistics.accumulate import Accumulator
from asyncq.statistics.goodness import StalenessFit, fit_geometric
from asyncq.statistics.intervals import BATCH_COUNT, ratio_of_batches
from asyncq.theory.momentum import is_momentum
from asyncq.theory.throughput import synchronous_throughput
from asyncq.variates import Variates

if TYPE_CHECKING:
    from asyncq.scenario import Scenario

__all__ = ["ENGINES", "Groups", "Momentum", "Pool", "Run", "Server", "Staleness", "runs_compiled", "simulate"]

ENGINES = ("auto", "simpy", "compiled")
FEW_ROWS = 200_000  # the SimPy engine has these done before the compiled one has started
QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, eq=False)
class Staleness:
    """The staleness of applied gradients after the warm-up, in ``unit``; ``ci95`` is the mean's.

    ``weight`` is the mean weight with which they are applied: 1 unless the protocol gives stale ones less.
    ``effective_mean`` is their mean staleness with those weights.
    """

    mean: float
    sd: float
    ci95: tuple[float, float] | None
    quantiles: dict[str, int]
    law: StalenessLaw
    unit: str
    weight: float
    effective_mean: float

    @property
    def pmf(self) -> NDArray[np.float64]:
        """The share of gradients of staleness 0, 1, 2, ..."""
        return self.law.pmf


@dataclass(frozen=True)
class Server:
    """The station: ``utilisation`` of its seats (a share), ``waiting`` in its queue (seconds per gradient)."""

    seats: int
    utilisation: Estimate
    waiting: Estimate


@dataclass(frozen=True)
class Pool:
    """One pool's part: mean staleness of its gradients, and gradients per second committed by all its workers."""

    name: str
    workers: int
    staleness: float | None
    throughput: float


@dataclass(frozen=True)
class Groups:
    """Compute groups: ``count`` of ``size`` machines, and the mean share of a group's work that is a machine's own;
    the rest it waits for the slowest member and the all-reduce (exact)."""

    count: int
    size: int
    efficiency: float


@dataclass(frozen=True)
class Momentum:
    """The momentum budget: ``target`` = ``implicit`` + ``explicit``; the explicit part may be negative.

    ``basis`` is "geometric law" or "first order only"; ``is_delay`` says that the law has no momentum form, in which
    case the implicit figure only restates the mean. Source: [AbM] Theorem 5 and section 2; theory.md sections 2 and 4.
    """

    target: float | None
    implicit: float
    explicit: float | None
    basis: str
    is_delay: bool


@dataclass(frozen=True, eq=False)
class Run:
    """What one simulation showed. Attributes are those of the JSON report (:meth:`to_dict`), and ``trace``."""

    scenario: Scenario
    engine: str
    seed: int
    updates: int
    warmup: int
    seconds: float
    interrupted: bool
    throughput: Estimate
    gradients: Estimate
    kinds: dict[str, int]
    staleness: Staleness
    fit: StalenessFit
    momentum: Momentum
    server: Server | None
    groups: Groups | None
    pools: tuple[Pool, ...]
    machine_time: MachineTime
    synchronous: Estimate | None
    trace: Chunk | None

    def to_dict(self) -> dict[str, Any]:
        """The JSON report, schema 1: keys are only ever added."""
        gof = self.fit.gof
        total = sum(self.machine_time) or 1.0
        return {
            "schema": 1,
            "version": __version__,
            "scenario": self.scenario.to_dict(),
            "engine": self.engine,
            "seed": self.seed,
            "updates": self.updates,
            "warmup": self.warmup,
            "seconds": self.seconds,
            "interrupted": self.interrupted,
            "throughput": {**self.throughput.to_dict(), "gradients": self.gradients.to_dict()},
            "synchronous": None if self.synchronous is None else self.synchronous.to_dict(),
            "gradients": dict(self.kinds),
            "staleness": {
                "mean": self.staleness.mean,
                "sd": self.staleness.sd,
                "ci95": None if self.staleness.ci95 is None else list(self.staleness.ci95),
                "quantiles": self.staleness.quantiles,
                "pmf": self.staleness.pmf.tolist(),
                "unit": self.staleness.unit,
                "weight": self.staleness.weight,
                "effective_mean": self.staleness.effective_mean,
            },
            "fit": {
                "family": self.fit.family,
                "p": self.fit.p,
                "gof": {
                    "statistic": gof.statistic,
                    "p_value": gof.p_value,
                    "total_variation": gof.total_variation,
                    "cells": gof.cells,
                    "rows": gof.rows,
                    "stride": gof.stride,
                },
                "verdict": self.fit.verdict,
            },
            "momentum": {
                "target": self.momentum.target,
                "implicit": self.momentum.implicit,
                "explicit": self.momentum.explicit,
                "basis": self.momentum.basis,
                "is_delay": self.momentum.is_delay,
            },
            "server": None
            if self.server is None
            else {
                "seats": self.server.seats,
                "utilisation": self.server.utilisation.to_dict(),
                "waiting": self.server.waiting.to_dict(),
            },
            "groups": None if self.groups is None else vars(self.groups),
            "pools": [vars(pool) for pool in self.pools],
            "machine_time": {stage: spent / total for stage, spent in self.machine_time._asdict().items()},
        }


def simulate(
    scenario: Scenario,
    *,
    engine: str = "auto",
    seed: int | None = None,
    updates: int | None = None,
    replication: int = 0,
    trace: bool = False,
    on_chunk: Callable[[int], bool | None] | None = None,
) -> Run:
    """Simulate a scenario.

    ``engine`` is "simpy", "compiled" (identical rows, some eighty times faster, a few seconds to compile once) or
    "auto". ``seed`` and ``updates`` override the scenario's; without any seed a fresh one is drawn and recorded. Runs
    that differ in ``replication`` only are independent. ``trace`` keeps every row (memory grows with the run).
    ``on_chunk(updates_so_far)`` is called after each chunk of rows; if it returns True the run ends there and its
    ``interrupted`` is true.

    Raises ``ScenarioError`` for an unknown engine, a bad seed or number of updates, and for a protocol that needs no
    simulation (pipeline); ``DeadlockError`` if the simulation cannot proceed.
    """
    if engine not in ENGINES:
        raise ScenarioError(f"engine must be one of {', '.join(ENGINES)} (got {engine!r})")
    target = scenario.run.updates if updates is None else updates
    if not isinstance(target, int) or target < 1:
        raise ScenarioError(f"updates must be a whole number, 1 or more (got {target!r})")
    seed = scenario.run.seed if seed is None else seed
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    if not isinstance(seed, int) or seed < 0:
        raise ScenarioError(f"seed must be a whole number, 0 or more (got {seed!r})")

    network = Network.of(scenario)
    warmup = _warmup(scenario, network, target)
    if warmup >= target:
        raise ScenarioError(f"{scenario.name}: run.warmup must be less than the number of updates, {target} "
                            f"(got {warmup}); simulate longer or discard less")
    machine = _engine(network, Variates(network.laws, seed=seed, replication=replication), engine, target)
    accumulator = Accumulator(network, warmup=warmup)
    kept: list[Chunk] = []
    interrupted = False
    for chunk in machine.chunks(target):
        accumulator.fold(chunk)
        if trace:
            kept.append(chunk.copy())
        if on_chunk is not None and on_chunk(machine.version) and machine.version < target:
            interrupted = True
            break
    if not accumulator.rows:
        raise TooShortError(f"nothing to report: {machine.version} updates do not outlast the warm-up "
                            f"of {accumulator.warmup}")
    return _summarise(scenario, network, machine, accumulator, seed, interrupted, kept)


def runs_compiled(network: Network, engine: str, updates: int) -> bool:
    """Whether the compiled engine is the one to run so many ``updates``: as asked, or for "auto" if it pays."""
    return engine == "compiled" or (engine == "auto" and updates * network.rows_per_update > FEW_ROWS)


def _engine(network: Network, variates: Variates, name: str, updates: int) -> Engine:
    if runs_compiled(network, name, updates):
        import numba

        if not getattr(numba.config, "DISABLE_JIT", 0):  # else the SimPy engine does the same, to the last bit
            from asyncq.engines.compiled import CompiledEngine

            return CompiledEngine(network, variates)
    from asyncq.engines.process import SimpyEngine

    return SimpyEngine(network, variates)


def _warmup(scenario: Scenario, network: Network, updates: int) -> int:
    """Updates left out of the statistics: as asked, or ten cycles of everybody and 5 % of the run, at most half."""
    asked = scenario.run.warmup
    if asked == "none":
        return 0
    if asked != "auto":
        return int(asked)
    return min(max(10 * network.workers, updates // 20), updates // 2)


def _summarise(
    scenario: Scenario,
    network: Network,
    machine: Engine,
    accumulator: Accumulator,
    seed: int,
    interrupted: bool,
    kept: list[Chunk],
) -> Run:
    batches = accumulator.batches(BATCH_COUNT)
    rows, staleness_sum, _, seconds, updates, visits, waited, busy = batches.T
    counts = accumulator.histogram
    law = StalenessLaw(counts / counts.sum(), unit=network.unit, source="measured")
    effective, weight = law, 1.0
    if network.weight is not None:
        late = np.arange(law.pmf.size)
        weights = np.where(late > network.parameters["maximum_staleness"], network.weight(late), 1.0)
        effective, weight = law.weighted(weights)
    fit = fit_geometric(accumulator, network.workers)
    per_second = f"{network.unit} per second"
    server = None
    if network.has_server:
        utilisation = ratio_of_batches(busy, seconds * network.seats, unit="share of seats")
        server = Server(network.seats, utilisation, ratio_of_batches(waited, visits, unit="seconds"))
    spread = ratio_of_batches(staleness_sum, rows, unit=network.unit)
    return Run(
        scenario=scenario,
        engine=machine.name,
        seed=seed,
        updates=machine.version,
        warmup=accumulator.warmup,
        seconds=machine.now,
        interrupted=interrupted,
        throughput=ratio_of_batches(updates, seconds, unit=per_second),
        gradients=ratio_of_batches(rows, seconds, unit="gradients per second"),
        kinds=dict(zip(KIND_NAMES, accumulator.kinds.tolist(), strict=True)),
        staleness=Staleness(
            mean=law.mean,
            sd=law.sd,
            ci95=spread.ci95,
            quantiles={f"{q:.0%}": int(law.quantile(q)[0]) for q in QUANTILES},
            law=law,
            unit=network.unit,
            weight=weight,
            effective_mean=effective.mean,
        ),
        fit=fit,
        momentum=_momentum(scenario, effective, fit.verdict == "accepted" and weight == 1.0, accumulator.rows),
        server=server,
        groups=_groups(network),
        pools=_pools(network, accumulator, float(seconds.sum()), float(rows.sum())),
        machine_time=machine.machine_time,
        synchronous=synchronous_throughput(network),
        trace=Chunk.join(kept) if kept else None,
    )


def _momentum(scenario: Scenario, law: StalenessLaw, geometric: bool, rows: int) -> Momentum:
    """The additive rule of [AbM]: explicit = target - implicit; theory.md section 2 says what it rests on."""
    implicit = 1.0 - 1.0 / (1.0 + law.mean)
    target = None if scenario.optimizer is None else scenario.optimizer.momentum
    return Momentum(
        target=target,
        implicit=implicit,
        explicit=None if target is None else target - implicit,
        basis="geometric law" if geometric else "first order only",
        is_delay=not geometric and not is_momentum(law, rows),
    )


def _groups(network: Network) -> Groups | None:
    if network.group_size == 1:
        return None
    return Groups(network.workers, network.group_size, network.group_efficiency)


def _pools(network: Network, accumulator: Accumulator, seconds: float, rows: float) -> tuple[Pool, ...]:
    sizes = np.bincount(network.pool_of)
    committed = np.bincount(network.pool_of, weights=accumulator.per_worker[0])
    sums = np.bincount(network.pool_of, weights=accumulator.per_worker[1])
    rate = rows / seconds / accumulator.rows if seconds > 0 else 0.0
    return tuple(
        Pool(name, int(size), float(total / n) if n else None, float(n * rate))
        for name, size, n, total in zip(network.pools, sizes, committed, sums, strict=True)
    )
