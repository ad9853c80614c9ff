"""Exact laws of independent workers against closed forms, incomplete gamma functions, and plain simulation."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy import special
from workers_apart import by_ranks, staleness

from asyncq import Scenario, staleness_law
from asyncq.distributions import (
    Deterministic,
    Empirical,
    Exponential,
    Gamma,
    Hyperexponential,
    Lognormal,
    Maximum,
    Mixture,
    Pareto,
    TruncatedNormal,
    Uniform,
    Weibull,
)
from asyncq.errors import NoExactLaw
from asyncq.staleness import StalenessLaw
from asyncq.theory.queueing import renewal
from asyncq.theory.queueing.lattice import are_related, common_span, span_of
from asyncq.theory.queueing.powers import mixed_powers
from asyncq.theory.queueing.renewal import RenewalPool, geometric_mixture, independent_workers, large_pool_limit
from asyncq.theory.queueing.renewal_counts import Duration, count_pmf

WORK = {
    "gamma .2": Gamma(mean=1.0, cv=0.2),
    "gamma 2": Gamma(mean=1.0, cv=2.0),
    "lognormal": Lognormal(mean=1.0, cv=0.8),
    "weibull": Weibull(mean=1.0, cv=0.7),
    "uniform": Uniform(low=0.5, high=1.5),
    "hyperexponential": Hyperexponential(mean=1.0, cv=2.0),
    "pareto": Pareto(mean=1.0, shape=2.5),
    "truncated-normal": TruncatedNormal(mean=1.0, cv=0.4),
    "mixture with an atom": Mixture(weights=(0.9, 0.1), laws=(Deterministic(value=0.5), Exponential(mean=5.5))),
    "maximum": Maximum(of=Exponential(mean=0.48), count=4),
}


def padded(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = max(a.size, b.size)
    return np.pad(a, (0, size - a.size)), np.pad(b, (0, size - b.size))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    one, other = padded(a, b)
    return 0.5 * float(np.abs(one - other).sum())


def gamma_oracle(cv: float, workers: int, cells: int) -> np.ndarray:
    """The law of gamma workers from I_a(w) = integral of the gamma cdf, with no grid in time: over u = F(w) by
    Gauss-Legendre panels that shrink towards 0 and 1, and powers by repeated convolution."""
    shape, scale = cv**-2, cv**2
    middle = np.linspace(0.25, 0.75, 9)[1:-1]
    edges = np.concatenate([2.0 ** -np.arange(60, 1, -1), middle, 1 - 2.0 ** -np.arange(2, 46)])
    nodes, weights = np.polynomial.legendre.leggauss(10)
    half = 0.5 * np.diff(edges)[:, None]
    u, weight = (edges[:-1, None] + half * (1 + nodes)).ravel(), (half * weights).ravel()
    w = special.gammaincinv(shape, u) * scale

    def integral(k: int) -> np.ndarray:
        if k == 0:
            return w
        a = k * shape
        return w * special.gammainc(a, w / scale) - a * scale * special.gammainc(a + 1, w / scale)

    integrals = np.array([integral(k) for k in range(cells + 2)])
    at_least = np.vstack([np.ones_like(w), integrals[:-1] - integrals[1:]])
    single = np.maximum(at_least[:-1] - at_least[1:], 0.0)[:cells]
    total = np.zeros(cells)
    for column in range(w.size):
        law = np.ones(1)
        for _ in range(workers - 1):
            law = np.convolve(law, single[:, column])[:cells]
        total[: law.size] += weight[column] * law
    total[0] += edges[0]
    return total


# -- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [2, 8, 64])
def test_exponential_work_by_the_general_route_is_geometric_within_1e_6(workers):
    law = independent_workers([RenewalPool(workers, Exponential(mean=0.1))], closed_form=False)
    expected = (1 / workers) * (1 - 1 / workers) ** np.arange(law.pmf.size)
    assert distance(law.pmf, expected) <= law.error <= 1e-6


@pytest.mark.parametrize("workers", [2, 8, 64, 1000])
def test_exponential_work_in_closed_form_is_geometric_within_1e_12(workers):
    law = independent_workers([RenewalPool(workers, Exponential(mean=0.1))])
    expected = np.exp(np.arange(law.pmf.size) * math.log1p(-1 / workers)) / workers
    assert np.abs(law.pmf - expected).sum() < 1e-12
    assert law.mean == pytest.approx(workers - 1, rel=1e-12)


@pytest.mark.parametrize("closed_form", [True, False])
def test_heterogeneous_exponential_work(closed_form):
    """Rates 3, 1, 1, 0.2: q_l = sum p_i^2 (1 - p_i)^l, written out term by term."""
    pools = [RenewalPool(n, Exponential(mean=1 / r)) for n, r in ((1, 3.0), (2, 1.0), (1, 0.2))]
    law = independent_workers(pools, closed_form=closed_form)
    shares = [rate / 5.2 for rate in (3.0, 1.0, 1.0, 0.2)]
    expected = np.array([math.fsum(p * p * (1 - p) ** lag for p in shares) for lag in range(law.pmf.size)])
    assert distance(law.pmf, expected) < (1e-12 if closed_form else 1e-6)
    assert law.mean == pytest.approx(3, abs=1e-9)


@pytest.mark.parametrize(("cv", "workers"), [(0.2, 2), (0.5, 2), (2.0, 2), (0.5, 8), (0.2, 8), (2.0, 4)])
def test_gamma_work_against_incomplete_gamma_functions(cv, workers):
    law = independent_workers([RenewalPool(workers, Gamma(mean=1.0, cv=cv))])
    exact = gamma_oracle(cv, workers, min(law.pmf.size, 300))
    assert distance(law.pmf[: exact.size], exact) < max(law.error, 2e-9)
    assert law.error < 1e-6


def test_counts_of_gamma_work_on_the_grid():
    """Erlang stages: N counts the events of a Poisson process divided by 2, from a random stage."""
    cycle = Duration([Gamma(mean=1.0, cv=0.5**0.5)])
    width, index = 1 / 2048, np.array([512, 2048, 6000])
    pmf = count_pmf(cycle, cycle.cells(width, 8192), width, index, closed_form=True)
    k = np.arange(pmf.shape[1])[None, :]
    mean = 2 * index[:, None] * width

    def poisson(n):
        return np.where(n >= 0, np.exp(special.xlogy(n, mean) - mean - special.gammaln(np.maximum(n, 0) + 1.0)), 0.0)

    expected = 0.5 * poisson(2 * k - 1) + poisson(2 * k) + 0.5 * poisson(2 * k + 1)
    assert np.abs(pmf - expected).max() < 2e-7


def test_the_mean_is_no_check_of_the_grid():
    """On 16 points the mean number of commits is right to rounding while the law is 1 % off."""
    cycle = Duration([Gamma(mean=1.0, cv=0.05)])
    coarse, fine = (
        count_pmf(cycle, cycle.cells(2.0 / n, n), 2.0 / n, np.array([n]), closed_form=True)[0] for n in (16, 4096)
    )
    assert np.arange(coarse.size) @ coarse == pytest.approx(2.0, abs=1e-12)
    assert distance(coarse, fine) > 0.01


# -- other numerics ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORK)
def test_the_claimed_error_holds_on_a_grid_eight_times_finer(name):
    for workers in (2, 5):
        law = independent_workers([RenewalPool(workers, WORK[name])], tolerance=1e-5)
        finer = independent_workers([RenewalPool(workers, WORK[name])], tolerance=1e-5, refine=3)
        assert law.total_variation(finer) <= law.error <= 1e-5
        assert law.mean == pytest.approx(workers - 1, rel=1e-5)


@pytest.mark.parametrize("name", WORK)
def test_any_work_against_simulation(name):
    """About 10^6 gradients of each law; cells of at least 2,000 at 5.5 standard errors of independent rows. Rows are
    weakly correlated; 10 laws of up to 100 cells: false alarm below 1e-2 even if the error is 20 % larger."""
    workers = 8
    law = independent_workers([RenewalPool(workers, WORK[name])])
    rows = np.concatenate(list(by_ranks(np.random.default_rng(7), WORK[name].sample, workers, 1_000_000)))
    counts = np.bincount(rows, minlength=law.pmf.size).astype(float)
    expected = np.zeros(counts.size)
    expected[: law.pmf.size] = rows.size * law.pmf
    large = expected > 2000
    error = np.sqrt(expected * (1 - expected / rows.size))
    assert np.all(np.abs(counts - expected)[large] < 5.5 * error[large])
    assert large.sum() >= 4


def test_mixed_pools_with_wires_against_simulation():
    """Near and far workers, a constant push and a random pull; 5.5 standard errors, 40 cells: false alarm 1e-5."""
    near, far = Gamma(mean=0.25, cv=0.2), Gamma(mean=0.25, cv=0.5)
    pull, push = Lognormal(mean=0.08, cv=0.5), Deterministic(value=0.04)
    law = independent_workers([RenewalPool(6, near), RenewalPool(2, far, pull=pull, push=push)])
    assert law.mean == pytest.approx(7, abs=1e-6)

    def far_cycle(rng, n):
        return far.sample(rng, n) + pull.sample(rng, n) + 0.04

    rows = staleness(np.random.default_rng(3), [near.sample] * 6 + [far_cycle] * 2, [0.25] * 6 + [0.37] * 2, 25_000)
    compare(rows, law)


def compare(rows: np.ndarray, law: StalenessLaw) -> None:
    counts = np.bincount(rows, minlength=law.pmf.size)[: law.pmf.size]
    expected = rows.size * law.pmf
    large = expected > 1000
    assert np.all(np.abs(counts - expected)[large] < 5.5 * np.sqrt(expected * (1 - law.pmf))[large])


def test_a_version_fixed_at_the_end_of_the_pull():
    """Mean (M - 1)(1 - f / C) exactly (docs/theory/conservation.md); law and simulation: 5.5 standard errors."""
    work, pull = Gamma(mean=0.9, cv=0.5), Exponential(mean=0.3)
    law = independent_workers([RenewalPool(8, work, pull=pull, reads_late=True)])
    assert law.mean == pytest.approx(7 * 0.75, abs=1e-6)
    rows = staleness(np.random.default_rng(5), [work.sample] * 8, [1.2] * 8, 100_000, pulls=[pull.sample] * 8)
    compare(rows, law)
    unequal = [RenewalPool(2, work, pull=pull, reads_late=True), RenewalPool(3, Exponential(mean=0.4), reads_late=True)]
    rates = np.array([1 / 1.2] * 2 + [1 / 0.4] * 3)
    shares, open_share = rates / rates.sum(), np.array([0.75] * 2 + [1.0] * 3)
    mean = sum(p * (open_share.sum() - own) for p, own in zip(shares, open_share, strict=True))
    assert independent_workers(unequal).mean == pytest.approx(mean, abs=1e-6)


def test_a_seat_for_everybody_is_one_more_leg():
    law = independent_workers([RenewalPool(4, Exponential(mean=1.0), service=Exponential(mean=1.0))])
    erlang = independent_workers([RenewalPool(4, Gamma(mean=2.0, cv=0.5**0.5))])
    assert law.total_variation(erlang) < law.error + erlang.error


def test_powers_of_two_kinds_of_counts():
    rng = np.random.default_rng(0)
    pmfs = [rng.dirichlet(np.ones(4), size=3), rng.dirichlet(np.ones(3), size=3)]
    masses = np.array([[0.1, 0.2, 0.3], [0.2, 0.1, 0.1]])
    law, _ = mixed_powers(pmfs, np.array([3, 2]), masses)
    expected = np.zeros(law.size)
    for point in range(3):
        a, b = pmfs[0][point], pmfs[1][point]
        first = np.convolve(np.convolve(a, a), np.convolve(b, b))
        second = np.convolve(np.convolve(a, np.convolve(a, a)), b)
        expected[: first.size] += masses[0, point] * first
        expected[: second.size] += masses[1, point] * second
    assert np.abs(law - expected).max() < 1e-14


# -- many workers, heavy tails ----------------------------------------------------------------------------------------


def test_a_thousand_gamma_workers_take_less_than_two_seconds():
    start = time.process_time()
    law = independent_workers([RenewalPool(1000, Gamma(mean=1.0, cv=0.5))])
    assert time.process_time() - start < 2.0
    assert law.error < 1e-6
    assert law.mean == pytest.approx(999, rel=1e-9)


def test_the_limit_law_of_many_workers_is_approached_like_one_over_their_number():
    work = Gamma(mean=1.0, cv=0.5)
    far, near = (
        large_pool_limit(work, m).total_variation(independent_workers([RenewalPool(m, work)])) for m in (100, 1000)
    )
    assert near < 2e-3
    assert far / near == pytest.approx(10, rel=0.2)


def test_gamma_work_tends_to_the_negative_binomial():
    """r = 1 / cv^2: the distance falls with the number of workers."""
    gaps = []
    for workers in (30, 300):
        law = independent_workers([RenewalPool(workers, Gamma(mean=1.0, cv=0.5))])
        cells, r = np.arange(law.pmf.size), 4.0
        p = r / (r + workers - 1)
        log_pmf = special.gammaln(cells + r) - special.gammaln(r) - special.gammaln(cells + 1.0)
        gaps.append(distance(law.pmf, np.exp(log_pmf + r * math.log(p) + cells * math.log1p(-p))))
    assert gaps[1] < 0.3 * gaps[0] < 0.02


def test_a_pareto_tail_follows_the_tail_of_the_work():
    work = Pareto(mean=1.0, shape=1.5)
    law = independent_workers([RenewalPool(8, work)])
    lags = np.array([20_000, 100_000])
    assert law.survival[lags] == pytest.approx(work.survival(lags / 7), rel=0.02)
    assert law.error < 1e-6
    assert 0.99 * 7 < law.mean < 7  # the missing share sits beyond the last cell


def test_a_tail_that_holds_the_mean_is_refused():
    with pytest.raises(NoExactLaw, match="of the mean staleness"):
        independent_workers([RenewalPool(8, Pareto(mean=1.0, shape=1.05))])


# -- lattices ---------------------------------------------------------------------------------------------------------


def test_equal_constant_times_are_a_round_robin():
    law = independent_workers([RenewalPool(3, Deterministic(value=2.0)), RenewalPool(5, Deterministic(value=2.0))])
    assert law.pmf.tolist() == [0] * 7 + [1]
    assert law.source == "exact"


@pytest.mark.parametrize(
    "pools",
    [
        [RenewalPool(2, Empirical(values=(1.0, 2.0)))],
        [RenewalPool(1, Deterministic(value=1.0)), RenewalPool(1, Deterministic(value=1.5))],
        [RenewalPool(2, Deterministic(value=1.0)), RenewalPool(1, Exponential(mean=1.5))],
        [RenewalPool(1, Deterministic(value=1 / r)) for r in (1.0, 2**0.5, 1.0 + 2**0.5)],
        [RenewalPool(2, Empirical(values=(0.1, 0.3)), push=Deterministic(value=0.2))],
        [RenewalPool(3, Deterministic(value=1.0)), RenewalPool(1, Deterministic(value=2**0.5))],
        [RenewalPool(2, Deterministic(value=1.0)), RenewalPool(2, Deterministic(value=2**0.5))],
        [RenewalPool(2, Empirical(values=(1.0, 2.0))), RenewalPool(1, Deterministic(value=2**0.5))],
        [RenewalPool(1, Deterministic(value=p)) for p in (1.0, 1.5, 2**0.5)],
        [RenewalPool(2, Deterministic(value=1.0), pull=Deterministic(value=0.1), reads_late=True)],
    ],
)
def test_phases_that_stay_are_refused(pools):
    with pytest.raises(NoExactLaw, match=r"phases|commensurable") as refusal:
        independent_workers(pools)
    assert refusal.value.nearest


@pytest.mark.parametrize(("ones", "others"), [(3, 1), (2, 2)])
def test_equal_constant_times_beside_incommensurable_ones_remember_their_start(ones, others):
    """Workers of one period start together or evenly apart: two laws for ever, so none is the law."""
    periods = np.array([1.0] * ones + [2**0.5] * others)
    laws = []
    for apart in (0.0, 1.0):
        starts = apart * periods * np.concatenate([np.arange(ones) / ones, np.arange(others) / others])

        def times(rng, count, p, first):
            return np.append(p + first, np.full(count - 1, p))

        draws = [lambda rng, n, p=p, s=s: times(rng, n, p, s) for p, s in zip(periods, starts, strict=True)]
        rows = staleness(np.random.default_rng(0), draws, periods.tolist(), 20_000)
        laws.append(np.bincount(rows, minlength=12) / rows.size)
    assert 0.5 * np.abs(laws[0] - laws[1]).sum() > 0.1


def test_incommensurable_constant_times_obey_the_law():
    """Periods 1, sqrt 2 and sqrt 3 for 2 10^5 cycles: the orbit fills the torus, and shares settle like 1/n."""
    periods = [1.0, 2**0.5, 3**0.5]
    law = independent_workers([RenewalPool(1, Deterministic(value=p)) for p in periods])
    rows = staleness(np.random.default_rng(0), [lambda rng, n, p=p: np.full(n, p) for p in periods], periods, 200_000)
    shares = np.bincount(rows, minlength=law.pmf.size)[: law.pmf.size] / rows.size
    assert np.abs(shares - law.pmf).max() < 1e-4
    on_the_grid = independent_workers([RenewalPool(1, Deterministic(value=p)) for p in periods], closed_form=False)
    assert on_the_grid.total_variation(law) < law.error + on_the_grid.error


def test_times_on_a_fine_clock_carry_the_error_of_their_ties():
    times = np.round(np.random.default_rng(2).gamma(4.0, 0.25, 500), 5)
    law = independent_workers([RenewalPool(4, Empirical(values=tuple(times)))])
    assert 1e-5 < law.error < 2e-4


@pytest.mark.parametrize("shape", [1.3, 1.6, 2.5])
def test_the_share_of_the_mean_in_a_tail(shape):
    """E[X; X > t] / E[X] = (x_m / t)^(a - 1) for a Pareto law; x_m = (a - 1) / a at mean 1."""
    duration = Duration([Pareto(mean=1.0, shape=shape)])
    for beyond in (3.0, 1e3, 1e6):
        exact = ((shape - 1) / shape / beyond) ** (shape - 1)
        assert duration.share_of_mean(beyond) == pytest.approx(exact, rel=2e-3)


def test_tails_that_are_too_heavy_are_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(renewal._Computation, "law", None)
    with pytest.raises(NoExactLaw, match=r"the tail beyond .* holds 1\.\d% of the mean staleness 7"):
        independent_workers([RenewalPool(8, Pareto(mean=1.0, shape=1.3))])


def test_a_heavy_tail_takes_no_more_cells_than_it_needs():
    law = independent_workers([RenewalPool(8, Pareto(mean=1.0, shape=1.6))])
    assert law.pmf.size < 400_000
    assert 7 * (1 - 2e-3) < law.mean < 7
    assert law.truncation < 1e-8


def test_spans():
    assert common_span([0.3, 0.5]) == pytest.approx(0.1)
    assert common_span([1.0, 2**0.5]) < 1e-8
    assert span_of(Duration([Deterministic(value=0.2), Empirical(values=(0.3, 0.5))])) == pytest.approx(0.1)
    assert span_of(Duration([Exponential(mean=1.0)])) is None
    mixed = Mixture(weights=(0.5, 0.5), laws=(Deterministic(value=1.0), Exponential(mean=1.0)))
    assert span_of(Duration([mixed])) is None
    assert are_related([1.0, 0.5, 2.0])
    assert not are_related([1.0, 2**0.5, 3**0.5])


# -- small things -----------------------------------------------------------------------------------------------------


def test_one_worker_is_never_stale():
    assert independent_workers([RenewalPool(1, Exponential(mean=1.0))]).pmf.tolist() == [1.0]


def test_speeds_too_different_are_refused():
    with pytest.raises(NoExactLaw, match="slowest worker"):
        geometric_mixture([1, 1], [1.0, 1e-9])


def test_no_workers_is_an_error():
    with pytest.raises(ValueError, match="at least one worker"):
        independent_workers([])


def test_a_law_that_cannot_be_computed_is_refused(monkeypatch):
    monkeypatch.setattr(renewal, "_WORK", 1e5)
    monkeypatch.setattr(renewal, "REFUSED_ABOVE", 1e-12)
    with pytest.raises(NoExactLaw, match="total variation"):
        independent_workers([RenewalPool(8, Gamma(mean=1.0, cv=0.5))], tolerance=1e-12)


def test_times_a_billion_times_apart_are_answered_without_a_warning() -> None:
    """A band of the law without mass once divided by zero."""
    short = {"name": "a", "workers": 1, "work_time": 1e-9}
    long = {"name": "b", "workers": 1, "work_time": {"law": "exponential", "mean": 1.0}}
    wires = {"pull": 0.001, "push": {"law": "exponential", "mean": 1e-9}}
    case = Scenario.from_dict({"schema": 1, "pool": [short, long], "network": wires})
    with pytest.raises(NoExactLaw):
        staleness_law(case)
