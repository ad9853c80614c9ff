"""Gossip: its graphs, its choices, conservation in integers, exact laws, and a textbook program."""

from __future__ import annotations

import json

import numpy as np
import pytest
import textbook
from cases import LAWS, scenario
from scipy import stats
from test_textbook import differing, figures
from textbook import from_interval, ratio

from asyncq import Scenario, simulate
from asyncq.protocols.graphs import neighbours
from asyncq.sgd.schedule import schedule_of
from asyncq.text.run import render
from asyncq.theory.queueing.staleness_laws import mean_staleness, staleness_law

STAR = tuple((0, other) for other in range(1, 8))


def gossip(graph, *, law: str = "exponential", workers: int = 8, **tables) -> Scenario:
    edges = graph if isinstance(graph, str) else [list(edge) for edge in graph]
    return scenario(LAWS[law], workers=workers, protocol={"kind": "gossip", "graph": edges}, **tables)


# -- graphs -----------------------------------------------------------------------------------------------------------


def on_a_grid(rows: int, columns: int) -> list[list[int]]:
    """Neighbours on a torus, cell by cell."""
    return [
        sorted(
            {(r + down) % rows * columns + (c + right) % columns for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0))}
            - {r * columns + c}
        )
        for r in range(rows)
        for c in range(columns)
    ]


@pytest.mark.parametrize(
    ("graph", "workers", "expected"),
    [
        ("ring", 2, [[1], [0]]),
        ("ring", 3, [[1, 2], [0, 2], [0, 1]]),
        ("ring", 5, [[1, 4], [0, 2], [1, 3], [2, 4], [0, 3]]),
        ("complete", 2, [[1], [0]]),
        ("complete", 4, [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]),
        ("torus", 4, on_a_grid(2, 2)),
        ("torus", 6, on_a_grid(2, 3)),
        ("torus", 8, on_a_grid(2, 4)),
        ("torus", 12, on_a_grid(3, 4)),
        ("torus", 25, on_a_grid(5, 5)),
        (STAR, 8, [[1, 2, 3, 4, 5, 6, 7], *[[0]] * 7]),
        (((2, 0), (1, 2)), 3, [[2], [2], [0, 1]]),
    ],
)
def test_everybody_has_the_neighbours_of_the_graph(graph, workers, expected):
    found = neighbours(graph, workers)
    assert [found.of(worker) for worker in range(workers)] == expected
    for worker in range(workers):
        degree = len(expected[worker])
        picked = [found.pick(worker, (place + 0.5) / degree) for place in range(degree)]
        assert sorted(picked) == expected[worker]
        assert {found.pick(worker, edge) for edge in (0.0, 1 - 2**-53)} == {picked[0], picked[-1]}


def test_the_largest_graphs_share_what_is_alike():
    assert neighbours("complete", 1_000_000).offsets.size == 999_999
    assert neighbours("ring", 1_000_000).offsets.size == 2


@pytest.mark.parametrize("graph", ["ring", "complete", "torus", STAR])
def test_every_neighbour_is_as_likely_as_the_others(graph):
    """Choices are independent of each other and of the times: chi-square over all (worker, neighbour), given how often
    each worker chose. False alarm 1e-5 a graph."""
    trace = simulate(gossip(graph), updates=40_000, seed=3, trace=True).trace
    statistic = freedom = 0.0
    found = neighbours(graph, 8)
    for worker in range(8):
        chosen = trace.neighbour[trace.worker == worker]
        counts = np.array([np.count_nonzero(chosen == other) for other in found.of(worker)])
        assert counts.sum() == chosen.size
        expected = chosen.size / counts.size
        statistic += float(((counts - expected) ** 2).sum()) / expected
        freedom += counts.size - 1
    assert stats.chi2.sf(statistic, freedom) > 1e-5
    assert stats.chi2.cdf(statistic, freedom) > 1e-5


# -- conservation and exact laws --------------------------------------------------------------------------------------


@pytest.mark.parametrize("push", [None, 0.1])
@pytest.mark.parametrize("law", ["exponential", "gamma", "empirical", "deterministic"])
def test_times_and_staleness_are_those_of_the_asynchronous_protocol(law, push):
    """The choices have a stream of their own: the same seed gives the same rows, ties too."""
    wire = {} if push is None else {"network": {"push": push}}
    one = simulate(gossip("torus", law=law, **wire), updates=2000, seed=5, trace=True).trace
    other = simulate(scenario(LAWS[law], **wire), updates=2000, seed=5, trace=True).trace
    for name in ("time", "worker", "read", "staleness", "fate"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("graph", ["ring", "complete", STAR])
@pytest.mark.parametrize("law", ["exponential", "pareto", "empirical"])
def test_averagings_are_conserved(law, graph):
    """Each row averages with one neighbour's copy, and is counted at that neighbour's next row or is still open."""
    trace = simulate(gossip(graph, law=law), updates=3000, seed=7, trace=True).trace
    since = np.zeros(8, dtype=np.int64)
    for worker, neighbour, averagings in zip(trace.worker, trace.neighbour, trace.averagings, strict=True):
        assert since[worker] == averagings
        since[worker] = 0
        since[neighbour] += 1
    assert int(trace.averagings.sum()) + int(since.sum()) == trace.worker.size


def test_a_slow_workers_copy_is_averaged_more_often():
    """Two of rate 4 and two of rate 1 on a ring of fast, fast, slow, slow: a copy's averagings by others for each
    of its own are (half of its neighbours' rates) over its rate: (4 + 1)/2/4 and (4 + 1)/2/1. Within 5 %."""
    pools = [
        {"name": name, "workers": 2, "work_time": {"law": "exponential", "mean": mean}}
        for name, mean in (("fast", 0.25), ("slow", 1.0))
    ]
    case = scenario(pools=pools, protocol={"kind": "gossip"})
    trace = simulate(case, updates=40_000, seed=2, trace=True).trace
    means = [trace.averagings[trace.worker == worker].mean() for worker in range(4)]
    assert means == pytest.approx([2.5 / 4, 2.5 / 4, 2.5, 2.5], rel=0.05)
    assert trace.averagings.mean() == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize("graph", ["ring", "torus", "complete"])
def test_averagings_of_exponential_workers_are_geometric(graph):
    """On a regular graph with equal rates somebody's averaging and the copy's own next gradient are equally likely to
    come first: k averagings have probability 2^-(k+1). Each cell within 5 standard errors of 32 batches (Student, 31
    degrees of freedom: 2e-5 a cell, 6 cells)."""
    trace = simulate(gossip(graph), updates=40_000, seed=11, trace=True).trace
    for cell in range(6):
        seen = ratio(trace.averagings[800:] == cell)
        assert abs(seen.mean - 0.5 ** (cell + 1)) < 5 * seen.error


def test_on_the_complete_graph_disagreement_shrinks_by_one_over_n_minus_one():
    """Over all pairs, in exact fractions: the mean over a uniform worker and a uniform neighbour."""
    from fractions import Fraction

    workers = 7
    found = neighbours("complete", workers)
    copies = [Fraction(value) for value in (3, -1, 4, 1, -5, 9, 2)]

    def disagreement(values):
        mean = sum(values) / len(values)
        return sum((value - mean) ** 2 for value in values)

    after = []
    for worker in range(workers):
        for other in found.of(worker):
            averaged = list(copies)
            averaged[worker] = averaged[other] = (copies[worker] + copies[other]) / 2
            after.append(disagreement(averaged))
    assert len(after) == workers * (workers - 1)
    assert sum(after) / len(after) == (1 - Fraction(1, workers - 1)) * disagreement(copies)


def test_the_pairs_that_the_engine_draws_shrink_it_so():
    """Along a run: whatever the copies are, the next pair of equal exponential workers is uniform, so shrinkage less
    its mean is a martingale. Within 4.5 standard errors: false alarm 7e-6."""
    workers = 6
    trace = simulate(gossip("complete", workers=workers), updates=20_000, seed=13, trace=True).trace
    copies = np.random.default_rng(0).normal(size=workers)
    shrunk = []
    for worker, other in zip(trace.worker.tolist(), trace.neighbour.tolist(), strict=True):
        copies -= copies.mean()
        copies /= np.sqrt((copies**2).sum())
        copies[[worker, other]] = copies[[worker, other]].mean()
        shrunk.append(float((copies**2).sum()))
    deviations = np.array(shrunk) - (1 - 1 / (workers - 1))
    assert abs(deviations.sum()) < 4.5 * np.sqrt((deviations**2).sum())


def test_the_exact_law_is_that_of_independent_workers():
    case, other = gossip("ring", law="gamma"), scenario(LAWS["gamma"])
    assert mean_staleness(case) == 7
    assert np.array_equal(staleness_law(case).pmf, staleness_law(other).pmf)
    run = simulate(case, updates=20_000, seed=3)
    # half-widths are 2.04 standard errors, conservative for means that are conserved
    assert abs(run.averagings.mean - 1) < 5 / 2.04 * run.averagings.half_width
    assert abs(run.staleness.mean - 7) < 0.02


# -- the textbook program ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", ["torus", STAR[:5]])
def test_gossip_is_its_textbook_program(graph):
    """Chance: 1e-6 for each of some 20 figures (Student, 31 batches a side)."""
    means, updates = (0.4, 0.4, 1.0, 1.0, 2.5, 2.5), 8_000
    pools = [
        {"name": f"w{i}", "workers": 1, "work_time": {"law": "gamma", "mean": mean, "cv": 0.5}}
        for i, mean in enumerate(means)
    ]
    edges = graph if isinstance(graph, str) else [list(edge) for edge in graph]
    run = simulate(
        scenario(pools=pools, protocol={"kind": "gossip", "graph": edges}), updates=updates, seed=11, trace=True
    )
    knows = dict(enumerate(on_a_grid(2, 3) if graph == "torus" else [[1, 2, 3, 4, 5], *[[0]] * 5]))
    work = [textbook.gamma(mean, 0.5) for mean in means]
    program = textbook.Gossip(work, knows=knows, updates=updates, seed=11)
    log, trace, cold = program.log(), run.trace, updates // 20
    kept = np.ones(updates, dtype=bool)
    ours = figures(*(c[cold:] for c in (trace.time, trace.worker, trace.staleness, kept)), 9, 1)
    theirs = figures(*(c[cold:] for c in (log.time, log.worker, log.staleness, log.kept)), 9, 1)
    pairs = {name: (ours[name], theirs[name]) for name in ours}
    counts = trace.averagings[cold:], np.array(program.averagings)[cold:]
    pairs["averagings squared"] = tuple(ratio(values**2) for values in counts)
    pairs["averagings and staleness"] = tuple(
        ratio(values * stale[cold:]) for values, stale in zip(counts, (trace.staleness, log.staleness), strict=True)
    )
    for cell in range(3):
        pairs[f"share of {cell} averagings"] = tuple(ratio(values == cell) for values in counts)
    pairs["averagings"] = from_interval(run.averagings), ratio(counts[1])
    assert differing(pairs) == {}


# -- the report -------------------------------------------------------------------------------------------------------


def test_the_report_has_the_averagings():
    run = simulate(gossip("ring"), updates=3000, seed=1)
    assert "times by others between a gradient's read and its application" in render(run)
    report = json.loads(json.dumps(run.to_dict(), allow_nan=False))
    assert report["averagings"]["mean"] == run.averagings.mean == pytest.approx(1, abs=0.01)
    assert simulate(scenario(), updates=300, seed=1).averagings is None
    assert "gossip graph=7 edges" in render(simulate(gossip(STAR), updates=300, seed=1))


def test_a_list_of_edges_survives_its_json():
    case = gossip(STAR)
    assert Scenario.from_dict(json.loads(json.dumps(case.to_dict()))) == case
    assert hash(case) == hash(gossip(STAR))
    assert gossip([*STAR[1:], STAR[0]]) != gossip("ring")


def test_gossip_is_not_replayed_as_one_model():
    with pytest.raises(ValueError, match="copy of its own"):
        schedule_of(simulate(gossip("ring"), updates=300, seed=1, trace=True))


def test_groups_gossip_with_groups():
    run = simulate(gossip("ring", workers=16, groups={"count": 4}), updates=2000, seed=1, trace=True)
    assert set(run.trace.neighbour) == {0, 1, 2, 3}
    assert run.staleness.mean == pytest.approx(3, abs=0.05)
