"""What a plan says of machines: shares of their time by the utilisation law, against closed forms and simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from asyncq import Scenario, plan
from asyncq.cli import main
from asyncq.planner import comparison
from asyncq.planner.candidates import Candidate, candidates
from asyncq.planner.hardware import Hardware, hardware
from asyncq.text.plan import render

EXPONENTIAL = {"law": "exponential", "mean": 1.0}


def scenario(pools: dict[str, tuple[int, Any]], *, plan: dict[str, Any] | None = None, **tables: Any) -> Scenario:
    """Pools of (workers, work) with a plan."""
    made = [{"name": name, "workers": workers, "work_time": work} for name, (workers, work) in pools.items()]
    given = {"gradient_noise": 1.0, "target": {"loss_reduction": 5}, **(plan or {})}
    today = {"momentum": 0.5, "learning_rate": 0.1}
    return Scenario.from_dict({"schema": 1, "pool": made, "optimizer": today, "plan": given, **tables}, name="test")


def seen(made: Scenario) -> tuple[Candidate, Hardware]:
    (candidate, *_), _ = candidates(made)
    return candidate, hardware(candidate, seed=1, engine="compiled")


def test_a_barrier_leaves_one_over_the_harmonic_number() -> None:
    """Four exponential workers wait for the slowest: E max = H_4 = 25/12 of a mean work."""
    _, found = seen(scenario({"gpu": (4, EXPONENTIAL)}, protocol={"kind": "synchronous"}))
    assert found.shares_are_exact
    assert found.run is None
    assert found.waiting == pytest.approx(1 - 12 / 25)
    assert found.stations["workers"] == pytest.approx(12 / 25)
    assert found.bottleneck == "waiting for others"


def test_unequal_workers_without_a_queue_are_always_busy() -> None:
    """One at 1 s and one at 3 s of work, both with a pull of 1 s: a half and a quarter of their time on the wire."""
    _, found = seen(scenario({"a": (1, EXPONENTIAL), "b": (1, 3.0)}, network={"pull": 1.0}))
    assert found.shares_are_exact
    assert found.stations["network"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert found.waiting == pytest.approx(0, abs=1e-12)


def test_two_workers_at_one_exponential_server() -> None:
    """Machine repair with M = 2 and equal rates: nobody at the server 1/5 of the time, so it is busy 4/5."""
    _, found = seen(scenario({"gpu": (2, EXPONENTIAL)}, server={"service_time": EXPONENTIAL}))
    assert found.utilisation is not None
    assert found.utilisation.exact
    assert found.utilisation.mean == pytest.approx(4 / 5)
    assert found.stations["workers"] == pytest.approx(2 / 5)
    assert found.waiting == pytest.approx(1 / 5)  # one of the two queues 2/5 of the time


@pytest.mark.parametrize(
    "tables",
    [
        {"protocol": {"kind": "synchronous"}},
        {"protocol": {"kind": "k-batch-async", "k": 3}, "network": {"pull": 0.2, "push": EXPONENTIAL}},
        {"protocol": {"kind": "k-async", "k": 2}},
        {"server": {"service_time": {"law": "exponential", "mean": 0.1}}},
        {"groups": {"count": 2}},
    ],
    ids=["synchronous", "k-batch-async", "k-async", "server", "groups"],
)
def test_shares_are_those_of_a_simulation(tables: dict[str, Any]) -> None:
    """Within 7 standard errors over 8 seeds, on 7 degrees of freedom: false alarms below 0.3 % a share, and there are
    fewer than ten."""
    candidate, exact = seen(scenario({"gpu": (6, EXPONENTIAL)}, **tables))
    assert exact.shares_are_exact
    runs = [hardware(candidate, seed=seed, engine="simpy", updates=2000) for seed in range(8)]
    for name, share in exact.stations.items():
        told = np.array([run.stations[name] for run in runs])
        error = told.std(ddof=1) / 8**0.5
        assert abs(told.mean() - share) <= 7 * error + 2e-3, name  # a run's last cycles are open: 6 of 2000


@pytest.mark.parametrize("protocol", [{"kind": "k-sync", "k": 2}, {"kind": "backup-workers", "k": 2}])
def test_where_gradients_are_thrown_away_shares_are_simulated(protocol: dict[str, Any]) -> None:
    _, found = seen(scenario({"gpu": (3, EXPONENTIAL)}, protocol=protocol))
    assert not found.shares_are_exact
    assert found.wasted > 0


# -- what is replayed, and what is said -------------------------------------------------------------------------------


def test_the_fastest_are_replayed_while_the_updates_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for the updates of one candidate only: the faster one is replayed, the other is said to rest on theory."""
    work = {"law": "gamma", "mean": 1.0, "cv": 0.5}
    made = scenario({"gpu": (4, work)}, plan={"vary": {"gpu.workers": [3, 4]}})
    room = max(row.updates for row in plan(made, seed=1, confirm_by_replay=False).rows)
    monkeypatch.setattr(comparison, "REPLAYED", int(1.5 * room))
    found = plan(made, seed=1)
    assert [row.confirmation is not None for row in found.rows] == [False, True, False]
    assert found.rows[0].dropped_early.startswith("too long")
    assert any(line.startswith("1 of 2 stale candidates rest on theory alone") for line in found.answers)


def test_what_is_impossible_for_one_reason_is_one_line() -> None:
    vary = {"gpu.workers": [1, 4, 8], "groups.count": [1, 2, 4, 8]}
    made = scenario({"gpu": (4, 1.0)}, groups={"count": 1}, plan={"vary": vary})
    told = render(plan(made, seed=1, confirm_by_replay=False))
    assert told.count("left out") == 1
    assert "1 gpu, 2 groups; 1 gpu, 4 groups; 1 gpu, 8 groups and 1 more: groups.count" in " ".join(told.split())


def test_a_number_at_an_end_of_what_was_tried_is_named() -> None:
    made = scenario({"gpu": (4, EXPONENTIAL)}, plan={"gradient_noise": 1e3, "vary": {"gpu.workers": [2, 4, 8]}})
    found = plan(made, seed=1, confirm_by_replay=False)
    assert found.choice is not None
    assert found.choice.candidate.workers == 8
    assert any("gpu.workers = 8, the largest" in line for line in found.answers)
    assert {"loss reduction", "gradient noise"} <= {item.input for item in found.sensitivity}


@pytest.mark.parametrize("path", ["groups.count", "groups", "gpu.workers", "pool.gpu.workers"])
def test_an_override_of_what_varies_is_refused(path: str, tmp_path: Any) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'schema = 1\n[[pool]]\nname = "gpu"\nworkers = 4\nwork_time = 1\n[groups]\ncount = 1\n'
        '[optimizer]\nmomentum = 0.5\n'
        '[plan]\ngradient_noise = 1\n[plan.vary]\n"groups.count" = [1, 2]\ngpu.workers = [2, 4]\n'
    )
    value = "{count = 2}" if path == "groups" else "2"
    done = CliRunner().invoke(main, ["plan", str(file), "--set", f"{path}={value}"])
    assert done.exit_code == 2
    assert "is varied by the plan" in done.stderr
    assert "--set 'plan.vary." in done.stderr
