"""Independent replications: each is reproducible alone, whatever runs beside it."""

from __future__ import annotations

import json

import pytest
from cases import scenario

from asyncq import ScenarioError, TooShortError, replicate, simulate
from asyncq.text.run import render_replications
from asyncq.theory.queueing.closed_network import mean_value_analysis

CASE = scenario(optimizer={"momentum": 0.9})


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
def test_one_replicate_is_reproducible_alone(engine):
    together = replicate(CASE, replications=5, engine=engine, seed=7, updates=20_000, threads=3)
    alone = simulate(CASE, engine=engine, seed=7, updates=20_000, replication=3)
    assert together.runs[3].to_dict() == alone.to_dict()
    assert len({run.throughput.mean for run in together.runs}) == 5
    json.dumps(together.to_dict(), allow_nan=False)


def test_intervals_over_replications_cover():
    """95 % intervals of the throughput 8, of P(0) and P(20) of the geometric law and of its 90 % quantile 17, which an
    interval of whole numbers covers more often; 200 sets of 6 runs, 4 standard errors: 6e-5 each."""
    names = ("throughput", "fresh", "cell", "quantile")
    covered = dict.fromkeys(names, 0)
    for seed in range(200):
        seen = replicate(scenario(run={"warmup": 500}), replications=6, engine="compiled", seed=seed, updates=3000)
        ends = seen.throughput.ci95, seen.fresh.ci95, seen.staleness.pmf_ci95[:, 20]
        for name, (low, high), exact in zip(names, ends, (8.0, 0.125, 0.125 * 0.875**20), strict=False):
            covered[name] += low < exact < high
        low, high = seen.staleness.quantile_intervals["90%"]
        covered["quantile"] += low <= 17 <= high
    margin = 4 * (0.95 * 0.05 / 200) ** 0.5
    assert all(count / 200 > 0.95 - margin for count in covered.values()), covered
    assert all(covered[name] / 200 < 0.95 + margin for name in ("throughput", "fresh"))


def test_a_server_has_its_intervals_over_replications():
    """One exponential seat and 8 workers: utilisation and waiting of the closed network (mean value analysis)."""
    case = scenario(server={"service_time": {"law": "exponential", "mean": 0.1}})
    seen = replicate(case, replications=8, engine="compiled", seed=5, updates=20_000)
    rate = mean_value_analysis(workers=8, think=1.0, service=0.1)
    server = seen.server
    for estimate, exact in ((server.utilisation, 0.1 * rate), (server.waiting, 8 / rate - 1.1)):
        # a 95 % interval of Student's with 7 degrees of freedom, three times as wide: false alarm 2e-4
        assert abs(estimate.mean - exact) < 3 * estimate.half_width
    assert seen.to_dict()["server"]["waiting"]["mean"] == server.waiting.mean
    assert f"queue {server.waiting.mean:.4g}" in render_replications(seen)


def test_being_told_to_stop_ends_them_all():
    seen = replicate(scenario(run={"warmup": 100}), replications=3, seed=1, updates=10**9, engine="compiled",
                     on_chunk=lambda done: done > 50_000)  # fmt: skip
    assert seen.interrupted
    assert all(run.updates < 10**9 for run in seen.runs)


def test_what_is_stopped_within_its_warm_up_is_left_out():
    """One thread: the first replication is whole, the second is stopped at its first chunk."""
    case = scenario(run={"warmup": 30_000})
    seen = replicate(case, replications=2, seed=1, updates=40_000, engine="simpy", threads=1,
                     on_chunk=lambda done: done > 50_000)  # fmt: skip
    assert [run.updates for run in seen.runs] == [40_000]
    with pytest.raises(TooShortError, match="nothing to report"):
        replicate(case, replications=2, seed=1, updates=40_000, engine="simpy", on_chunk=lambda done: True)


@pytest.mark.parametrize("count", [0, -1, 2.5])
def test_a_bad_count_is_refused(count):
    with pytest.raises(ScenarioError, match="replications must be"):
        replicate(CASE, replications=count)
