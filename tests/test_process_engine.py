"""The SimPy engine against timelines worked out by hand and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from cases import scenario

from asyncq import simulate

ROUTES = [(2.0, "w2"), (3.0, "w3"), (5.0, "w5")]
TWO_THREE_FIVE = [{"name": name, "workers": 1, "work_time": time} for time, name in ROUTES]


def rows(case, updates):
    trace = simulate(case, updates=updates, seed=0, trace=True).trace
    columns = (trace.time, trace.worker, trace.read, trace.staleness)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_three_workers_without_a_server_by_hand():
    """Times 2, 3, 5. At t = 6 worker 1's end was scheduled at t = 3, before worker 0's at t = 4: it commits first."""
    assert rows(scenario(pools=TWO_THREE_FIVE, run={"warmup": "none"}), 9) == [
        (2.0, 0, 0, 0),
        (3.0, 1, 0, 1),
        (4.0, 0, 1, 1),
        (5.0, 2, 0, 3),
        (6.0, 1, 2, 2),
        (6.0, 0, 3, 2),
        (8.0, 0, 6, 0),
        (9.0, 1, 5, 2),
        (10.0, 2, 4, 4),
    ]


def test_three_workers_and_a_server_by_hand():
    """Service takes 2: worker 0 2-4, worker 1 (arrives 3) 4-6, worker 2 (5) 6-8, worker 0 (reads at 4, arrives 6)
    8-10, worker 1 (reads at 6, arrives 9) 10-12, worker 0 (reads at 10, arrives 12) 14-16, behind worker 2 (13)?
    No: worker 0 arrives at 12, as worker 1's service ends, and is seated at once, 12-14; worker 2 (8, 13) 14-16."""
    case = scenario(pools=TWO_THREE_FIVE, server={"service_time": 2.0}, run={"warmup": "none"})
    assert rows(case, 7) == [
        (4.0, 0, 0, 0),
        (6.0, 1, 0, 1),
        (8.0, 2, 0, 2),
        (10.0, 0, 1, 2),
        (12.0, 1, 2, 2),
        (14.0, 0, 4, 1),
        (16.0, 2, 3, 3),
    ]
    run = simulate(case, updates=7, seed=0)
    # queued: worker 1 for 1 s, worker 2 for 1 s, worker 0 for 2 s, worker 1 for 1 s, 0, worker 2 for 1 s
    assert run.server.waiting.mean == pytest.approx(6 / 7)
    assert run.server.utilisation.mean == pytest.approx(14 / 16)


def test_equal_deterministic_work_is_round_robin():
    trace = simulate(scenario(1.0), updates=400, seed=1, trace=True).trace
    assert np.array_equal(trace.worker, np.tile(np.arange(8), 50))
    assert set(trace.staleness[8:]) == {7}


def test_the_same_seed_gives_the_same_rows_and_another_does_not():
    first, again, other = (simulate(scenario(), updates=5000, seed=seed, trace=True).trace for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True) if a is not None)
    assert not np.array_equal(first.time, other.time)


def test_machine_time_adds_up():
    pools = [{"name": "a", "workers": 4, "work_time": 1.0, "pull": 0.5, "push": 0.25}]
    run = simulate(scenario(pools=pools, server={"service_time": 0.3}), updates=4000, seed=1)
    spent = run.machine_time
    assert sum(spent) == pytest.approx(4 * run.seconds)
    cycle = spent.pull + spent.work + spent.push + spent.queue + spent.service
    assert spent.work / cycle == pytest.approx(1 / 2.05, rel=2e-3)  # no queue: 4 workers never meet after the start
    assert spent.blocked == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("seats", "mean"), [(1, 0.1), (2, 0.3)])
def test_a_closed_network_has_the_throughput_of_mean_value_analysis(seats, mean):
    """Machine-repair model, exponential everywhere: the product form gives throughput and mean wait exactly."""
    workers, work = 8, 1.0
    weights = np.ones(workers + 1)
    for n in range(1, workers + 1):
        weights[n] = weights[n - 1] * (workers - n + 1) / work * mean / min(n, seats)
    share = weights / weights.sum()
    served = np.minimum(np.arange(workers + 1), seats)
    throughput = float(share @ served) / mean
    waiting = float(share @ (np.arange(workers + 1) - served)) / throughput
    run = simulate(
        scenario(server={"service_time": {"law": "exponential", "mean": mean}, "seats": seats}), updates=60_000, seed=2
    )
    for estimate, exact in ((run.throughput, throughput), (run.server.waiting, waiting)):
        # half-widths are 2.04 standard errors; 4.5 of them, two checks: false alarm 1e-4 (Student, 31 batches: 3e-4)
        assert abs(estimate.mean - exact) < 4.5 / 2.04 * estimate.half_width
    assert run.server.utilisation.mean == pytest.approx(throughput * mean / seats, rel=0.03)
