"""Scenarios built in Python: the tables and laws of a file as objects, and the same messages for mistakes."""

from __future__ import annotations

import math
import pickle
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncq
from asyncq import (
    Client,
    Empirical,
    Exponential,
    Failure,
    Gamma,
    Groups,
    InputError,
    Learner,
    Mixture,
    Network,
    Optimizer,
    Outage,
    Pareto,
    Pool,
    Protocol,
    RunTable,
    Scenario,
    ScenarioError,
    Server,
    Shifted,
    Slowdown,
    Slowness,
    Tree,
)

SCENARIOS = Path(__file__).parents[1] / "scenarios"


def told(build: Callable[[], Any]) -> list[str]:
    """What is told of a mistake."""
    with pytest.raises(ScenarioError) as caught:
        build()
    return list(caught.value.problems)


def declared(text: str) -> Scenario:
    return Scenario.from_dict(tomllib.loads(f"schema = 1\n{text}"))


# -- the same scenario, in either language ----------------------------------------------------------------------------

POOL = '[[pool]]\nname = "gpu"\nworkers = 8\nwork_time = '
SAME = [
    (lambda: Scenario(pools=[Pool(name="gpu", workers=8, work_time=1.0)]), f"{POOL}1.0"),
    (lambda: Scenario(pool=[Pool(name="gpu", workers=8, work_time="250ms")]), f'{POOL}"250ms"'),
    (lambda: Scenario(pools=(Pool(name="gpu", workers=8, work_time=1),), schema=1), f"{POOL}1"),
    (
        lambda: Scenario(
            pools=[Pool(name="gpu", workers=8, work_time=Gamma(mean="250ms", cv=0.3), push="1ms")],
            network=Network(pull=Exponential(mean=0.01), version_fixed="pull_end"),
            server=Server(service_time="20ms", seats=2),
            protocol=Protocol(kind="k-async", k=3),
            optimizer=Optimizer(momentum=0.9),
            run=RunTable(updates=1000, seed=1),
        ),
        f'{POOL}{{ law = "gamma", mean = 0.25, cv = 0.3 }}\npush = 0.001\n[network]\npull = {{ law = "exponential", '
        'mean = 0.01 }\nversion_fixed = "pull_end"\n[server]\nservice_time = 0.02\nseats = 2\n[protocol]\n'
        'kind = "k-async"\nk = 3\n[optimizer]\nmomentum = 0.9\n[run]\nupdates = 1000\nseed = 1',
    ),
    (
        lambda: Scenario(
            pools=[Pool(name="gpu", workers=8, work_time=1, failure=Failure(after="6h", repair=Exponential(mean=240)))],
            slowdown=[Slowdown(worker="gpu[1]", begins="1min", until="2min", factor=3)],
            outage=[Outage(worker="gpu", **{"from": 1, "until": 2})],
            slowness=Slowness(every="1min", factor=2),
            groups=Groups(count=4),
        ),
        f'{POOL}1\nfailure = {{ after = "6h", repair = {{ law = "exponential", mean = 240 }} }}\n[groups]\ncount = 4\n'
        '[[slowdown]]\nworker = "gpu[1]"\nfrom = 60\nuntil = 120\nfactor = 3\n'
        '[[outage]]\nworker = "gpu"\nfrom = 1\nuntil = 2\n[slowness]\nevery = 60\nfactor = 2',
    ),
    (
        lambda: Scenario(
            pools=[Pool(name="a", concurrency=2, population=[Client(name="x", clients=9, work_time=1, stays=5)])]
        ),
        '[[pool]]\nname = "a"\nconcurrency = 2\npopulation = [{ name = "x", clients = 9, work_time = 1, stays = 5 }]',
    ),
    (
        lambda: Scenario(
            pools=[Pool(name="gpu", workers=8, work_time=1)],
            learner=Learner(work_time=1),
            protocol={"kind": "actor-learner", "batch": 4, "staleness_budget": 1},
        ),
        f'{POOL}1\n[learner]\nwork_time = 1\n[protocol]\nkind = "actor-learner"\nbatch = 4\nstaleness_budget = 1',
    ),
    (
        lambda: Scenario(
            pools=[Pool(name="gpu", workers=8, work_time=1)],
            tree=Tree(leaves=2, leaf_k=2, root_k=2, forward=Shifted(minimum=1, plus="1s")),
            protocol=Protocol(kind="tree"),
        ),
        f'{POOL}1\n[protocol]\nkind = "tree"\n[tree]\nleaves = 2\nleaf_k = 2\nroot_k = 2\n'
        'forward = { law = "shifted", minimum = 1, plus = 1 }',
    ),
]


@pytest.mark.parametrize(("build", "text"), SAME)
def test_a_scenario_of_objects_is_that_of_the_file(build: Callable[[], Scenario], text: str) -> None:
    built, read = build(), declared(text)
    assert built == read
    assert built.to_dict() == read.to_dict()
    assert hash(built) == hash(read)
    assert Scenario.from_dict(built.to_dict()) == built
    assert built.with_({}) == built


def test_objects_may_stand_in_the_tables_of_a_dict() -> None:
    table = {"schema": 1, "pool": [Pool(name="gpu", workers=8, work_time=Gamma(mean=1, cv=0.5))]}
    assert Scenario.from_dict(table, overrides=["gpu.work_time.cv=0.25"]).pool[0].work_time == Gamma(mean=1, cv=0.25)
    assert table["pool"][0].work_time == Gamma(mean=1, cv=0.5)


def test_numpy_numbers_are_numbers() -> None:
    times = np.array([0.5, 1.5])
    pool = Pool(name="gpu", workers=np.int64(8), work_time=Empirical(values=times))
    assert (pool.workers, pool.work_time) == (8, Empirical(values=[0.5, 1.5]))
    assert Scenario(pools=[pool]).with_({"gpu.workers": np.int64(4)}).workers == 4


def test_a_name_is_for_reports() -> None:
    pools = [Pool(name="gpu", workers=8, work_time=1)]
    assert Scenario(pools=pools).name == "scenario"
    named = Scenario(pools=pools, name="two\x1b[2Jracks")
    assert named.name == "two\\x1b[2Jracks"
    assert named == Scenario(pools=pools)
    assert named.source is None


# -- in words ---------------------------------------------------------------------------------------------------------


def test_a_scenario_is_shown_in_one_line_and_printed_in_few() -> None:
    scenario = Scenario.from_toml(SCENARIOS / "parameter-server.toml")
    assert repr(scenario) == "<Scenario parameter-server: 8 workers, asynchronous>"
    for path in sorted(SCENARIOS.rglob("*.toml")):
        scenario = Scenario.from_toml(path)
        assert len(repr(scenario).splitlines()) == 1
        lines = str(scenario).splitlines()
        assert lines[0] == f"{scenario.name}: {scenario.crew}, {scenario.rule}"
        assert 2 <= len(lines) <= 6


def test_laws_and_tables_are_shown_as_they_are_made() -> None:
    pool = Pool(name="gpu", workers=8, work_time=Gamma(mean=0.25, cv=0.3))
    assert repr(pool) == "Pool(name='gpu', workers=8, work_time=Gamma(mean=0.25, cv=0.3))"
    assert eval(repr(pool), vars(asyncq) | {"Pool": Pool, "Gamma": Gamma}) == pool
    assert repr(Pareto(mean=1, cv=2)) == "Pareto(mean=1.0, cv=2.0)"


def test_the_python_of_the_page_on_scenarios_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (SCENARIOS.parent / "docs" / "scenarios.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out.startswith("scenario: 16 workers, k-async k=4\n")


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "lines"),
    [
        (
            lambda: Pool(name="gpu", wrkers=8, work_time=-1),
            [
                'Pool "gpu": work_time must not be negative (got -1); give seconds as a number, or a text such as '
                '"250ms"',
                'Pool "gpu": wrkers is not a known key (got 8); did you mean "workers"?',
            ],
        ),
        (
            lambda: Pool(name="gpu", workers=8),
            ['Pool "gpu": work_time is missing; give a time such as "250ms" or a law'],
        ),
        (lambda: Pool(name="gpu", workers=1.5, work_time="1s"), ["whole number"]),
        (
            lambda: Gamma(mean=-1, cv=0, x=1),
            [
                'Gamma: mean must be positive (got -1); give seconds as a number, or a text such as "250ms"',
                "Gamma: cv must lie between 1e-06 and 1000 (got 0); give sd / mean; for times that do not vary give a "
                "bare time",
                "Gamma: x is not a known key (got 1); use one of: law, mean, cv",
            ],
        ),
        (lambda: Gamma(law="gama", mean=1, cv=1), ["Gamma: law must be 'gamma'"]),
        (lambda: Exponential(mean=math.nan), ["Exponential: mean must be finite (got nan)"]),
        (lambda: Mixture(weights=[0.5], laws=[{"law": "gamma", "mean": 1, "cv": -1}]), ["Mixture: laws[0].cv must"]),
        (lambda: Mixture(weights=[0.5, 0.4], laws=[1, 2]), ["Mixture: weights must sum to 1 (they sum to 0.9)"]),
        (lambda: Shifted(minimum=1, plus="x"), ["Shifted: plus is not a time"]),
        (
            lambda: Server(service_time="20ms", seat=2),
            ['Server: seat is not a known key (got 2); did you mean "seats"?'],
        ),
        (lambda: Protocol(kind="k-async"), ["Protocol: k is missing; kind k-async needs it"]),
        (lambda: Slowdown(worker="gpu", begins=2, until=1, factor=2), ["Slowdown: until must be later than from"]),
        (lambda: RunTable(updates=0), ["RunTable: updates must be at least 1 (got 0)"]),
        (lambda: Scenario(pools=[]), ["scenario: pool must be a list of tables, at least one (got [])"]),
        (lambda: Scenario(), ["scenario: pool is missing; add a [[pool]]"]),
        (lambda: Scenario(pools=[], pool=[]), ["pool must be a list", "pools is not a known key"]),
        (
            lambda: Scenario(
                pools=[Pool(name="a", workers=1, work_time=1), Pool(name="a", workers=1, work_time=1)],
                sever=Server(service_time=1),
                protocol={"kind": "k-asynch"},
                name="mine",
            ),
            [
                'mine: pool must have different names (got 2 named "a")',
                'mine: protocol.kind is not a known protocol (got "k-asynch"); did you mean "k-async"?',
                "mine: sever is not a known key (got Server(service_time=Deterministic(value=1.0))); did you",
            ],
        ),
        (
            lambda: Scenario(pools=[Pool(name="a", workers=2, work_time=1)], protocol=Protocol(kind="k-async", k=3)),
            ["scenario: protocol.k must be at most the number of workers, 2"],
        ),
    ],
)
def test_mistakes_in_python_are_told_as_those_in_files(build: Callable[[], Any], lines: list[str]) -> None:
    problems = told(build)
    assert len(problems) == len(lines), problems
    for problem, line in zip(problems, lines, strict=True):
        assert line in problem


def test_a_scenario_error_is_a_value_error_that_survives_a_process() -> None:
    assert issubclass(ScenarioError, InputError)
    assert issubclass(InputError, asyncq.AsyncqError)
    assert issubclass(InputError, ValueError)
    error = ScenarioError(["a: b\x07", "c"])
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.problems, str(again)) == (ScenarioError, ("a: b\\x07", "c"), "a: b\\x07\nc")


def test_what_is_declared_cannot_be_assigned() -> None:
    pool = Pool(name="gpu", workers=8, work_time=1)
    for thing, name in (
        (pool, "workers"),
        (pool, "name"),
        (Gamma(mean=1, cv=1), "mean"),
        (Scenario(pools=[pool]), "run"),
    ):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(thing, name, 3)


# -- with other values ------------------------------------------------------------------------------------------------

BASE = declared(f'{POOL}{{ law = "gamma", mean = 1, cv = 0.5 }}\n[server]\nservice_time = 0.1')


@pytest.mark.parametrize(
    ("changes", "override"),
    [
        ({"gpu.workers": 16}, "gpu.workers=16"),
        ({"pool.gpu.work_time.cv": 0.25}, "gpu.work_time.cv=0.25"),
        ({"gpu.work_time": Exponential(mean=2)}, 'gpu.work_time={law="exponential",mean=2}'),
        ({"gpu.work_time": "2s"}, "gpu.work_time=2s"),
        ({"server.seats": 2}, "server.seats=2"),
        ({"run.precision": 0.01}, "run.precision=0.01"),
        ({"protocol": Protocol(kind="k-async", k=2)}, "protocol={kind='k-async',k=2}"),
        ({"groups.count": 4}, "groups.count=4"),
        ({"network": Network(pull=1)}, "network.pull=1"),
    ],
)
def test_a_changed_scenario_is_that_of_the_overridden_file(changes: dict[str, Any], override: str) -> None:
    table = tomllib.loads(f'schema = 1\n{POOL}{{ law = "gamma", mean = 1, cv = 0.5 }}\n[server]\nservice_time = 0.1')
    assert BASE.with_(changes) == Scenario.from_dict(table, overrides=[override])


def test_a_changed_scenario_keeps_its_name_source_and_files(tmp_path: Path) -> None:
    (tmp_path / "times.csv").write_text("seconds\n1\n2\n")
    law = '{ law = "empirical", file = "times.csv", column = "seconds" }'
    (tmp_path / "mine.toml").write_text(f"schema = 1\n{POOL}{law}\n")
    scenario = Scenario.from_toml(tmp_path / "mine.toml")
    changed = scenario.with_(
        {"gpu.workers": 16, "network.push": {"law": "empirical", "file": "times.csv", "column": "seconds"}}
    )
    assert (changed.name, changed.source, changed.workers) == ("mine", tmp_path / "mine.toml", 16)
    assert changed.network.push == scenario.pool[0].work_time
    assert scenario.workers == 8


def test_several_changes_are_one_scenario() -> None:
    changed = BASE.with_({"server": None, "gpu.workers": 4, "protocol.kind": "k-sync", "protocol.k": 4})
    assert (changed.server, changed.workers, changed.rule) == (None, 4, "k-sync k=4")


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {"gpu.workers": 0, "run.updates": 0},
            ['pool "gpu" workers must be at least 1', "run.updates must be at least 1"],
        ),
        ({"gpx.workers": 1, "gpu": 3}, ["change gpx.workers: there is no such pool", "change gpu: must name a key"]),
        ({"protocol.k": 3}, ["protocol.k does not go with kind asynchronous"]),
        ({"gpu.work_time.cv.x": 3}, ["gpu.work_time.cv is not a table here"]),
        ({3: 3}, ["changes must be named by their paths"]),
        ([("gpu.workers", 3)], ["changes must be named by their paths"]),
        ({"": 3}, ["there is no such pool or table"]),
    ],
)
def test_a_change_that_makes_no_scenario_is_refused(changes: Any, lines: list[str]) -> None:
    problems = told(lambda: BASE.with_(changes))
    assert len(problems) == len(lines), problems
    for problem, line in zip(problems, lines, strict=True):
        assert problem.startswith("scenario: ")
        assert line in problem
