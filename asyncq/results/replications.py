"""Independent replications of a scenario, in parallel threads: compiled kernels release the interpreter's lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncq.errors import ScenarioError, TooShortError, old_attributes
from asyncq.estimate import Estimate
from asyncq.jsonable import record
from asyncq.results.findings import ServerResult, Staleness
from asyncq.results.run import EngineName, Run, simulate
from asyncq.scenario import as_scenario
from asyncq.shown import Shown
from asyncq.statistics.intervals import mean_of_independent
from asyncq.system.variates import chosen_seed

if TYPE_CHECKING:
    from pandas import DataFrame

    from asyncq.scenario import Scenario

__all__ = ["Replications", "replicate"]


@old_attributes(gradients="gradient_rate")
@dataclass(frozen=True, eq=False, repr=False)
class Replications(Shown, text="run.render_replications", figure="axes.replications"):
    """Runs that differ only in their random streams, and estimates over the runs with Student's intervals (95 %).

    Intervals of the shares of staleness values and of quantiles are those of :class:`Staleness`, with a run in place
    of a part. Run number i is that of ``simulate(scenario, seed=seed, replication=i)``.
    """

    runs: tuple[Run, ...]
    throughput: Estimate
    gradient_rate: Estimate
    staleness: Staleness
    staleness_sd: Estimate
    fresh: Estimate
    server: ServerResult | None

    @property
    def interrupted(self) -> bool:
        """Whether a replication was cut short or left out."""
        return any(run.interrupted for run in self.runs)

    def facts(self) -> dict[str, str]:
        """The main findings, by name."""
        return {
            "scenario": self.runs[0].scenario.name,
            "runs": str(len(self.runs)),
            "seed": str(self.runs[0].seed),
            "throughput": str(self.throughput),
            "mean staleness": f"{self.staleness.mean:.4g} (sd {self.staleness.sd:.4g}) {self.staleness.unit}",
        }

    def to_frame(self) -> DataFrame:
        """The runs as a pandas frame, a row for each run."""
        import pandas

        return pandas.DataFrame([
            {
                "updates": run.updates,
                "seconds": run.seconds,
                "throughput": run.throughput.mean,
                "gradient_rate": run.gradient_rate.mean,
                "mean_staleness": run.staleness.mean,
                "sd_staleness": run.staleness.sd,
                "verdict": run.fit.verdict,
            }
            for run in self.runs
        ])  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The JSON report: the estimates, and the report of every run."""
        return record({
            "schema": 1,
            "throughput": {**self.throughput.to_dict(), "gradients": self.gradient_rate},
            "staleness": self.staleness,
            "staleness_sd": self.staleness_sd,
            "fresh": self.fresh,
            "server": self.server,
            "interrupted": self.interrupted,
            "replications": self.runs,
        })  # fmt: skip


def replicate(
    scenario: Scenario | str | Path,
    *,
    replications: int,
    engine: EngineName = "auto",
    seed: int | None = None,
    updates: int | None = None,
    threads: int | None = None,
    on_chunk: Callable[[int], bool | None] | None = None,
) -> Replications:
    """Simulate a scenario, or its file, ``replications`` times, on all processors or on ``threads`` of them.

    ``on_chunk(updates_so_far)`` is called with the updates of all replications together, from several threads but
    never at once; if it returns True, replications end as they are. Raises what ``simulate`` raises.
    """
    scenario = as_scenario(scenario)
    if not isinstance(replications, int) or replications < 1:
        raise ScenarioError(f"replications must be a whole number, 1 or more (got {replications!r})")
    seed = chosen_seed(seed, scenario.run.seed)
    done = [0] * replications
    lock, stopped = threading.Lock(), threading.Event()

    def one(number: int) -> Run | None:
        def report(updates_so_far: int) -> bool:
            with lock:
                done[number] = updates_so_far
                if on_chunk is not None and on_chunk(sum(done)):
                    stopped.set()
            return stopped.is_set()

        try:
            return simulate(scenario, engine=engine, seed=seed, updates=updates, replication=number, on_chunk=report)
        except TooShortError:
            if not stopped.is_set():
                raise
            return None  # stopped within its warm-up; longer replications are kept

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        runs = tuple(run for run in pool.map(one, range(replications)) if run is not None)
    if not runs:
        raise TooShortError("nothing to report: stopped before any replication had outlasted its warm-up")
    first = runs[0]
    servers = [run.server for run in runs if run.server is not None]
    staleness = Staleness.over([run._collected for run in runs], first._network)
    fresh = None if staleness.pmf_ci95 is None else (float(staleness.pmf_ci95[0, 0]), float(staleness.pmf_ci95[1, 0]))
    return Replications(
        runs,
        throughput=mean_of_independent([run.throughput.mean for run in runs], unit=first.throughput.unit),
        gradient_rate=mean_of_independent([run.gradient_rate.mean for run in runs], unit=first.gradient_rate.unit),
        staleness=staleness,
        staleness_sd=mean_of_independent([run.staleness.sd for run in runs], unit=first.staleness.unit),
        fresh=Estimate(float(staleness.pmf[0]), fresh, "share of gradients"),
        server=ServerResult.over(servers) if servers else None,
    )
