"""Series with known autocorrelation, warm-up and laws; estimators that refuse; who is stale; precision."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from cases import scenario
from scipy.signal import lfilter
from statsmodels.stats.diagnostic import acorr_ljungbox
from statsmodels.tsa.stattools import acf
from test_statistics import accumulated

from asyncq import TooShortError, simulate
from asyncq.jsonable import dumps
from asyncq.statistics.dependence import autocorrelation, correlation_time, dependence, effective_sample_size, stride
from asyncq.statistics.fit.families import FAMILIES
from asyncq.statistics.fit.fitting import dispersion, rank
from asyncq.statistics.intervals import mean_of_series
from asyncq.statistics.steady_state import truncation

LAWS = {
    "geometric": lambda rng, n: rng.geometric(0.1, n) - 1,
    "zero-inflated geometric": lambda rng, n: np.where(rng.random(n) < 0.3, 0, rng.geometric(0.1, n) - 1),
    "negative binomial": lambda rng, n: rng.negative_binomial(4, 4 / 16, n),
    "poisson": lambda rng, n: rng.poisson(9, n),
    "discrete weibull": lambda rng, n: np.floor(10 * rng.weibull(3, n)).astype(np.int64),
    "mixture of two geometrics": lambda rng, n: rng.geometric(np.where(rng.random(n) < 0.7, 0.4, 0.02)) - 1,
    "uniform": lambda rng, n: rng.integers(3, 12, n),
    "constant": lambda rng, n: np.full(n, 7),
}


def ar1(phi: float, n: int, seed: int):
    rng = np.random.default_rng(seed)
    return lfilter([1.0], [1.0, -phi], rng.normal(size=n + 1000))[1000:]


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9, -0.5])
def test_the_correlation_time_of_an_autoregression_is_found(phi):
    """(1 + phi) / (1 - phi); 20 series of 100,000: standard errors of about 1 % (4 % at 0.9), held to five of them."""
    exact = (1 + phi) / (1 - phi)
    found = [correlation_time(ar1(phi, 100_000, seed)) for seed in range(20)]
    assert np.mean(found) == pytest.approx(exact, rel=0.05)
    assert effective_sample_size(ar1(phi, 100_000, 1)) == pytest.approx(100_000 / exact, rel=0.3)


def test_autocorrelations_and_ljung_box_are_those_of_statsmodels():
    series = ar1(0.5, 5000, 3)
    found, _, values = autocorrelation([series], 30)
    assert found == pytest.approx(acf(series, nlags=30, adjusted=True, fft=True))
    assert values == 5000
    stale = np.random.default_rng(1).geometric(0.1, 4000) - 1
    seen = dependence(accumulated(stale))
    assert seen.ljung_box == pytest.approx(float(acorr_ljungbox(stale, lags=[20])["lb_pvalue"].iloc[0]), abs=0.03)


def test_intervals_of_a_mean_cover_under_dependence():
    """AR(1) with phi = 0.8: 400 series, a few of which look too correlated; 4.5 standard errors: false alarm 7e-6."""
    covered, given = 0, 0
    for seed in range(400):
        with contextlib.suppress(TooShortError):
            low, high = mean_of_series(ar1(0.8, 4000, seed), unit="").ci95
            covered += low < 0 < high
            given += 1
    assert given >= 390
    assert abs(covered / given - 0.95) < 4.5 * (0.95 * 0.05 / given) ** 0.5


def test_short_series_are_refused_with_the_estimate():
    with pytest.raises(TooShortError, match="correlation time") as caught:
        correlation_time(ar1(0.99, 2000, 1))
    assert caught.value.estimate > 10
    with pytest.raises(TooShortError, match="give at least") as caught:
        mean_of_series([1.0, 2.0, 3.0], unit="seconds")
    assert caught.value.estimate.mean == pytest.approx(2.0)
    with pytest.raises(TooShortError, match="settled") as caught:
        truncation(np.exp(-np.arange(400) / 150) + 0.001 * np.random.default_rng(1).normal(size=400))
    assert caught.value.estimate > 100
    with pytest.raises(TooShortError, match="too few"):
        rank(accumulated(np.array([1, 2, 3])))


def test_a_transient_is_left_out():
    rng = np.random.default_rng(2)
    series = rng.normal(size=5000) + np.where(np.arange(5000) < 400, 5.0, 0.0)
    assert 400 <= truncation(series) <= 600
    assert truncation(rng.normal(size=5000)) < 1500


@pytest.mark.parametrize("name", LAWS)
def test_the_right_family_is_found_and_accepted(name):
    rng = np.random.default_rng(5)
    ranked = rank(accumulated(np.asarray(LAWS[name](rng, 8000), dtype=np.int64)))
    own = next(law for law in ranked if law.family == name)
    assert own.bic <= ranked[0].bic + 6  # families that contain it come close
    assert own.verdict != "rejected"
    assert own.pmf(4000).sum() == pytest.approx(1)
    dumps(ranked)


def test_conway_maxwell_poisson_contains_the_poisson():
    rng = np.random.default_rng(6)
    ranked = {law.family: law for law in rank(accumulated(rng.poisson(6, 8000)))}
    wide = ranked["conway-maxwell-poisson"]
    assert wide.log_likelihood >= ranked["poisson"].log_likelihood - 1e-3
    assert wide.parameters["log_nu"] == pytest.approx(0, abs=4.5 * wide.standard_errors["log_nu"])


def test_every_family_sums_to_one_at_its_estimate():
    counts = np.bincount(np.random.default_rng(7).geometric(0.2, 5000) - 1)
    for family in FAMILIES.values():
        assert family.pmf(family.estimate(counts), 3000).sum() == pytest.approx(1), family.name


def test_dispersion_and_its_interval_are_those_of_both_ways():
    """statsmodels' interval of independent rows and the sandwich: the geometric law has dispersion 1."""
    rng = np.random.default_rng(8)
    collected = accumulated(rng.geometric(0.1, 16_000) - 1)
    estimate = dispersion(collected)
    ours = rank(collected, families=["negative binomial"])[0]
    assert abs(estimate.mean - 1) < 4.5 / 1.96 * estimate.half_width
    assert ours.parameters["dispersion"] == pytest.approx(1, abs=4.5 * ours.standard_errors["dispersion"])
    thinned = rank(accumulated((rng.geometric(0.1, 16_000) - 1)[:2000]), families=["negative binomial"])[0]
    half = estimate.half_width * (estimate_rows(collected) / 2000) ** 0.5
    assert 1.96 * thinned.standard_errors["dispersion"] == pytest.approx(half, rel=0.35)


def estimate_rows(collected) -> int:
    return int(collected.thinned(stride(collected)).sum())


def test_the_sum_of_autocorrelations_is_pinned():
    """Conservation: the correlations of lags 1, 2, ... add up to about -1/2, and the mean is known far better."""
    run = simulate(scenario(), engine="compiled", updates=400_000, seed=1)
    assert run.dependence.correlation_time < 0.3
    assert run.dependence.own == pytest.approx(0, abs=0.03)  # one worker's gradients are independent here
    assert run.staleness.ci95[1] - run.staleness.ci95[0] < 0.01


def test_a_slow_machine_is_named():
    pools = [
        {"name": "alike", "workers": 15, "work_time": {"law": "gamma", "mean": 1.0, "cv": 0.5}},
        {"name": "odd", "workers": 1, "work_time": {"law": "gamma", "mean": 1.5, "cv": 0.5}},
    ]
    run = simulate(scenario(pools=pools), engine="compiled", updates=30_000, seed=1)
    assert [stale.name for stale in run.who_is_stale.named] == ["odd[0]"]
    assert run.who_is_stale.named[0].ratio == pytest.approx(1.5, rel=0.2)
    assert run.who_is_stale.p_value < 1e-6


@pytest.mark.parametrize("warmup", ["auto", "none"])
def test_a_run_ends_when_it_is_precise_enough(warmup):
    case = scenario(run={"precision": 0.02, "warmup": warmup})
    assert case.run.updates == 100_000_000
    seen = []
    run = simulate(case, engine="compiled", seed=1, on_precision=seen.append)
    assert run.updates < 1_000_000
    assert run.precision == seen[-1] <= 0.02
    assert run.throughput.half_width / run.throughput.mean <= 0.02
    assert run.staleness.variance.half_width / run.staleness.variance.mean <= 0.021
    assert not run.warnings


def test_a_precision_that_is_not_reached_is_told():
    run = simulate(scenario(run={"precision": 0.001, "updates": 20_000}), engine="compiled", seed=1)
    assert run.updates == 20_000
    assert "was not reached" in run.warnings[0]


def test_a_run_that_is_too_short_to_settle_says_what_would_do():
    run = simulate(scenario(workers=64), updates=1000, seed=1)
    assert "too short to have settled" in run.warnings[0]
    assert "updates would do" in run.warnings[0]


def test_quantiles_and_cells_have_intervals():
    run = simulate(scenario(), engine="compiled", updates=100_000, seed=1)
    exact = 0.125 * 0.875 ** np.arange(20)
    low, high = run.staleness.pmf_ci95[:, :20]
    assert ((low < exact) & (exact < high)).mean() > 0.7
    for name, value in run.staleness.quantiles.items():
        ends = run.staleness.quantile_intervals[name]
        assert ends[0] <= value <= ends[1]
