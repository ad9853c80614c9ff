"""The planner's acceptance list, by oracles that the planner does not compute with."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from asyncq import Scenario, plan
from asyncq.planner import decision
from asyncq.planner.candidates import candidates
from asyncq.planner.confirmation import ConfirmedUpdates, _reached
from asyncq.planner.hardware import known
from asyncq.planner.regimes import _useful
from asyncq.plots.plan import efficiency
from asyncq.text.plan import _cells

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "planning.md").read_text(encoding="utf-8")


def scenario(work: dict[str, Any], vary: dict[str, Any], *, workers: int = 4, **given: Any) -> Scenario:
    """One pool named gpu and a plan; ``given`` are keys of the plan."""
    return Scenario.from_dict({
        "schema": 1, "pool": [{"name": "gpu", "workers": workers, "work_time": work}],
        "optimizer": {"momentum": 0.8, "learning_rate": 0.05}, "run": {"seed": 1},
        "plan": {"gradient_noise": 1.0, "target": {"loss_reduction": 10}, "vary": vary, **given},
    }, name="test")  # fmt: skip


def mean_of_largest(count: int, cv: float) -> float:
    """E of the largest of ``count`` gamma times of mean 1, by quadrature."""
    law = stats.gamma(cv**-2, scale=cv**2)
    top = float(law.isf(1e-13))
    return float(integrate.quad(lambda t: 1.0 - law.cdf(t) ** count, 0, top, limit=400, points=[1.0])[0])


# -- hardware efficiency of groups ------------------------------------------------------------------------------------


def test_hardware_efficiency_of_groups_is_near_linear() -> None:
    """[AbM] Figure 1, left. g groups of 8 / g machines make g / (E max + all-reduce) updates a second. A smaller group
    waits less for its slowest, so that it is never less than linear, and at most E max of all 8 above it."""
    found, _ = candidates(Scenario.from_toml(ROOT / "scenarios" / "plans" / "cluster.toml"))
    rates = {}
    for candidate in found[:4]:
        groups = candidate.groups
        assert groups is not None
        rate, _ = known(candidate)
        assert rate is not None
        assert rate.mean == pytest.approx(groups / (8.0 * mean_of_largest(8 // groups, 0.3) + 0.05), rel=1e-6)
        rates[groups] = rate.mean
    barrier = 8.0 * mean_of_largest(8, 0.3) + 0.05
    for groups in (2, 4, 8):
        assert groups <= rates[groups] / rates[1] <= groups * barrier / 8.05 * (1 + 1e-9)


# -- decisions follow from numbers ------------------------------------------------------------------------------------


def test_what_asynchrony_gains_is_the_mean_of_the_largest_less_one() -> None:
    """cv 0.02: the largest of 4 normals is 1.0294 deviations late: 2.06 %, to second order in the cv."""
    (fresh, stale), _ = candidates(scenario({"law": "gamma", "mean": 1.0, "cv": 0.02}, {"protocol": [
        {"kind": "synchronous"}, {"kind": "asynchronous"}]}))  # fmt: skip
    rates = [known(candidate)[0] for candidate in (fresh, stale)]
    gain = rates[1].mean / (4 * rates[0].mean) - 1.0  # type: ignore[union-attr]
    assert gain == pytest.approx(0.02 * 1.02938, abs=3e-4)
    assert gain == pytest.approx(mean_of_largest(4, 0.02) - 1.0, abs=1e-6)


# -- intervals and comparisons ----------------------------------------------------------------------------------------


def confirmation(values: np.ndarray[Any, Any]) -> ConfirmedUpdates:
    return ConfirmedUpdates(float(np.exp(values.mean())), None, values, values.size, None, False)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pair() -> Any:
    """A plan of two candidates, by theory."""
    return plan(scenario({"law": "exponential", "mean": 1.0}, {"protocol": [
        {"kind": "asynchronous"}, {"kind": "synchronous"}]}), confirm_by_replay=False)  # fmt: skip


def rows_of(pair: Any, logs: list[np.ndarray[Any, Any]]) -> list[Any]:
    """Rows whose replays showed these logarithms, at an exact pace."""
    base = pair.rows[0]
    made = []
    for i, log in enumerate(logs):
        time = dataclasses.replace(base.time, mean=float(np.exp(log.mean())))
        hardware = dataclasses.replace(base.hardware, throughput=dataclasses.replace(
            base.hardware.throughput, exact=True, ci95=None))  # fmt: skip
        candidate = dataclasses.replace(base.candidate, name=f"candidate {i}")
        made.append(dataclasses.replace(
            base, candidate=candidate, hardware=hardware, time=time, source="replay", confirmation=confirmation(log)
        ))  # fmt: skip
    return made


@pytest.mark.parametrize(("count", "groups"), [(2, 24), (6, 24), (6, 8)])
def test_equal_candidates_are_rarely_told_apart(pair: Any, count: int, groups: int) -> None:
    """5 % of 1,000 contests or fewer have a distinguishable rival; 4 standard errors of 0.7 % more (3e-5). Deviations
    are 10 %, so that the rule of 1 % does not help."""
    rng = np.random.default_rng(count)
    wrong = 0
    for _ in range(1000):
        rows = rows_of(pair, list(7 + 0.1 * rng.standard_normal((count, groups))))
        wrong += any(rival.distinguishable for rival in decision.contest(rows)[1].rivals)
    assert wrong <= 50 + 4 * 7


def test_the_variance_that_shared_seeds_leave(pair: Any) -> None:
    """Correlation rho leaves 1 - rho of the variance of a difference; the median of 200 is within 0.05 of it."""
    rng = np.random.default_rng(5)
    for rho in (0.0, 0.9):
        left = []
        for _ in range(200):
            shared, own = rng.standard_normal(24), rng.standard_normal((2, 24))
            logs = [7 + 0.1 * (rho**0.5 * shared + (1 - rho) ** 0.5 * part) for part in own]
            (rival,) = decision.contest(rows_of(pair, logs))[1].rivals
            left.append(rival.variance_left)
        assert float(np.median(left)) == pytest.approx(1 - rho, abs=0.05)


def test_the_interval_of_a_curve_that_is_known() -> None:
    """Loss exp(-t / 100) with noise of every point and of every group: the truth is inside 95 % of 400 intervals, 4
    standard errors of 1.1 % less (3e-5)."""
    rng = np.random.default_rng(2)
    at = np.arange(0, 601, 3)
    truth, inside = 100 * np.log(10), 0
    for _ in range(400):
        level = 1 + 0.1 * rng.standard_normal((48, 1)) + 0.3 * rng.standard_normal((48, at.size))
        value, logs = _reached(np.exp(-at / 100) * level, at, 0.1, np.arange(48) % 24)
        half = stats.t.ppf(0.975, 23) * logs.std(ddof=1) / 24**0.5
        inside += abs(np.log(value / truth)) <= half
    assert inside >= 400 * 0.95 - 4 * 4.4


def test_one_window_of_the_trace_gives_no_interval(pair: Any) -> None:
    rows = rows_of(pair, [np.full(1, 7.0), 8 + 0.01 * np.arange(24)])
    (rival,) = decision.contest(rows)[1].rivals
    assert rival.ci95 is None
    assert not rival.distinguishable


def test_the_table_marks_theory_that_the_replay_contradicts(pair: Any) -> None:
    (row,) = rows_of(pair, [np.full(24, np.log(1000.0))])
    theory = dataclasses.replace(row.tuned, updates=1060.0)
    wrong = dataclasses.replace(row, confirmation=dataclasses.replace(row.confirmation, tuned=theory, updates=1000.0))
    near = dataclasses.replace(wrong.confirmation, tuned=dataclasses.replace(theory, updates=1040.0))
    right = dataclasses.replace(row, confirmation=near)
    assert [wrong.agrees, right.agrees] == [False, True]
    for source, mark in (("replay", "r"), ("exact", "x")):
        assert mark.upper() in _cells(dataclasses.replace(wrong, source=source), 1.0)
        assert mark in _cells(dataclasses.replace(right, source=source), 1.0)


# -- edges ------------------------------------------------------------------------------------------------------------


def test_the_useful_number_of_workers() -> None:
    """By hand: doubling 4 workers pays and doubling 8 does not; nothing pays; all pays after the first, which hurts."""
    found = _useful(np.array([1, 0.5, 0.25, 0.15, 0.145, 0.144, 0.143, 0.142, 0.141]))
    assert found is not None
    assert 4 < found < 8
    assert _useful(np.linspace(1.0, 2.0, 9)) == 1.0
    assert _useful(np.array([1, 3.6, 3.1, 2.4, 1.8, 1.4, 1.1, 0.9, 0.7])) is None


def test_a_target_that_nobody_reaches_is_written_all_the_same() -> None:
    found = plan(
        scenario({"law": "exponential", "mean": 1.0}, {"gpu.workers": [2, 4]}, gradient_noise=1e4,
                 target={"loss_reduction": 1000}), confirm_by_replay=False)  # fmt: skip
    assert found.winner is None
    assert found.answers[0].startswith("No candidate reaches the target")
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    efficiency(found).savefig(io.BytesIO())
    assert told["one_worker"]["updates"] is None
    assert told["regimes"]["updates"] == [None] * 9


def test_the_keys_of_the_page_are_the_keys_of_the_report(pair: Any) -> None:
    shown = dict(re.findall(r"^\| (?:each of )?(.+?) \| ((?:`\w+`(?:, )?)+) \|$", PAGE, re.MULTILINE))
    listed = {part.strip("`"): re.findall(r"`(\w+)`", keys) for part, keys in shown.items()}
    told = pair.to_dict()
    assert listed["the report"] == list(told)
    assert listed["contest"] == list(told["contest"])
    assert listed["verdict"] == list(told["verdict"])
    assert all(sorted(listed["candidates"]) == sorted(row) for row in told["candidates"])
    assert listed["updates_to_target"] == list(told["candidates"][0]["updates_to_target"])
    assert all(listed["sensitivity"] == list(item) for item in told["sensitivity"])
    assert {column.partition(".")[0] for column in pair.to_frame()} == set(listed["candidates"])


def test_a_cv_that_is_halved_leaves_constant_work_constant() -> None:
    from asyncq.planner.sensitivity import _spread

    law = scenario({"law": "deterministic", "value": 2.0}, {}).pool[0].work_time
    assert _spread(law, 0.5) is law
    assert _spread(law, 2.0).cv == pytest.approx(0.2)
