"""The server against another simulator: Ciw (Palmer et al. 2019), a closed network of a delay station and a queue.

M customers compute (a station with a server for everybody), queue first come, first served for c seats, and start anew.
Chance: every figure is a Student t over 32 batches a side, passed by a right program with probability 1e-6; there are
about 130 of them: false alarm of the file 1.3e-4.
"""

from __future__ import annotations

import math

import ciw
import numpy as np
import pytest
from cases import scenario
from textbook import from_interval, ratio

from asyncq import simulate
from asyncq.theory import throughput

CHANCE = 1e-6
WORKERS, COMMITS, SEED = 6, 10_000, 5
EXPONENTIAL = {"law": "exponential"}
SMOOTH = {"law": "gamma", "cv": 0.5}
BURSTY = {"law": "gamma", "cv": 1.5}


def ciw_law(law, mean):
    if law["law"] == "exponential":
        return ciw.dists.Exponential(1 / mean)
    return ciw.dists.Gamma(law["cv"] ** -2, mean * law["cv"] ** 2)


def ciw_commits(work, service, mean, seats, *, commits, seed, wires=()):
    """Service records in order of leaving the queue: customer, waiting, service, time of leaving. ``wires`` are the
    means of exponential delays, stations in tandem between the work and the queue."""
    stations = len(wires) + 2
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Sequential([0.0] * WORKERS + [math.inf]), *[None] * (stations - 1)],
        service_distributions=[ciw_law(work, 1.0), *(ciw.dists.Exponential(1 / wire) for wire in wires),
                               ciw_law(service, mean)],
        number_of_servers=[math.inf] * (stations - 1) + [seats],
        routing=[[float(to == (station + 1) % stations) for to in range(stations)] for station in range(stations)],
    )  # fmt: skip
    ciw.seed(seed)
    simulation = ciw.Simulation(network)
    longest = max((1 + sum(wires) + mean) / WORKERS, mean / seats)  # throughput is below the inverse of this
    simulation.simulate_until_max_time(1.5 * commits * longest)
    records = [record for record in simulation.get_all_records() if record.node == stations]
    records.sort(key=lambda record: record.exit_date)
    columns = [(r.id_number, r.waiting_time, r.service_time, r.exit_date) for r in records[:commits]]
    assert len(columns) == commits
    return (np.array(column) for column in zip(*columns, strict=True))


def staleness_of(customer):
    """Commits of others since a customer's last: he reads as he leaves."""
    last, found = dict.fromkeys(customer.tolist(), -1), []
    for index, one in enumerate(customer.tolist()):
        found.append(index - last[one] - 1)
        last[one] = index
    return np.array(found)


def pairs_of(work, service, mean, seats, *, commits=COMMITS, seed=None, wires=()):
    """Figures of asyncq and of Ciw, by name. Wires are a pull and a push."""
    server = {"service_time": {**service, "mean": mean}, "seats": seats}
    seed = SEED if seed is None else seed
    network = {leg: {**EXPONENTIAL, "mean": wire} for leg, wire in zip(("pull", "push"), wires, strict=False)}
    case = scenario({**work, "mean": 1.0}, workers=WORKERS, server=server, network=network)
    run = simulate(case, updates=commits, seed=seed, trace=True)
    customer, waited, served, left = ciw_commits(
        work, service, mean, seats, commits=commits, seed=seed, wires=wires
    )
    cold = commits // 20
    elapsed = np.diff(left)[cold:]
    ours, theirs = run.trace.staleness[cold:], staleness_of(customer)[cold:]
    pairs = {
        "waiting": (from_interval(run.server.waiting), ratio(waited[cold:])),
        "utilisation": (from_interval(run.server.utilisation), ratio(served[cold + 1 :], seats * elapsed)),
        "throughput": (from_interval(run.throughput), ratio(np.ones(elapsed.size), elapsed)),
        "seconds per update": (ratio(np.diff(run.trace.time)[cold:]), ratio(elapsed)),
        "staleness squared": (ratio(ours**2), ratio(theirs**2)),
    }
    cells = int(np.argmin(np.minimum(np.bincount(ours, minlength=99), np.bincount(theirs, minlength=99)) >= 80))
    for cell in range(cells):
        pairs[f"share of staleness {cell}"] = (ratio(ours == cell), ratio(theirs == cell))
    return pairs


def differing(pairs):
    return {name: pair for name, pair in pairs.items() if pair[0].excess(pair[1], CHANCE) > 1}


@pytest.mark.parametrize(
    ("work", "service", "mean", "seats"),
    [
        (EXPONENTIAL, EXPONENTIAL, 0.1, 1),
        (EXPONENTIAL, SMOOTH, 0.25, 1),  # no product form: no formula
        (SMOOTH, BURSTY, 0.15, 1),
        (EXPONENTIAL, EXPONENTIAL, 0.5, 2),
        (SMOOTH, SMOOTH, 0.4, 2),
        (BURSTY, BURSTY, 0.6, 3),
    ],
)
def test_a_server_is_a_closed_network_of_ciw(work, service, mean, seats):
    assert differing(pairs_of(work, service, mean, seats)) == {}


@pytest.mark.parametrize("seats", [1, 2])
def test_a_pull_and_a_push_are_stations_in_tandem(seats):
    """Only sums of delays count, so that the pull may stand behind the work."""
    assert differing(pairs_of(SMOOTH, SMOOTH, 0.3, seats, wires=(0.4, 0.2))) == {}


@pytest.mark.parametrize(("mean", "seats"), [(0.1, 1), (0.25, 1), (0.5, 2)])
def test_the_exact_throughput_is_that_of_ciw(mean, seats):
    """Mean value analysis against the other simulator, within the same interval of 32 batches."""
    server = {"service_time": {**EXPONENTIAL, "mean": mean}, "seats": seats}
    exact = throughput(scenario({**EXPONENTIAL, "mean": 1.0}, workers=WORKERS, server=server))
    assert exact.exact
    *_, left = ciw_commits(EXPONENTIAL, EXPONENTIAL, mean, seats, commits=COMMITS, seed=SEED + 1)
    elapsed = np.diff(left)[COMMITS // 20 :]
    seen = ratio(np.ones(elapsed.size), elapsed)
    assert seen.excess(exact.mean, CHANCE) <= 1
    assert seen.excess(1.15 * exact.mean, CHANCE) > 1  # and it would see a sixth more


def test_the_comparison_sees_a_slower_server():
    pairs = pairs_of(EXPONENTIAL, EXPONENTIAL, 0.25, 1, commits=5_000)
    slower = pairs_of(EXPONENTIAL, EXPONENTIAL, 0.3, 1, commits=5_000)
    names = {"waiting", "utilisation", "throughput"}
    assert names == differing({name: (pairs[name][0], slower[name][1]) for name in names}).keys()
