"""The main job: simulate a scenario and say what was seen, with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
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
from asyncq.statistics.accumulate import Accumulator, Collected
from asyncq.statistics.dependence import Dependence, dependence
from asyncq.statistics.goodness import StalenessFit, fit_geometric
from asyncq.statistics.intervals import quantiles_of_parts, ratio_of_batches, shares_of_parts, variance_of_batches
from asyncq.statistics.precision import PrecisionRule
from asyncq.statistics.series import Series, mean_of
from asyncq.statistics.steady_state import WarmUp, warm_up
from asyncq.statistics.workers import WhoIsStale, who_is_stale
from asyncq.theory.momentum import is_momentum
from asyncq.theory.throughput import synchronous_throughput
from asyncq.variates import Variates, chosen_seed

if TYPE_CHECKING:
    from asyncq.scenario import Scenario
    from asyncq.statistics.fitting import Fitted

__all__ = ["ENGINES", "Groups", "Momentum", "Pool", "Run", "Server", "Shards", "Staleness", "runs_compiled", "simulate"]

ENGINES = ("auto", "simpy", "compiled")
FEW_ROWS = 200_000  # the SimPy engine has these done before the compiled one has started
QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, eq=False)
class Staleness:
    """The staleness of applied gradients after the warm-up, in ``unit``; ``ci95`` is the mean's, and wider than it need
    be, because the conservation law pins the mean.

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
    variance: Estimate
    pmf_ci95: NDArray[np.float64] | None  # shape (2, cells): of the pmf's cells, 95 % each by itself
    quantile_intervals: dict[str, tuple[int, int] | None]

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
class Shards:
    """A sharded server: the mean staleness of every shard's updates, ``worst``, the number of the shard where it is
    largest, and the mean over gradients of the ``stalest`` of their parts. Shards are alike, so that their means differ
    by chance; whatever else a report says of staleness and of the server is said of the worst."""

    count: int
    worst: int
    staleness: tuple[Estimate, ...]
    stalest: Estimate

    def to_dict(self) -> dict[str, Any]:
        """As the JSON report has it."""
        return {
            "count": self.count,
            "worst": self.worst,
            "staleness": [one.to_dict() for one in self.staleness],
            "stalest": self.stalest.to_dict(),
        }


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
    shards: Shards | None
    groups: Groups | None
    pools: tuple[Pool, ...]
    machine_time: MachineTime
    synchronous: Estimate | None
    trace: Chunk | None
    warm_up: WarmUp | None  # what was looked for and found; None if the scenario says what to leave out
    precision: float | None  # the widest relative half-width, where the scenario asks for one
    warnings: tuple[str, ...]
    network: Network
    collected: Collected

    @cached_property
    def dependence(self) -> Dependence:
        """How far consecutive gradients are from independent."""
        return dependence(self.collected)

    @cached_property
    def who_is_stale(self) -> WhoIsStale:
        """The workers' mean staleness, a test for equality, and who stands out."""
        return who_is_stale(self.collected, self.network.pool_of, self.network.pools)

    @cached_property
    def laws(self) -> tuple[Fitted, ...]:
        """All families of laws fitted to the staleness, the best first; takes up to a second."""
        from asyncq.statistics.fitting import rank

        return rank(self.collected)

    def to_dict(self) -> dict[str, Any]:
        """The JSON report, schema 1: keys are only ever added. "laws" is null unless :attr:`laws` was asked for."""
        pmf_ci95 = self.staleness.pmf_ci95
        intervals = self.staleness.quantile_intervals.items()
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
                "variance": self.staleness.variance.to_dict(),
                "pmf_ci95": None if pmf_ci95 is None else pmf_ci95.tolist(),
                "quantile_intervals": {name: ends and list(ends) for name, ends in intervals},
            },
            "fit": {
                "family": self.fit.family,
                "p": self.fit.p,
                "gof": self.fit.gof.to_dict(),
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
            "shards": None if self.shards is None else self.shards.to_dict(),
            "groups": None if self.groups is None else vars(self.groups),
            "pools": [vars(pool) for pool in self.pools],
            "machine_time": {stage: spent / total for stage, spent in self.machine_time._asdict().items()},
            "warm_up": None if self.warm_up is None else vars(self.warm_up),
            "precision": self.precision if self.precision is not None and np.isfinite(self.precision) else None,
            "dependence": self.dependence.to_dict(),
            "who_is_stale": self.who_is_stale.to_dict(),
            "laws": [law.to_dict() for law in self.laws] if "laws" in vars(self) else None,
            "warnings": list(self.warnings),
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
    on_precision: Callable[[float], None] | None = None,
) -> Run:
    """Simulate a scenario.

    ``engine`` is "simpy", "compiled" (identical rows, some eighty times faster, a few seconds to compile once) or
    "auto". ``seed`` and ``updates`` override the scenario's; without any seed a fresh one is drawn and recorded. Runs
    that differ in ``replication`` only are independent. ``trace`` keeps every row (memory grows with the run).
    ``on_chunk(updates_so_far)`` is called after each chunk of rows; if it returns True the run ends there and its
    ``interrupted`` is true. Where the scenario asks for a precision, ``updates`` is a cap, and
    ``on_precision(half_width_now)`` is called with the widest relative half-width so far.

    Raises ``ScenarioError`` for an unknown engine, a bad seed or number of updates, and for a protocol that needs no
    simulation (pipeline); ``DeadlockError`` if the simulation cannot proceed.
    """
    if engine not in ENGINES:
        raise ScenarioError(f"engine must be one of {', '.join(ENGINES)} (got {engine!r})")
    target = scenario.run.updates if updates is None else updates
    if not isinstance(target, int) or target < 1:
        raise ScenarioError(f"updates must be a whole number, 1 or more (got {target!r})")
    seed = chosen_seed(seed, scenario.run.seed)

    network = Network.of(scenario)
    asked = scenario.run.warmup
    warmup = asked if isinstance(asked, int) else 0
    if warmup >= target:
        raise ScenarioError(f"{scenario.name}: run.warmup must be less than the number of updates, {target} "
                            f"(got {warmup}); simulate longer or discard less")
    machine = _engine(network, Variates(network.laws, seed=seed, replication=replication), engine, target)
    series = Series(network, warmup=warmup, compiled=machine.name == "compiled")
    rule = None
    if scenario.run.precision is not None:
        rule = PrecisionRule(scenario.run.precision, network.unit, None if asked == "auto" else warmup)
    kept: list[Chunk] = []
    interrupted = False
    for chunk in machine.chunks(target):
        series.fold(chunk)
        if trace:
            kept.append(chunk.copy())
        if on_chunk is not None and on_chunk(machine.version) and machine.version < target:
            interrupted = True
            break
        if rule is not None:
            enough = rule.reached(series.shards[0])
            if on_precision is not None:
                on_precision(rule.now)
            if enough:
                break
    if not series.rows:
        raise TooShortError(f"nothing to report: {machine.version} updates do not outlast the warm-up "
                            f"of {warmup}")
    shards = _shards(network, series, auto=asked == "auto")
    accumulator = series.shards[0 if shards is None else shards.worst]
    run = _summarise(scenario, network, machine, accumulator, shards, seed, interrupted, kept)
    if rule is None:
        return run
    missed: tuple[str, ...] = ()
    if rule.now > rule.goal:
        how = f"{rule.now:.2g}" if np.isfinite(rule.now) else "none yet"
        missed = (f"the precision of {rule.goal:g} was not reached: half-width {how} after {run.updates:,} updates",)
    return replace(run, precision=rule.now, warnings=run.warnings + missed)


def runs_compiled(network: Network, engine: str, updates: int) -> bool:
    """Whether the compiled engine is the one to run so many ``updates``: as asked, or for "auto" if it pays."""
    return engine == "compiled" or (engine == "auto" and updates * network.rows_per_update * network.shards > FEW_ROWS)


def _engine(network: Network, variates: Variates, name: str, updates: int) -> Engine:
    if runs_compiled(network, name, updates):
        import numba

        if not getattr(numba.config, "DISABLE_JIT", 0):  # else the SimPy engine does the same, to the last bit
            from asyncq.engines.compiled import CompiledEngine

            return CompiledEngine(network, variates)
    from asyncq.engines.process import SimpyEngine

    return SimpyEngine(network, variates)


def _summarise(
    scenario: Scenario,
    network: Network,
    machine: Engine,
    accumulator: Accumulator,
    shards: Shards | None,
    seed: int,
    interrupted: bool,
    kept: list[Chunk],
) -> Run:
    found = warm_up(accumulator) if scenario.run.warmup == "auto" else None
    collected = accumulator.collected(0 if found is None else found.rows)
    rows, sums, squares, seconds, updates, visits, waited, busy = collected.batches.T
    cycle = -(-network.workers // collected.batch_rows)  # batches in which everybody has a turn
    counts = collected.histogram
    law = StalenessLaw(counts / counts.sum(), unit=network.unit, source="measured")
    effective, weight = law, 1.0
    if network.weight is not None:
        late = np.arange(law.pmf.size)
        weights = np.where(late > network.parameters["maximum_staleness"], network.weight(late), 1.0)
        effective, weight = law.weighted(weights)
    fit = fit_geometric(collected)
    per_second = f"{network.unit} per second"
    server = None
    if network.has_server:
        utilisation = ratio_of_batches(busy, seconds * network.seats, unit="share of seats", smallest=cycle)
        server = Server(
            network.seats, utilisation, ratio_of_batches(waited, visits, unit="seconds", smallest=cycle)
        )
    spread = ratio_of_batches(sums, rows, unit=network.unit, smallest=cycle)
    pmf_ci95 = shares_of_parts(collected.parts, collected.part_rows)
    names = [f"{q:.0%}" for q in QUANTILES]
    quantiles = quantiles_of_parts(collected.parts, collected.part_rows, QUANTILES)
    return Run(
        scenario=scenario,
        engine=machine.name,
        seed=seed,
        updates=machine.version,
        warmup=collected.warmup,
        seconds=machine.now,
        interrupted=interrupted,
        throughput=ratio_of_batches(updates, seconds, unit=per_second, smallest=cycle),
        gradients=ratio_of_batches(rows, seconds, unit="gradients per second", smallest=cycle),
        kinds=dict(zip(KIND_NAMES, collected.kinds.tolist(), strict=True)),
        staleness=Staleness(
            mean=law.mean,
            sd=law.sd,
            ci95=spread.ci95,
            quantiles=dict(zip(names, law.quantile(QUANTILES).tolist(), strict=True)),
            law=law,
            unit=network.unit,
            weight=weight,
            effective_mean=effective.mean,
            variance=variance_of_batches(rows, sums, squares, unit=f"{network.unit} squared", smallest=cycle),
            pmf_ci95=None if pmf_ci95 is None else pmf_ci95[:, : law.pmf.size],
            quantile_intervals=dict(zip(names, quantiles, strict=True)),
        ),
        fit=fit,
        momentum=_momentum(scenario, effective, fit.is_geometric and weight == 1.0, collected.rows),
        server=server,
        shards=shards,
        groups=_groups(network),
        pools=_pools(network, collected, float(seconds.sum()), float(rows.sum())),
        machine_time=machine.machine_time,
        synchronous=synchronous_throughput(network),
        trace=Chunk.join(kept) if kept else None,
        warm_up=found,
        precision=None,
        warnings=_warnings(found, network),
        network=network,
        collected=collected,
    )


def _warnings(found: WarmUp | None, network: Network) -> tuple[str, ...]:
    if found is None or found.enough is None:
        return ()
    enough = -(-found.enough // network.rows_per_update)
    return (f"too short to have settled ({found.series}); {enough:,} updates would do",)


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


def _shards(network: Network, series: Series, *, auto: bool) -> Shards | None:
    if series.beside is None:
        return None
    worst, means = series.stalest(unit=network.unit, auto=auto)
    return Shards(network.shards, worst, means, mean_of(series.beside, unit=network.unit, auto=auto))


def _groups(network: Network) -> Groups | None:
    if network.group_size == 1:
        return None
    return Groups(network.workers, network.group_size, network.group_efficiency)


def _pools(network: Network, collected: Collected, seconds: float, rows: float) -> tuple[Pool, ...]:
    sizes = np.bincount(network.pool_of)
    committed = np.bincount(network.pool_of, weights=collected.per_worker[0])
    sums = np.bincount(network.pool_of, weights=collected.per_worker[1])
    rate = rows / seconds / collected.rows if seconds > 0 else 0.0
    return tuple(
        Pool(name, int(size), float(total / n) if n else None, float(n * rate))
        for name, size, n, total in zip(network.pools, sizes, committed, sums, strict=True)
    )
