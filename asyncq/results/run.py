"""The main job: simulate a scenario and say what was seen, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from asyncq import __version__
from asyncq.engines.choice import can_compile
from asyncq.engines.machine_time import MachineTime
from asyncq.engines.rows import Chunk, Engine
from asyncq.errors import ScenarioError, TooShortError, old_attributes
from asyncq.estimate import Estimate
from asyncq.jsonable import record
from asyncq.protocols.state import FATES, LOST
from asyncq.results.findings import (
    GroupsResult,
    LearnerResult,
    PoolResult,
    Pools,
    ServerResult,
    ShardsResult,
    Staleness,
    TreeResult,
)
from asyncq.scenario import as_scenario
from asyncq.shown import Shown
from asyncq.statistics.agreement import Agreement, agreement
from asyncq.statistics.collect.accumulate import Collected
from asyncq.statistics.collect.over_time import OverTime, TimeBins
from asyncq.statistics.collect.series import Collector
from asyncq.statistics.dependence import Dependence, dependence
from asyncq.statistics.fit.goodness import StalenessFit, fit_geometric
from asyncq.statistics.intervals import ratio_of_batches
from asyncq.statistics.precision import PrecisionRule
from asyncq.statistics.steady_state import WarmUp, warm_up
from asyncq.statistics.workers import WhoIsStale, who_is_stale
from asyncq.system.machines import NEVER
from asyncq.system.network import Network
from asyncq.system.variates import BLOCK, Variates, chosen_seed
from asyncq.theory.momentum import MomentumLine, is_momentum
from asyncq.theory.queueing.throughput import synchronous_throughput
from asyncq.theory.recommendation.learning_rate_limit import FirstLook, first_look

if TYPE_CHECKING:
    from pandas import DataFrame

    from asyncq.scenario import Scenario
    from asyncq.staleness import StalenessLaw
    from asyncq.statistics.fit.fitting import Fitted

__all__ = ["ENGINES", "EngineName", "Run", "foreseen", "runs_compiled", "simulate"]

EngineName = Literal["auto", "simpy", "compiled"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
FEW_ROWS = 200_000  # the SimPy engine has these done before the compiled one has started


@old_attributes(
    kinds="gradients",
    recommendation="learning_rate_limit",
    synchronous="synchronous_rate",
    warm_up="warmup_search",
    laws="fit_laws()",
    network="_network",
    collected="_collected",
)
@dataclass(frozen=True, eq=False, repr=False)
class Run(Shown, text="run.render", figure="axes.run"):
    """What one simulation showed. Attributes are those of the JSON report (:meth:`to_dict`), and ``trace``."""

    scenario: Scenario
    engine: str
    seed: int
    updates: int
    warmup: int
    seconds: float
    interrupted: bool
    throughput: Estimate
    gradient_rate: Estimate
    gradients: dict[str, int]
    staleness: Staleness
    fit: StalenessFit
    momentum: MomentumLine
    server: ServerResult | None
    shards: ShardsResult | None
    averagings: Estimate | None  # in gossip: of a worker's copy by others, between a gradient's read and application
    groups: GroupsResult | None
    learner: LearnerResult | None
    tree: TreeResult | None
    pools: Pools
    machine_time: MachineTime
    synchronous_rate: Estimate | None
    trace: Chunk | None
    warmup_search: WarmUp | None  # what was looked for and found; None if the scenario says what to leave out
    precision: float | None  # the widest relative half-width, where the scenario asks for one
    over_time: OverTime | None  # of a run that ends at a time
    warnings: tuple[str, ...]
    _network: Network
    _collected: Collected

    @property
    def ended_by(self) -> str:
        """What ended the run: "updates", "until" (the time), "precision" or "interrupt"."""
        asked = self.scenario.run
        if self.interrupted:
            return "interrupt"
        if self.precision is not None and asked.precision is not None and self.precision <= asked.precision:
            return "precision"
        return "until" if self.over_time is not None and self.seconds == asked.until else "updates"

    @cached_property
    def dependence(self) -> Dependence:
        """How far consecutive gradients are from independent."""
        return dependence(self._collected)

    @cached_property
    def who_is_stale(self) -> WhoIsStale:
        """The workers' mean staleness, a test for equality, and who stands out."""
        return who_is_stale(self._collected, self._network.pool_of, self._network.pools)

    @cached_property
    def exact(self) -> Agreement | None:
        """What theory says of the same scenario, beside what was seen; None where it knows not even the mean."""
        return agreement(self.scenario, self._collected)

    @cached_property
    def learning_rate_limit(self) -> FirstLook | None:
        """How large a learning rate today's momentum survives; None where the scenario does not say what runs today.
        The whole recommendation is :func:`asyncq.recommend`'s."""
        return first_look(self.scenario, self.staleness.effective)

    def facts(self) -> dict[str, str]:
        """The run in a few words."""
        return {
            "scenario": self.scenario.name,
            "updates": f"{self.updates:,}",
            "seed": str(self.seed),
            "throughput": str(self.throughput),
            "mean staleness": f"{self.staleness.mean:.4g} (sd {self.staleness.sd:.4g}) {self.staleness.unit}",
            "geometric law": self.fit.verdict,
            "implicit momentum": f"{self.momentum.implicit:.3f}",
        }

    def to_frame(self) -> DataFrame:
        """The measured staleness law as a pandas frame: ``staleness``, ``share`` of gradients with its 95 % interval
        (``low``, ``high``; missing where the run is too short), and the ``geometric`` law of the same mean."""
        import pandas

        return pandas.DataFrame(self.staleness.columns())

    def fit_laws(self) -> tuple[Fitted, ...]:
        """Fit all families of laws to the staleness, the best first; takes up to a second."""
        from asyncq.statistics.fit.fitting import rank

        return rank(self._collected)

    def to_dict(self, *, laws: Sequence[Fitted] = ()) -> dict[str, Any]:
        """The JSON report, schema 1: keys are only ever added. "laws" is null unless given (:meth:`fit_laws`)."""
        total = sum(self.machine_time) or 1.0
        return record({
            "schema": 1,
            "version": __version__,
            "scenario": self.scenario,
            "engine": self.engine,
            "seed": self.seed,
            "updates": self.updates,
            "warmup": self.warmup,
            "seconds": self.seconds,
            "interrupted": self.interrupted,
            "ended_by": self.ended_by,
            "throughput": {**self.throughput.to_dict(), "gradients": self.gradient_rate},
            "synchronous": self.synchronous_rate,
            "gradients": self.gradients,
            "staleness": self.staleness,
            "fit": self.fit,
            "exact": self.exact,
            "momentum": self.momentum,
            "recommendation": self.learning_rate_limit,
            "server": self.server,
            "shards": self.shards,
            "averagings": self.averagings,
            "groups": self.groups,
            "learner": self.learner,
            "tree": self.tree,
            "pools": self.pools,
            "machine_time": {stage: spent / total for stage, spent in self.machine_time._asdict().items()},
            "phases": None if self.over_time is None else self.over_time.phases,
            "warm_up": self.warmup_search,
            "precision": self.precision,
            "dependence": self.dependence,
            "who_is_stale": self.who_is_stale,
            "laws": laws or None,
            "warnings": self.warnings,
        })  # fmt: skip


def simulate(
    scenario: Scenario | str | Path,
    *,
    engine: EngineName = "auto",
    seed: int | None = None,
    updates: int | None = None,
    replication: int = 0,
    trace: bool = False,
    on_chunk: Callable[[int], bool | None] | None = None,
    on_precision: Callable[[float], None] | None = None,
) -> Run:
    """Simulate a scenario, or its file.

    ``engine`` is "simpy", "compiled" (identical rows, some eighty times faster, a few seconds to compile once) or
    "auto". ``seed`` and ``updates`` override the scenario's; without any seed a fresh one is drawn and recorded. Runs
    that differ in ``replication`` only are independent. ``trace`` keeps every row (memory grows with the run).
    ``on_chunk(updates_so_far)`` is called after each chunk of rows; if it returns True the run ends there and its
    ``interrupted`` is true. Where the scenario asks for a precision, ``updates`` is a cap, and
    ``on_precision(half_width_now)`` is called with the widest relative half-width so far.

    Raises ``ScenarioError`` for an unknown engine, a bad seed or number of updates, and for a protocol that needs no
    simulation (pipeline); ``DeadlockError`` if the simulation cannot proceed.
    """
    scenario = as_scenario(scenario)
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
    until = NEVER if scenario.run.until is None else scenario.run.until
    bins = None if until == NEVER else TimeBins(scenario, until, network.unit)
    ahead = foreseen(network, target, until)
    machine = _engine(network, Variates(network.laws, seed=seed, replication=replication), engine, ahead)
    series = Collector(network, warmup=warmup, compiled=machine.name == "compiled")
    rule = None
    if scenario.run.precision is not None:
        rule = PrecisionRule(scenario.run.precision, network.unit, None if asked == "auto" else warmup)
    kept: list[Chunk] = []
    interrupted = False
    for chunk in machine.chunks(target, until):
        series.fold(chunk)
        if bins is not None:
            bins.fold(chunk)
        if trace:
            kept.append(chunk.copy())
        if on_chunk is not None and on_chunk(machine.version) and machine.version < target:
            interrupted = True
            break
        if rule is not None:
            enough = rule.reached(series.shards)
            if on_precision is not None:
                on_precision(rule.now)
            if enough:
                break
    if machine.version == 0 and until < NEVER and not interrupted:
        lost = int(series.shards[0].collected().fates[LOST])
        remedy = f"; {lost:,} gradients were lost, see failure.after" if lost else ""
        how = f"run.until must leave time for an update (got {until:g} s); end it later{remedy}"
        raise ScenarioError(f"{scenario.name}: {how}")
    if not series.rows:
        raise TooShortError(f"nothing to report: {machine.version} updates do not outlast the warm-up "
                            f"of {warmup}")
    run = _summarise(scenario, network, machine, series, seed, interrupted, kept)
    if bins is not None:
        run = replace(run, over_time=bins.result(machine.now))
    if rule is None:
        return run
    missed: tuple[str, ...] = ()
    if rule.now > rule.goal:
        how = f"{rule.now:.2g}" if np.isfinite(rule.now) else "none yet"
        missed = (f"the precision of {rule.goal:g} was not reached: half-width {how} after {run.updates:,} updates",)
    return replace(run, precision=rule.now, warnings=run.warnings + missed)


def foreseen(network: Network, updates: int, until: float) -> int:
    """About how many updates are made by ``until`` (seconds) if nobody ever waits, but no more than ``updates``."""
    if until == NEVER:
        return updates
    per_second = sum(1.0 / network.laws[stream].mean for stream in network.work.tolist())
    return max(1, min(updates, int(until * per_second / network.rows_per_update)))


def runs_compiled(network: Network, engine: str, updates: int) -> bool:
    """Whether the compiled engine is the one to run so many ``updates``: as asked, or for "auto" if it pays."""
    return engine == "compiled" or (engine == "auto" and updates * network.rows_per_update * network.shards > FEW_ROWS)


def _engine(network: Network, variates: Variates, name: str, updates: int) -> Engine:
    if runs_compiled(network, name, updates) and can_compile():  # else SimPy does the same, to the last bit
        from asyncq.engines.compiled.engine import CompiledEngine

        return CompiledEngine(network, variates)
    from asyncq.engines.process import SimpyEngine

    return SimpyEngine(network, variates)


def _summarise(
    scenario: Scenario,
    network: Network,
    machine: Engine,
    series: Collector,
    seed: int,
    interrupted: bool,
    kept: list[Chunk],
) -> Run:
    shards = ShardsResult.of(series, network, auto=scenario.run.warmup == "auto")
    accumulator = series.shards[0 if shards is None else shards.worst]
    found = warm_up(accumulator) if scenario.run.warmup == "auto" else None
    cold = 0 if found is None else found.rows
    collected = accumulator.collected(cold)
    late = series.beside.collected(cold) if series.beside is not None and network.reads_on else None
    rows, _, _, seconds, updates, *_ = collected.batches.T
    fit = fit_geometric(collected)
    staleness = Staleness.of(collected, network)
    geometric = fit.is_geometric and staleness.weight == 1.0
    per_second = f"{network.unit} per second"
    return Run(
        scenario=scenario,
        engine=machine.name,
        seed=seed,
        updates=machine.version,
        warmup=collected.warmup,
        seconds=machine.now,
        interrupted=interrupted,
        throughput=ratio_of_batches(updates, seconds, unit=per_second, smallest=collected.cycle),
        gradient_rate=ratio_of_batches(rows, seconds, unit="gradients per second", smallest=collected.cycle),
        gradients=dict(zip(FATES, collected.fates.tolist(), strict=True)),
        staleness=staleness,
        fit=fit,
        momentum=_momentum(scenario, staleness.effective, geometric, collected.rows),
        server=ServerResult.of(collected, network),
        shards=shards,
        averagings=series.averagings(auto=scenario.run.warmup == "auto"),
        groups=GroupsResult.of(network),
        learner=LearnerResult.of(collected, late, network, machine.machine_time),
        tree=TreeResult.of(collected, network),
        pools=Pools(PoolResult.all_of(collected, series, network)),
        machine_time=machine.machine_time,
        synchronous_rate=synchronous_throughput(network),
        trace=Chunk.join(kept) if kept else None,
        warmup_search=found,
        precision=None,
        over_time=None,
        warnings=_warnings(found, network, machine),
        _network=network,
        _collected=collected,
    )


def _warnings(found: WarmUp | None, network: Network, machine: Engine) -> tuple[str, ...]:
    warnings = []
    if found is not None and found.enough is not None:
        enough = -(-found.enough // network.rows_per_update)
        warnings.append(f"too short to have settled ({found.series}); {enough:,} updates would do")
    if machine.machines is not None and machine.machines.met_again:
        warnings.append(f"work lasted more than {BLOCK:,} slow intervals and met factors twice; make every longer")
    return tuple(warnings)


def _momentum(scenario: Scenario, law: StalenessLaw, geometric: bool, rows: int) -> MomentumLine:
    target = None if scenario.optimizer is None else scenario.optimizer.momentum
    return MomentumLine.of(law.mean, target, geometric=geometric, is_delay=not geometric and not is_momentum(law, rows))
