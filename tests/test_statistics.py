"""Accumulated sums against plain numpy on all rows at once; intervals and verdicts against known laws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from cases import scenario
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncq.engines import Chunk
from asyncq.network import Network
from asyncq.protocols import CANCELLED, COMMITTED, DOWNWEIGHTED, DROPPED
from asyncq.statistics.accumulate import BATCHES, STRIDES, Accumulator
from asyncq.statistics.goodness import fit_geometric
from asyncq.statistics.intervals import ratio_of_batches

NETWORK = Network.of(scenario(workers=4, server={"service_time": 1.0}))


def rows(staleness, rng, kinds=None) -> Chunk:
    n = len(staleness)
    version = np.arange(n)
    return Chunk(
        time=np.cumsum(rng.random(n)),
        worker=rng.integers(4, size=n),
        staleness=staleness,
        read=version - staleness,
        kind=np.zeros(n, dtype=np.int64) if kinds is None else kinds,
        visits=np.arange(1, n + 1),
        waited=np.cumsum(rng.random(n)),
        busy=np.cumsum(rng.random(n)),
    )


def folded(chunk: Chunk, cuts, warmup: int) -> Accumulator:
    accumulator = Accumulator(NETWORK, warmup=warmup)
    edges = [0, *sorted(cuts), chunk.time.size]
    for low, high in itertools.pairwise(edges):
        if high > low:
            accumulator.fold(Chunk(*(column[low:high] for column in chunk)))
    return accumulator


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 9000),
    cuts=st.lists(st.integers(0, 9000), max_size=4),
    warmup=st.integers(0, 200),
    mixed=st.booleans(),
)
def test_sums_do_not_depend_on_where_chunks_are_cut(seed, n, cuts, warmup, mixed):
    rng = np.random.default_rng(seed)
    kinds = rng.choice([COMMITTED, DOWNWEIGHTED, DROPPED, CANCELLED], size=n) if mixed else None
    chunk = rows(rng.geometric(0.2, size=n) - 1, rng, kinds)
    accumulator = folded(chunk, [cut for cut in cuts if cut < n], warmup)
    after = np.arange(n) >= warmup
    keep = np.flatnonzero(after & (chunk.kind <= DOWNWEIGHTED))
    tau = chunk.staleness[keep]
    assert accumulator.rows == tau.size
    assert accumulator.kinds.tolist() == np.bincount(chunk.kind[after], minlength=4).tolist()
    if tau.size == 0:
        return
    for j in range(STRIDES):
        seen = np.bincount(tau[:: 1 << j])
        assert np.array_equal(np.trim_zeros(seen, "b"), np.trim_zeros(accumulator.thinned(j), "b"))
    assert np.array_equal(accumulator.per_worker[1], np.bincount(chunk.worker[keep], weights=tau, minlength=4))
    size = accumulator.batch_rows
    whole = tau.size // size
    assert BATCHES / 2 <= whole <= BATCHES or size == 1
    batches = accumulator.batches(10**9)[:whole]
    assert np.array_equal(batches[:, 1], tau[: whole * size].reshape(whole, size).sum(axis=1))
    assert np.array_equal(batches[:, 2], (tau[: whole * size] ** 2).reshape(whole, size).sum(axis=1))
    ends = chunk.time[keep][size - 1 :: size][:whole]
    assert batches[1:, 3] == pytest.approx(np.diff(ends))
    assert batches[1:, 6] == pytest.approx(np.diff(chunk.waited[keep][size - 1 :: size][:whole]))


def test_coarser_batches_hold_the_same_sums():
    rng = np.random.default_rng(1)
    accumulator = folded(rows(rng.integers(9, size=6144), rng), [1000], warmup=0)
    fine, coarse = accumulator.batches(10**9), accumulator.batches(32)
    assert coarse.shape[0] == 32
    assert coarse.sum(axis=0) == pytest.approx(fine[: 32 * (fine.shape[0] // 32)].sum(axis=0))


def test_intervals_of_a_ratio_cover():
    """95 % intervals of a ratio of means; 2,000 trials, 4 standard errors: false alarm 6e-5."""
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(2000):
        below = rng.gamma(400, 1 / 400, size=32)
        above = 3 * below + rng.normal(0, 0.1, size=32)
        low, high = ratio_of_batches(above, below, unit="").ci95
        covered += low < 3 < high
    assert abs(covered / 2000 - 0.95) < 4 * (0.95 * 0.05 / 2000) ** 0.5


def accumulated(staleness) -> Accumulator:
    return folded(rows(staleness, np.random.default_rng(0)), [], warmup=0)


def test_the_verdict_on_independent_geometric_rows_has_its_level():
    """5 % of true geometric laws rejected; 1,000 trials, 4 standard errors: false alarm 6e-5."""
    rng = np.random.default_rng(3)
    verdicts = [fit_geometric(accumulated(rng.geometric(0.125, size=3000) - 1), 1).verdict for _ in range(1000)]
    assert set(verdicts) == {"accepted", "rejected"}
    assert abs(verdicts.count("rejected") / 1000 - 0.05) < 4 * (0.05 * 0.95 / 1000) ** 0.5


@pytest.mark.parametrize("draw", ["poisson", "uniform", "constant"])
def test_other_laws_are_rejected(draw):
    rng = np.random.default_rng(3)
    sample = {"poisson": rng.poisson(7, 3000), "uniform": rng.integers(15, size=3000), "constant": np.full(3000, 7)}
    fit = fit_geometric(accumulated(sample[draw].astype(np.int64)), 8)
    assert fit.verdict == "rejected"
    assert fit.gof.p_value < 1e-6
    assert fit.p == pytest.approx(1 / (1 + sample[draw].mean()))


def test_too_few_rows_are_untested():
    assert fit_geometric(accumulated(np.array([0, 3, 1])), 4).verdict == "untested"
