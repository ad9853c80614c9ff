"""The main job through its Python door: verdicts, momentum, real input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cases import scenario

from asyncq import ScenarioError, TooShortError, simulate
from asyncq.text.run import render

STEP_TIMES = Path(__file__).parents[2] / "shared" / "data" / "gpu-step-times.csv"


@pytest.mark.parametrize(("target", "explicit"), [(0.9, 0.025), (0.5, -0.375)])
def test_exponential_workers_are_momentum(target, explicit):
    run = simulate(scenario(optimizer={"momentum": target}), updates=100_000, seed=4)
    assert run.momentum.implicit == pytest.approx(0.875, abs=5e-4)  # pinned by conservation to a boundary term
    assert run.momentum.explicit == pytest.approx(explicit, abs=5e-4)
    assert run.fit.gof.total_variation < 0.02


def test_deterministic_workers_are_a_delay():
    run = simulate(scenario(1.0, optimizer={"momentum": 0.9}), updates=5_000, seed=1)
    assert run.staleness.pmf.tolist() == [0, 0, 0, 0, 0, 0, 0, 1]
    assert run.fit.verdict == "rejected"
    assert run.momentum.is_delay
    assert run.momentum.basis == "first order only"
    text = render(run)
    assert "staleness is a delay here" in text
    assert "implicit" not in text


def test_a_law_that_is_neither_geometric_nor_a_delay_says_first_order_only():
    pools = [
        {"name": "fast", "workers": 4, "work_time": {"law": "exponential", "mean": 0.25}},
        {"name": "slow", "workers": 4, "work_time": {"law": "exponential", "mean": 4.0}},
    ]
    run = simulate(scenario(pools=pools, optimizer={"momentum": 0.9}), updates=100_000, seed=1)
    assert (run.fit.verdict, run.momentum.basis, run.momentum.is_delay) == ("rejected", "first order only", False)
    assert "holds only to first order" in render(run)
    # docs/theory/renewal.md (R.2): q_0 = sum p_i^2
    rates = np.repeat([4.0, 0.25], 4)
    q0 = float(((rates / rates.sum()) ** 2).sum())
    error = (q0 * (1 - q0) / sum(run.gradients.values())) ** 0.5
    assert abs(run.staleness.pmf[0] - q0) < 4.5 * error  # false alarm 7e-6


def test_without_an_optimizer_there_is_no_target():
    momentum = simulate(scenario(), updates=1000, seed=1).momentum
    assert momentum.target is None
    assert momentum.explicit is None


def test_one_worker_is_never_stale():
    run = simulate(scenario(workers=1), updates=1000, seed=1)
    assert (run.staleness.mean, run.momentum.implicit, run.fit.verdict) == (0.0, 0.0, "accepted")


@pytest.mark.skipif(not STEP_TIMES.exists(), reason=f"the measured step times are not at {STEP_TIMES}")
def test_real_step_times():
    work = {"law": "empirical", "file": str(STEP_TIMES), "column": "seconds"}
    run = simulate(scenario(work, workers=32), updates=60_000, seed=1)
    assert run.staleness.mean == pytest.approx(31, abs=0.05)
    assert 4.6 < run.staleness.sd < 5.4
    assert run.fit.verdict == "rejected"
    assert run.gradient_rate.mean / run.synchronous_rate.mean == pytest.approx(1.38, abs=0.02)
    assert "1.38 times synchronous" in render(run)


def test_the_json_report_has_its_keys_and_no_nan():
    case = scenario(server={"service_time": "50ms"}, optimizer={"momentum": 0.9})
    report = json.loads(json.dumps(simulate(case, updates=2000, seed=1).to_dict(), allow_nan=False))
    assert report["schema"] == 1
    assert report["momentum"].keys() >= {"target", "implicit", "explicit", "basis"}
    assert report["fit"].keys() >= {"family", "p", "gof", "verdict"}
    assert report["fit"]["gof"].keys() >= {"statistic", "p_value", "total_variation"}
    assert report["staleness"].keys() >= {"mean", "sd", "ci95", "quantiles", "pmf", "unit"}
    assert report["throughput"].keys() >= {"mean", "ci95", "unit"}
    assert {"scenario", "engine", "seed", "updates", "warmup"} <= report.keys()
    assert report["momentum"]["implicit"] == 1 - 1 / (1 + report["staleness"]["mean"])


@pytest.mark.parametrize("updates", [1, 2, 17, 100])
def test_tiny_runs_report_without_an_interval_or_a_verdict(updates):
    run = simulate(scenario(), updates=updates, seed=1)
    assert run.updates == updates
    json.dumps(run.to_dict(), allow_nan=False)
    assert render(run)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"engine": "quantum"}, "engine must be one of"),
        ({"updates": 0}, "updates must be a whole number"),
        ({"updates": 1.5}, "updates must be a whole number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"updates": 50}, "warmup must be less than"),
    ],
)
def test_bad_arguments_are_refused(arguments, rule):
    with pytest.raises(ScenarioError, match=rule):
        simulate(scenario(run={"warmup": 100}), **arguments)


def test_a_run_stopped_within_its_warm_up_has_nothing_to_report():
    with pytest.raises(TooShortError, match="warm-up"):
        simulate(scenario(run={"warmup": 90_000}), updates=100_000, seed=1, on_chunk=lambda done: True)


def test_a_run_without_a_seed_records_the_one_it_drew():
    run = simulate(scenario(), updates=2000)
    assert simulate(scenario(), updates=2000, seed=run.seed).throughput == run.throughput


def test_fitted_laws_are_shown_with_parameters_and_standard_errors():
    """The mean of a Poisson law is estimated by that of the rows, whose interval the report has anyway."""
    run = simulate(scenario(), updates=5000, seed=1)
    poisson = next(law for law in run.fit_laws() if law.family == "poisson")
    assert poisson.parameters["mean"] == pytest.approx(run.staleness.mean)
    shown = " ".join(render(run, laws=run.fit_laws()).split())
    for law in run.fit_laws():
        for name, value in law.parameters.items():
            error = "" if law.standard_errors is None else f" ({law.standard_errors[name]:.2g})"
            assert f" {name} {value:.4g}{error}" in shown
    assert max(map(len, render(run).splitlines())) <= 104


@pytest.mark.parametrize("engine", ["simpy", "compiled"])
def test_pools_have_intervals(engine):
    """Independent exponential workers: a pool of n makes n / E[W] gradients a second, and while one works the others
    make E[W] times their own rate. 5 standard errors of Student's t (16 batches or more): false alarm 2e-4 each."""
    pools = [{"name": name, "workers": 4, "work_time": {"law": "exponential", "mean": mean}}
             for name, mean in (("fast", 0.05), ("slow", 0.2))]  # fmt: skip
    run = simulate(scenario(pools=pools), updates=20_000, seed=3, engine=engine)
    for pool, rate, stale in zip(run.pools, (80.0, 20.0), (0.05 * 80, 0.2 * 95), strict=True):
        for mean, ci95, exact in (
            (pool.throughput, pool.throughput_ci95, rate), (pool.staleness, pool.staleness_ci95, stale)
        ):  # fmt: skip
            half = (ci95[1] - ci95[0]) / 2
            assert ci95 == pytest.approx((mean - half, mean + half))
            assert abs(mean - exact) < 5 / 2.04 * half < 0.15 * exact
    low, high = (f"{end:.4g}" for end in run.pools[0].throughput_ci95)
    assert f"4 workers, {run.pools[0].throughput:.4g} [{low}, {high}] gradients/s, mean staleness" in render(run)


def test_a_pool_without_gradients_has_no_interval():
    pools = [{"name": name, "workers": 1, "work_time": work} for name, work in (("a", 1.0), ("b", 1e6))]
    run = simulate(scenario(pools=pools, run={"warmup": "none"}), updates=50, seed=1)
    assert run.pools[0].throughput == 1.0
    assert (run.pools[1].staleness, run.pools[1].staleness_ci95) == (None, None)
