"""Independent replications: each is reproducible alone, whatever runs beside it."""

from __future__ import annotations

import json

import pytest
from cases import scenario

from asyncq import ScenarioError, TooShortError, replicate, simulate

CASE = scenario(optimizer={"momentum": 0.9})


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
def test_one_replicate_is_reproducible_alone(engine):
    together = replicate(CASE, replications=5, engine=engine, seed=7, updates=20_000, threads=3)
    alone = simulate(CASE, engine=engine, seed=7, updates=20_000, replication=3)
    assert together.runs[3].to_dict() == alone.to_dict()
    assert len({run.throughput.mean for run in together.runs}) == 5
    json.dumps(together.to_dict(), allow_nan=False)


def test_intervals_over_replications_cover():
    """95 % intervals of the throughput 8 and of P(fresh) = 1/8; 200 sets of 6 runs, 4 standard errors: 6e-5 each."""
    covered = [0, 0]
    for seed in range(200):
        seen = replicate(scenario(run={"warmup": 500}), replications=6, engine="compiled", seed=seed, updates=3000)
        for i, (estimate, exact) in enumerate([(seen.throughput, 8.0), (seen.fresh, 0.125)]):
            covered[i] += estimate.ci95[0] < exact < estimate.ci95[1]
    for count in covered:
        assert abs(count / 200 - 0.95) < 4 * (0.95 * 0.05 / 200) ** 0.5


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
