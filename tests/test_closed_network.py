"""Laws and throughput at a shared server against matrices, enumerated chains, recursions and plain simulation."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque

import numpy as np
import pytest
from workers_apart import staleness

from asyncq.distributions import Exponential, Gamma
from asyncq.errors import NoExactLaw
from asyncq.staleness import StalenessLaw
from asyncq.theory.queueing import closed_network
from asyncq.theory.queueing.closed_network import (
    at_server,
    mean_value_analysis,
    product_form_throughput,
    server_staleness,
)
from asyncq.theory.queueing.renewal import RenewalPool, independent_workers
from asyncq.theory.queueing.staleness_laws import batched


def by_matrices(workers: int, rate: float, service: float) -> np.ndarray:
    """docs/theory/closed_network.md, equation (C.2), as printed, and tau = a + k, with dense matrices."""
    others = workers - 1
    leave, stay = np.zeros((others + 1, others + 1)), np.zeros((others + 1, others + 1))
    for k in range(others + 1):
        if k:
            leave[k, k - 1] = service
        if k < others:
            stay[k, k + 1] = (others - k) * rate
        stay[k, k] = -(service * (k > 0) + (others - k) * rate + rate)
    generator = leave + stay + rate * np.eye(others + 1)
    system = np.vstack([generator.T, np.ones(others + 1)])
    steady = np.linalg.lstsq(system, np.append(np.zeros(others + 1), 1.0), rcond=None)[0]
    resolvent = np.linalg.inv(-stay)
    law, vector = np.zeros(80 * workers), steady @ resolvent
    for departures in range(law.size - workers):
        law[departures : departures + workers] += vector * rate
        vector = vector @ leave @ resolvent
    return law


def by_enumeration(workers: int, rate: float, service: float, seats: int, cells: int) -> np.ndarray:
    """The whole chain of labelled jobs: states are the orders of the jobs at the server; the tagged job is number 0.

    From the steady state, the states just after the tagged job's departures; from there the departures of the
    others are counted one by one until it departs again. No arrival theorem, no formula.
    """
    jobs = range(workers)
    states = [order for n in range(workers + 1) for order in itertools.permutations(jobs, n)]
    number = {state: i for i, state in enumerate(states)}
    size = len(states)
    moves, others, own = np.zeros((size, size)), np.zeros((size, size)), np.zeros((size, size))
    for state in states:
        for job in jobs:
            if job not in state:
                moves[number[state], number[(*state, job)]] += rate
        for job in state[:seats]:
            after = tuple(other for other in state if other != job)
            (own if job == 0 else others)[number[state], number[after]] += service
    out = (moves + others + own).sum(axis=1)
    generator = moves + others + own - np.diag(out)
    system = np.vstack([generator.T, np.ones(size)])
    steady = np.linalg.lstsq(system, np.append(np.zeros(size), 1.0), rcond=None)[0]
    start = steady @ own
    vector, resolvent = start / start.sum(), np.linalg.inv(np.diag(out) - moves)
    ends, law = own.sum(axis=1), []
    for _ in range(cells):
        vector = vector @ resolvent
        law.append(float(vector @ ends))
        vector = vector @ others
    return np.array(law)


def simulated(
    rng: np.random.Generator, workers: int, work, service, seats: int, commits: int
) -> tuple[np.ndarray, float]:
    """Staleness of each commit and commits per second, with a heap of events and a deque, after a tenth of the run."""
    works, services = iter(work(rng, commits + workers).tolist()), iter(service(rng, commits + workers).tolist())
    events = [(next(works), job, False) for job in range(workers)]
    heapq.heapify(events)
    queue: deque[int] = deque()
    read, rows, free, version, first = [0] * workers, [], seats, 0, 0.0
    while version < commits:
        now, job, leaves = heapq.heappop(events)
        if leaves:
            rows.append(version - read[job])
            version += 1
            read[job] = version
            heapq.heappush(events, (now + next(works), job, False))
            if queue:
                heapq.heappush(events, (now + next(services), queue.popleft(), True))
            else:
                free += 1
            if version == commits // 10:
                first = now
        elif free:
            free -= 1
            heapq.heappush(events, (now + next(services), job, True))
        else:
            queue.append(job)
    return np.array(rows[commits // 10 :]), (commits - commits // 10) / (now - first)


def distance(law: StalenessLaw, other: np.ndarray) -> float:
    size = max(law.pmf.size, other.size)
    return 0.5 * float(np.abs(np.pad(law.pmf, (0, size - law.pmf.size)) - np.pad(other, (0, size - other.size))).sum())


# -- one seat ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [0.3, 0.7, 1.5])
@pytest.mark.parametrize("workers", [2, 4, 16])
def test_one_seat_against_dense_matrices(workers, load):
    law = server_staleness(workers=workers, work_mean=1.0, service_mean=load / workers)
    assert distance(law, by_matrices(workers, 1.0, workers / load)) < 1e-12
    assert law.mean == pytest.approx(workers - 1, rel=1e-12)


def test_a_fast_server_leaves_the_geometric_law():
    law = server_staleness(workers=8, work_mean=1.0, service_mean=1e-9)
    assert law.total_variation(StalenessLaw.geometric(workers=8)) < 1e-7


def test_a_slow_server_is_a_round_robin():
    """Everybody queues: tau = M - 1 but for the few that work meanwhile."""
    assert server_staleness(workers=8, work_mean=1.0, service_mean=1e7).pmf[7] > 1 - 1e-5


@pytest.mark.parametrize(("workers", "seats"), [(256, 1), (256, 8), (256, 128), (1000, 1)])
def test_many_workers_are_within_reach(workers, seats):
    """The mean staleness is M - 1 whatever the seats; states that are left out would show in it."""
    law = server_staleness(workers=workers, work_mean=1.0, service_mean=seats / workers, seats=seats)
    assert law.mean == pytest.approx(workers - 1, rel=1e-10)


# -- several seats ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "seats"), [(2, 1), (3, 2), (4, 1), (4, 2), (4, 3), (5, 2)])
def test_seats_against_the_enumerated_chain(workers, seats):
    law = server_staleness(workers=workers, work_mean=1.0, service_mean=0.6, seats=seats)
    expected = by_enumeration(workers, 1.0, 1 / 0.6, seats, 40)
    seen = np.pad(law.pmf, (0, 40))[:40]
    assert np.abs(seen - expected).max() < 1e-12


@pytest.mark.parametrize("workers", [3, 8])
def test_a_seat_for_everybody_makes_the_workers_independent(workers):
    law = server_staleness(workers=workers, work_mean=1.0, service_mean=0.5, seats=workers)
    apart = independent_workers([RenewalPool(workers, Exponential(mean=1.0), service=Exponential(mean=0.5))])
    assert law.total_variation(apart) < apart.error


def test_behind_one_seat_exactly_those_leave_who_came_earlier():
    station = closed_network._Station(5, 1.0, 4.0, 1)
    leaving = station.until_served()
    assert leaving[:, : leaving.shape[0]] == pytest.approx(np.eye(6), abs=1e-15)


def test_the_rule_of_one_seat_is_wrong_for_four():
    """tau = a + k has the right mean, and is .13 off at M = 8, c = 4."""
    law = server_staleness(workers=8, work_mean=1.0, service_mean=1.0, seats=4)
    joined = np.concatenate(list(closed_network._Station(7, 1.0, 1.0, 4).while_working()))
    late = np.add.outer(np.arange(joined.shape[0]), np.arange(8))
    wrong = np.bincount(late.ravel(), joined.ravel())
    assert np.arange(wrong.size) @ wrong == pytest.approx(law.mean, rel=1e-9)
    assert 0.1 < distance(law, wrong) < 0.3


@pytest.mark.parametrize(("workers", "seats"), [(8, 1), (8, 2), (8, 4)])
def test_seats_against_simulation(workers, seats):
    """150,000 commits; cells of at least 1,000 at 5.5 standard errors of independent rows, about 20 each (rows are
    weakly correlated): false alarm about 1e-5. Throughput within 1.5 %, about 5 standard errors."""
    rng = np.random.default_rng(11)
    rows, rate = simulated(
        rng,
        workers,
        lambda r, n: r.exponential(1.0, n),
        lambda r, n: r.exponential(0.25 * seats, n),
        seats,
        150_000,
    )
    law = server_staleness(workers=workers, work_mean=1.0, service_mean=0.25 * seats, seats=seats)
    expected = rows.size * law.pmf
    counts = np.bincount(rows, minlength=law.pmf.size)[: law.pmf.size]
    large = expected > 1000
    assert np.all(np.abs(counts - expected)[large] < 5.5 * np.sqrt(expected * (1 - law.pmf))[large])
    exact = product_form_throughput(workers=[workers], think=[1.0], service=0.25 * seats, seats=seats)[0]
    assert rate == pytest.approx(exact, rel=0.015)


def test_too_many_states_are_refused():
    with pytest.raises(NoExactLaw, match="too many states"):
        server_staleness(workers=5000, work_mean=1.0, service_mean=0.001, seats=3)


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"seats": 0}, {"work_mean": 0.0}, {"service_mean": -1.0}])
def test_senseless_numbers_are_errors(wrong):
    with pytest.raises(ValueError, match="must be"):
        server_staleness(**{"workers": 2, "work_mean": 1.0, "service_mean": 1.0, "seats": 1, **wrong})


# -- throughput -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [0.3, 0.7, 1.5])
@pytest.mark.parametrize("workers", [1, 4, 16, 64])
def test_product_form_equals_mean_value_analysis(workers, load):
    service = load / workers
    one = product_form_throughput(workers=[workers], think=[1.0], service=service)[0]
    assert one == pytest.approx(mean_value_analysis(workers=workers, think=1.0, service=service), rel=1e-12)


def test_pools_against_mean_value_analysis_of_two_classes():
    """Reiser and Lavenberg's recursion over all populations, written out."""
    sizes, think, service = (6, 4), (0.25, 0.9), 0.05
    length = {(0, 0): 0.0}
    rates = {}
    for a in range(sizes[0] + 1):
        for b in range(sizes[1] + 1):
            if (a, b) == (0, 0):
                continue
            x = []
            for pool, n in enumerate((a, b)):
                fewer = (a - (pool == 0), b - (pool == 1))
                x.append(n / (think[pool] + service * (1 + length[fewer])) if n else 0.0)
            length[a, b] = sum(
                x[pool] * service * (1 + length[(a - (pool == 0), b - (pool == 1))]) for pool in range(2) if x[pool]
            )
            rates[a, b] = x
    exact = product_form_throughput(workers=sizes, think=think, service=service)
    assert exact == pytest.approx(rates[sizes], rel=1e-12)


@pytest.mark.parametrize("seats", [1, 2, 5])
def test_seats_against_birth_and_death(seats):
    steady = at_server(others=12, work_mean=1.0, service_mean=0.3, seats=seats)
    rate = float(np.minimum(np.arange(13), seats) @ steady) / 0.3
    exact = product_form_throughput(workers=[12], think=[1.0], service=0.3, seats=seats)[0]
    assert exact == pytest.approx(rate, rel=1e-12)
    flow = (12 - np.arange(12)) * 1.0 * steady[:-1] - np.minimum(np.arange(1, 13), seats) / 0.3 * steady[1:]
    assert np.abs(flow).max() < 1e-14


def test_the_think_law_does_not_matter():
    """Gamma work of cv 0.3 has the throughput of exponential work: 1.5 % is about 5 standard errors."""
    work = Gamma(mean=1.0, cv=0.3)
    _, rate = simulated(np.random.default_rng(2), 8, work.sample, lambda r, n: r.exponential(0.15, n), 1, 100_000)
    assert rate == pytest.approx(mean_value_analysis(workers=8, think=1.0, service=0.15), rel=0.015)


# -- updates of k gradients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "k"), [(8, 1), (8, 3), (8, 8), (4, 10), (64, 10)])
def test_k_batch_async_of_exponential_work(workers, k):
    """docs/theory/closed_network.md, equation (C.7), written out, against the general route by the asynchronous law."""
    law = batched(StalenessLaw.geometric(workers=workers), k)
    u, j = 1 - 1 / workers, np.arange(1, law.pmf.size)
    rest = u ** ((j - 1) * k + 1) * (1 - u**k) ** 2 / (k * (1 - u))
    expected = np.append(1 - u * (1 - u**k) / (k * (1 - u)), rest)
    assert np.abs(law.pmf - expected).max() < 1e-13
    assert law.mean == pytest.approx((workers - 1) / k, rel=1e-10)


@pytest.mark.parametrize("k", [2, 5])
def test_k_batch_async_of_any_work(k):
    """Gamma work of cv 0.3, 8 workers: the pushes of a simulation, every k-th of which is an update. About 10^6 rows,
    cells of at least 1,000 at 5.5 standard errors: false alarm below 1e-5."""
    work = Gamma(mean=1.0, cv=0.3)
    law = batched(independent_workers([RenewalPool(8, work)]), k)
    rng = np.random.default_rng(4)
    ends = np.cumsum(work.sample(rng, 8 * 125_000).reshape(8, -1), axis=1)
    push = np.empty(ends.size, dtype=np.int64)
    push[np.argsort(ends, axis=None)] = np.arange(ends.size)
    push = push.reshape(ends.shape)
    version = push[:, 1:] // k - (push[:, :-1] + 1) // k  # before its update, minus at the read after the last push
    rows = version[:, 100:-100].ravel()
    counts, expected = np.bincount(rows, minlength=law.pmf.size)[: law.pmf.size], rows.size * law.pmf
    large = expected > 1000
    assert np.all(np.abs(counts - expected)[large] < 5.5 * np.sqrt(expected * (1 - law.pmf))[large])
    assert math.isclose(law.mean, 7 / k, rel_tol=1e-9)


def test_the_simulation_of_this_file_knows_independent_workers():
    """With a seat for everybody and no service to speak of it agrees with merged sums of times (two samples)."""
    rng = np.random.default_rng(9)
    rows, _ = simulated(rng, 4, lambda r, n: r.exponential(1.0, n), lambda r, n: np.full(n, 1e-12), 4, 60_000)
    others = staleness(rng, [lambda r, n: r.exponential(1.0, n)] * 4, [1.0] * 4, 15_000)
    shares = [np.bincount(x, minlength=60)[:12] / x.size for x in (rows, others)]
    errors = np.sqrt(sum(s * (1 - s) / n for s, n in zip(shares, (rows.size, others.size), strict=True)))
    assert np.all(np.abs(shares[0] - shares[1]) < 5.5 * errors)
