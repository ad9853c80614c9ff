"""Scenarios to exact laws, throughput and predictions: which have one, what it says, and what it costs."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import REQUIRED, scenario, tables_of

from asyncq import Scenario, recommend, simulate
from asyncq.distributions import Empirical, Exponential, Gamma, Lognormal, Pareto, Uniform
from asyncq.errors import NoExactLaw
from asyncq.estimate import Estimate
from asyncq.protocols import KINDS
from asyncq.results.advice import basis_of
from asyncq.staleness import StalenessLaw
from asyncq.theory import Bounds, predict, staleness_law, throughput
from asyncq.theory.momentum import _error_bars, autoregression, expected_update
from asyncq.theory.queueing.renewal import RenewalPool, independent_workers
from asyncq.theory.queueing.renewal_counts import Duration
from asyncq.theory.queueing.staleness_laws import mean_staleness
from asyncq.theory.queueing.throughput import order_statistic_mean

GAMMA = {"law": "gamma", "mean": 1.0, "cv": 0.5}
SLOW = {"law": "exponential", "mean": 0.2}


def kind(name: str, **parameters) -> dict:
    return {"protocol": {"kind": name, **parameters}}


# -- which law it is --------------------------------------------------------------------------------------------------


def leaves(count, leaf_k, root_k, **forward):
    return {"tree": {"leaves": count, "leaf_k": leaf_k, "root_k": root_k, **forward}, **kind("tree")}


GATED = {"batch": 3, "staleness_budget": 0}


def learner(work_time, **protocol):
    return {"learner": {"work_time": work_time}, **kind("actor-learner", **GATED | protocol)}


@pytest.mark.parametrize(
    ("tables", "law"),
    [
        ({}, StalenessLaw.geometric(workers=8)),
        (kind("round-robin"), StalenessLaw.constant(7)),
        (kind("synchronous"), StalenessLaw.constant(0)),
        (kind("k-sync", k=3), StalenessLaw.constant(0)),
        (kind("backup-workers", k=6), StalenessLaw.constant(0)),
        (kind("k-batch-sync", k=20), StalenessLaw.constant(0)),
        (kind("k-async", k=4), StalenessLaw.geometric(workers=2)),
        (kind("k-async", k=8), StalenessLaw.constant(0)),
        (kind("k-async", k=1), StalenessLaw.geometric(workers=8)),
        (kind("k-batch-async", k=1), StalenessLaw.geometric(workers=8)),
        (kind("bounded", maximum_staleness=4, policy="downweight"), StalenessLaw.geometric(workers=8)),
        ({"workers": 1, **kind("stale-synchronous", bound=1)}, StalenessLaw.constant(0)),
    ],
)
def test_each_protocol_has_its_law(tables, law):
    case = scenario(**tables)
    found = staleness_law(case)
    assert found.total_variation(law) < 1e-12
    assert found.source == "exact"
    assert mean_staleness(case) == pytest.approx(law.mean, abs=1e-9)


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        (kind("stale-synchronous", bound=2), "gates tie the workers"),
        (kind("bounded", maximum_staleness=4), "dropped make no update"),
        (learner(1, staleness_budget=1), "a gate that bounds"),
        (leaves(2, 2, 2), "leaves hold back"),
        (leaves(1, 2, 2, forward=1), "their links take time"),
        ({"work": GAMMA, **kind("k-async", k=4)}, "exponential work alike"),
        ({"server": {"service_time": 0.1}}, "service is not exponential"),
        ({"server": {"service_time": SLOW}, "work": GAMMA}, "not exponential and alike"),
        ({"server": {"service_time": SLOW}, "network": {"push": 0.1}}, "a pull or a push"),
        ({"work": {"law": "empirical", "values": [1.0, 2.0]}}, "initial phases"),
        ({"work": {"law": "pareto", "mean": 1.0, "shape": 1.05}}, "of the mean staleness"),
        ({"network": {"pull": 0.1, "version_fixed": "pull_end"}, **kind("round-robin")}, "how pulls overlap"),
    ],
)
def test_a_refusal_says_why_and_which_scenario_has_a_law(tables, reason):
    with pytest.raises(NoExactLaw, match=reason) as refusal:
        staleness_law(scenario(**tables))
    assert refusal.value.nearest


def test_every_protocol_kind_is_answered():
    for name, rule in KINDS.items():
        given = {key: REQUIRED[key] for key in rule.required}
        case = scenario(workers=4, **kind(name, **given), **tables_of(name))
        if name in ("stale-synchronous", "bounded", "actor-learner", "tree"):
            with pytest.raises(NoExactLaw):
                staleness_law(case)
        else:
            assert staleness_law(case).source == "exact"
        assert throughput(case).unit.endswith("per second")


@pytest.mark.parametrize("answer", [staleness_law, throughput, predict, mean_staleness])
def test_a_pipeline_is_sent_to_its_stages(answer):
    with pytest.raises(NoExactLaw, match="no one law") as refusal:
        answer(scenario(workers=4, **kind("pipeline", stages=4)))
    assert "stage_law" in refusal.value.nearest


def test_units_are_those_of_the_updates():
    assert staleness_law(scenario(**kind("k-batch-async", k=3))).unit == "updates of 3 gradients"
    assert throughput(scenario(**kind("synchronous"))).unit == "updates of 8 gradients per second"


def test_a_server_with_one_seat_and_with_many():
    one = staleness_law(scenario(server={"service_time": SLOW}))
    assert one.mean == pytest.approx(7, rel=1e-10)
    many = staleness_law(scenario(work=GAMMA, server={"service_time": SLOW, "seats": 8}))
    assert many.mean == pytest.approx(7, rel=1e-6)
    batch = staleness_law(scenario(server={"service_time": SLOW}, **kind("k-batch-async", k=4)))
    assert batch.mean == pytest.approx(7 / 4, rel=1e-9)


def test_groups_of_four_exponential_machines_are_not_geometric():
    """Four groups of four: the maximum of four. A quarter of the mass would have to move to make it geometric."""
    case = scenario(workers=16, groups={"count": 4, "batch": "split"})
    law = staleness_law(case)
    assert law.mean == pytest.approx(3, abs=1e-6)
    assert law.total_variation(StalenessLaw.geometric(workers=4)) > 0.25
    run = simulate(case, engine="simpy", updates=60_000, seed=1)
    rows = run.gradients["committed"]
    seen = np.pad(run.staleness.pmf, (0, 40))[:8]
    # 8 cells at 5.5 standard errors of independent rows: false alarm below 1e-6
    assert np.all(np.abs(seen - law.pmf[:8]) < 5.5 * np.sqrt(law.pmf[:8] * (1 - law.pmf[:8]) / rows))


# -- throughput -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 8])
def test_order_statistics_against_closed_forms(k):
    exponential = Duration([Exponential(mean=2.0)])
    harmonic = 2.0 * math.fsum(1 / j for j in range(8 - k + 1, 9))
    assert order_statistic_mean([8], [exponential], k) == pytest.approx(harmonic, rel=1e-13)
    by_integral = order_statistic_mean([5, 3], [exponential, Duration([Gamma(mean=2.0, cv=1.0 - 1e-12)])], k)
    assert by_integral == pytest.approx(harmonic, rel=1e-8)
    uniform = Duration([Uniform(low=1.0, high=2.0)])
    assert order_statistic_mean([8], [uniform], k) == pytest.approx(1 + k / 9, rel=1e-8)
    pareto = order_statistic_mean([8], [Duration([Pareto(mean=3.0, shape=1.5)])], k)
    exact = math.gamma(9) / math.gamma(9 - 1 / 1.5) * math.gamma(9 - k - 1 / 1.5) / math.gamma(9 - k)
    assert pareto == pytest.approx(exact, rel=1e-5)


def test_order_statistics_of_sums_of_legs():
    """Two exponential legs are an Erlang time; a constant leg is added."""
    legs = Duration([Exponential(mean=1.0), Exponential(mean=1.0), Exponential(mean=1e-9)])
    erlang = Duration([Gamma(mean=2.0, cv=0.5**0.5)])
    assert order_statistic_mean([6], [legs], 4) == pytest.approx(order_statistic_mean([6], [erlang], 4), rel=1e-6)


@pytest.mark.parametrize(("k", "kind"), [(8, "synchronous"), (5, "k-sync")])
def test_a_barrier_over_places_with_random_wires(k, kind):
    """Two pools, one with a random pull: the k-th of 8 by quadrature of laws of scipy, not by ours."""
    from scipy import integrate, stats

    gamma = stats.gamma(25.0, scale=0.01)
    sigma = np.sqrt(np.log(1.25))
    wire = stats.lognorm(sigma, scale=0.08 * np.exp(-(sigma**2) / 2))
    nodes, weights = np.polynomial.legendre.leggauss(400)  # over the quantiles of the wire, to 1e-12 on either side
    at = stats.norm.ppf(0.5) + 7.0 * nodes
    mass = weights * 7.0 * stats.norm.pdf(at)
    pulls = wire.ppf(stats.norm.cdf(at))

    def still_fewer(x):
        near, far = gamma.cdf(x - 0.01), float(mass @ gamma.cdf(x - 0.04 - pulls))
        ended = np.convolve(stats.binom.pmf(np.arange(7), 6, near), stats.binom.pmf(np.arange(3), 2, far))
        return float(ended[:k].sum())

    exact = integrate.quad(still_fewer, 0.0, 4.0, points=[0.2, 0.3, 0.4, 0.6, 1.0], epsabs=1e-12, limit=300)[0]
    shipped = Path(__file__).parents[1] / "scenarios" / "parameter-server.toml"
    protocol = [f"protocol.kind={kind}", *([f"protocol.k={k}"] if kind != "synchronous" else [])]
    tables = Scenario.from_toml(shipped, overrides=protocol).to_dict()
    del tables["server"]
    rate = throughput(Scenario.from_dict(tables))
    assert rate.mean == pytest.approx(1 / exact, rel=2e-6)


def test_a_barrier_before_a_server_has_bounds_in_numbers():
    """All eight arrive, and then the server works on its own at most eight services long."""
    shipped = Path(__file__).parents[1] / "scenarios" / "parameter-server.toml"
    found = throughput(Scenario.from_toml(shipped, overrides=["protocol.kind=synchronous"]))
    assert isinstance(found, Bounds)
    assert 0 < found.low < found.high
    assert 1 / found.low - 1 / found.high == pytest.approx(8 * 0.02, rel=1e-9)


def test_order_statistics_need_a_rank():
    with pytest.raises(ValueError, match="k must be from 1 to 8"):
        order_statistic_mean([8], [Duration([Exponential(mean=1.0)])], 9)


@pytest.mark.parametrize(
    ("tables", "rate"),
    [
        ({"work": GAMMA}, 8.0),
        ({"work": GAMMA, **kind("k-batch-async", k=4)}, 2.0),
        (kind("synchronous"), 1 / sum(1 / j for j in range(1, 9))),
        (kind("k-sync", k=3), 1 / (1 / 6 + 1 / 7 + 1 / 8)),
        (kind("backup-workers", k=3), 1 / (1 / 6 + 1 / 7 + 1 / 8)),
        (kind("k-async", k=3), 1 / (1 / 6 + 1 / 7 + 1 / 8)),
        (kind("k-batch-sync", k=3), 8 / 3),
        ({"workers": 2, **kind("stale-synchronous", bound=2)}, 2 * 6 / 7),
        ({"workers": 2, **kind("stale-synchronous", bound=0)}, 2 * 2 / 3),
        ({"work": 0.5, **kind("round-robin")}, 16.0),
        (learner(1.0), 1 / (1 / 3 + 1 / 2 + 1 + 1)),
        ({"workers": 2, **learner(1.0, batch=4)}, 1 / (1 + 3 / 2 + 1)),
        (learner(1.0, batch=4, limit=1), 1 / 5),
        ({"work": GAMMA, **leaves(4, 2, 2)}, 2.0),
        ({"network": {"pull": 0.5, "push": 0.5}, "work": 1.0}, 4.0),
    ],
)
def test_throughput_formulas(tables, rate):
    found = throughput(scenario(**tables))
    assert isinstance(found, Estimate)
    assert found.exact
    assert found.mean == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize(
    "tables",
    [
        {"work": GAMMA, **kind("k-sync", k=5)},
        {"work": GAMMA, **kind("k-async", k=4)},
        {"work": GAMMA, **kind("k-batch-sync", k=4)},
        {"work": GAMMA, **kind("round-robin")},
        {"work": GAMMA, **kind("stale-synchronous", bound=2)},
        {"work": GAMMA, "server": {"service_time": 0.12}},
        {"work": GAMMA, "server": {"service_time": {"law": "gamma", "mean": 0.3, "cv": 2.0}, "seats": 2}},
        {"work": GAMMA, "server": {"service_time": SLOW}, **kind("synchronous")},
        {"work": GAMMA, "server": {"service_time": SLOW}, "network": {"push": SLOW}},
        {"pools": [{"name": "a", "workers": 1, "work_time": SLOW}, {"name": "b", "workers": 1, "work_time": GAMMA}]},
        {
            "pools": [
                {"name": "a", "workers": 1, "work_time": {"law": "exponential", "mean": 0.5}},
                {"name": "b", "workers": 1, "work_time": {"law": "exponential", "mean": 1.0}},
            ],
            **kind("stale-synchronous", bound=1),
        },
        {"work": GAMMA, "network": {"pull": SLOW}, **kind("k-sync", k=5)},
        kind("bounded", maximum_staleness=5),
        {"work": GAMMA, **learner(0.5, staleness_budget=2)},
        {"work": GAMMA, **leaves(4, 2, 2, forward=0.3)},
        {"work": GAMMA, **leaves(2, 2, 1, forward=0.7, buffers=2)},
        {"work": GAMMA, **learner(0.5, staleness_budget=2, limit=2)},
        {"work": GAMMA, **learner(0.5, staleness_budget=4, discard_older_than=1)},
    ],
)
def test_throughput_against_simulation(tables):
    """Exact figures and bounds hold within 6 standard errors of a run: 20 cases, false alarm below 1e-6 (the intervals
    are Student's, with few degrees of freedom, hence the room)."""
    case = scenario(**tables)
    found = throughput(case)
    run = simulate(case, engine="simpy", updates=12_000, seed=5)
    slack = 6 * run.throughput.half_width / 1.96
    low, high = (found.low, found.high) if isinstance(found, Bounds) else (found.mean, found.mean)
    assert low - slack <= run.throughput.mean <= high + slack
    assert low <= high
    assert slack < 0.1 * run.throughput.mean


# -- predictions ------------------------------------------------------------------------------------------------------


def test_a_prediction_of_the_default_case():
    found = predict(scenario(optimizer={"momentum": 0.9}))
    assert found.mean == pytest.approx(7)
    assert found.momentum.implicit == pytest.approx(0.875)
    assert found.momentum.explicit == pytest.approx(0.025)
    assert (found.momentum.basis, found.momentum.is_delay) == ("geometric law", False)
    assert found.throughput == Estimate(8.0, None, "updates per second", exact=True)
    tables = json.loads(json.dumps(found.to_dict()))
    assert tables["staleness"]["exact"] is True
    assert len(tables["staleness"]["pmf"]) == found.law.pmf.size
    assert tables["throughput"]["mean"] == 8.0


def test_a_prediction_without_a_law_still_has_the_mean():
    found = predict(scenario(work=GAMMA, server={"service_time": 0.1}, optimizer={"momentum": 0.9}))
    assert found.law is None
    assert found.mean == 7.0
    assert found.momentum.basis == "first order only"
    assert found.momentum.is_delay is None
    assert isinstance(found.throughput, Bounds)
    tables = json.loads(json.dumps(found.to_dict()))
    assert tables["staleness"]["nearest"]
    assert tables["throughput"]["low"] < tables["throughput"]["high"]


def test_regular_work_is_a_delay_and_irregular_work_a_momentum():
    assert predict(scenario(work={"law": "gamma", "mean": 1.0, "cv": 0.2})).momentum.is_delay is True
    assert predict(scenario(work={"law": "hyperexponential", "mean": 1.0, "cv": 2.0})).momentum.is_delay is False


@pytest.mark.parametrize(
    ("work", "workers", "kind"),
    [
        *(({"law": "uniform", "low": 0.0, "high": 2.0}, workers, "delay") for workers in (2, 4, 8, 32)),
        ({"law": "gamma", "mean": 1.0, "cv": 0.9}, 4, "delay"),
        *(({"law": "gamma", "mean": 1.0, "cv": cv}, 8, "momentum") for cv in (1.01, 1.2, 2.0)),
        ({"law": "hyperexponential", "mean": 1.0, "cv": 3.0}, 64, "momentum"),
    ],
)
def test_prediction_and_recommendation_agree_on_momentum_or_delay(work, workers, kind):
    case = scenario(work, workers=workers, optimizer={"momentum": 0.5, "learning_rate": 0.01})
    assert predict(case).momentum.is_delay is (kind == "delay")
    assert expected_update(basis_of(case).staleness).kind == kind
    if workers == 4:
        assert recommend(case).kind == kind


def test_signs_of_coefficients_are_those_of_a_finer_law():
    """What is called negative stays so on grids eight times finer; what is not was noise of the law's computation."""
    uniform, gamma = ([RenewalPool(8, law)] for law in (Uniform(low=0.0, high=2.0), Gamma(mean=1.0, cv=1.2)))
    assert autoregression(independent_workers(uniform, refine=3)).min() == pytest.approx(
        autoregression(independent_workers(uniform)).min(), rel=1e-4
    )
    coarse, fine = (independent_workers(gamma, refine=refine) for refine in (0, 3))
    change = np.abs(autoregression(coarse, 100) - autoregression(fine, 100))
    assert np.all(change < _error_bars(coarse, 100) + _error_bars(fine, 100))


def test_a_prediction_with_neither_law_nor_mean():
    found = predict(scenario(**kind("bounded", maximum_staleness=3)))
    assert found.law is None
    assert found.mean is None
    assert found.momentum is None
    json.dumps(found.to_dict())


@pytest.mark.parametrize("law", [Lognormal(mean=1.0, cv=1.0), Empirical(values=tuple(np.linspace(0.5, 1.5, 50) ** 2))])
def test_mean_staleness_is_that_of_the_law(law):
    case = scenario(work=law.model_dump(exclude_none=True), workers=5)
    assert staleness_law(case).mean == pytest.approx(mean_staleness(case), rel=1e-6)


PROGRAM = """
import sys
from asyncq.scenario import Scenario
from asyncq.theory import predict
predict(Scenario.from_dict({"schema": 1, "pool": [{"name": "gpu", "workers": 8,
        "work_time": {"law": "exponential", "mean": "100ms"}}], "optimizer": {"momentum": 0.9}}))
print(*sys.modules)
"""


def test_a_prediction_imports_nothing_heavy():
    """Start-up is most of its 0.9 s."""
    loaded = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded).isdisjoint({"scipy.stats", "statsmodels", "numba", "matplotlib", "simpy", "asyncq.engines"})
