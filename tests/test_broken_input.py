"""Input that is broken on purpose or by a slip: told in a few clear lines, never obeyed, never waited for."""

from __future__ import annotations

import copy
import math
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncq import Empirical, Scenario, ScenarioError
from asyncq.cli import main

ROOT = Path(__file__).parents[1]
GOOD = 'schema = 1\n[[pool]]\nname = "gpu"\nworkers = 8\nwork_time = "1s"\n'
HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\u202e\u2028\x9b"


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def problems(text: str, folder: Path = Path(), name: str = "f.toml") -> list[str]:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ScenarioError) as caught:
        Scenario.from_toml(path)
    return list(caught.value.problems)


def mistake(text: str, folder: Path) -> str:
    (line,) = problems(text, folder)
    return line


# -- slips of a unit --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tables", "noun"),
    [
        ('[slowness]\nevery = "1ns"\nfactor = 2', "mean work (2 s)"),
        ('[slowness]\nevery = "1.9ms"\nfactor = 2', "mean work (2 s)"),
        ('[slowness]\nevery = "1s"\nfactor = 2\n[network]\npull = "12d"', "mean time that passes without work"),
        ('[slowness]\nevery = "1s"\nfactor = 2\n[server]\nservice_time = "12d"', "mean time that passes without work"),
        (
            '[slowness]\nevery = "1s"\nfactor = 2\n[[outage]]\nworker = "gpu"\nfrom = 1\nuntil = 1e15',
            "time until which a worker is slow or away",
        ),
    ],
)
def test_slow_intervals_without_number_are_refused(tables: str, noun: str, tmp_path: Path) -> None:
    line = mistake(GOOD + tables, tmp_path)
    assert "slowness.every must be at least a " in line
    assert noun in line
    assert "check the units of both" in line


def test_a_thousand_slow_intervals_in_a_piece_of_work_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text(GOOD + '[slowness]\nevery = "2ms"\nfactor = 2')
    assert Scenario.from_toml(tmp_path / "f.toml").slowness is not None


@pytest.mark.parametrize("rate", ["1e-308", "5e-324", "1e13"])
def test_a_learning_rate_out_of_all_proportion_is_refused(rate: str, tmp_path: Path) -> None:
    text = GOOD + f"[optimizer]\nmomentum = 0.9\nlearning_rate = {rate}"
    assert "optimizer.learning_rate must be at " in mistake(text, tmp_path)


# -- plans ------------------------------------------------------------------------------------------------------------

PLAN = GOOD + "[plan]\ngradient_noise = 1\n"


@pytest.mark.parametrize("momentum", ["0.9999999999999999", "0.9999999"])
def test_a_momentum_that_makes_no_condition_number_is_refused(momentum: str, tmp_path: Path) -> None:
    text = PLAN + f'[plan.vary]\n"gpu.workers" = [1, 2]\n[optimizer]\nmomentum = {momentum}'
    (tmp_path / "f.toml").write_text(text)
    done = call("check", tmp_path / "f.toml")
    assert done.exit_code == 2
    assert "optimizer.momentum must imply a condition number of at most 1e+12" in done.stderr
    assert "plan.condition_number" in done.stderr


def test_a_price_is_for_a_pool(tmp_path: Path) -> None:
    line = mistake(PLAN + "prices = { gpu = 1, gpus = 2, server = 1 }", tmp_path)
    assert line.endswith('plan.prices.gpus is the price of no pool (got 2); did you mean "gpu"?')


@pytest.mark.parametrize(
    "vary",
    [
        '"gpu.workers" = [1, 2]\n"pool.gpu.workers" = [2, 4]',
        '"gpu.workers" = [1, 2]\ngpu.workers = [2, 4]',
        '"pool.gpu.workers" = [1, 2]\npool.gpu.workers = [2, 4]',
    ],
)
def test_a_plan_varies_a_value_once(vary: str, tmp_path: Path) -> None:
    line = mistake(f"{PLAN}[plan.vary]\n{vary}", tmp_path)
    assert "gpu.workers again" in line
    assert "remove one of the two" in line


def test_a_pool_named_like_a_table_is_another_value(tmp_path: Path) -> None:
    text = (PLAN + '[plan.vary]\n"server.seats" = [1, 2]\n"pool.server.workers" = [2, 4]').replace('"gpu"', '"server"')
    (tmp_path / "f.toml").write_text(text + "\n[server]\nservice_time = 1\n")
    assert Scenario.from_toml(tmp_path / "f.toml").plan is not None


def test_a_rule_below_a_list_is_told(tmp_path: Path) -> None:
    line = mistake(f'{PLAN}[plan.vary]\nprotocol = [{{ kind = "synchronous" }}]\n"protocol.k" = 3', tmp_path)
    assert "plan.vary.protocol.k must be a list of values" in line


# -- what a terminal would obey ---------------------------------------------------------------------------------------


def unprintable(text: str) -> list[str]:
    return [c for c in text if not c.isprintable() and c != "\n"]


def test_control_characters_of_files_reach_no_terminal(tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "")
    (tmp_path / "t.csv").write_text(f'"a{HOSTILE}",b\n1,2\n', encoding="utf-8")
    law = '{ law = "empirical", file = "t.csv", column = "x" }'
    texts = {
        "header": GOOD.replace('"1s"', law),
        "key": GOOD + '"' + "".join(f"\\u{ord(c):04x}" for c in HOSTILE) + '" = 1\n',
        "vary": PLAN + '[plan.vary]\n"gpu\\u001b[2J.workers" = 3\n',
        "price": PLAN + 'prices = { "\\u001b[2J" = 3 }\n',
        "name": GOOD.replace('"gpu"', '"\\u001b[2J"'),
        "toml": GOOD + "x = \x1b\u202e",
    }
    for which, text in texts.items():
        lines = problems(text, tmp_path, f"{which}{name}.toml")
        assert lines
        assert [unprintable(line) for line in lines] == [[]] * len(lines), which
        assert all("\n" not in line for line in lines)
        assert unprintable(call("check", tmp_path / f"{which}{name}.toml").output) == []
    (tmp_path / f"good{name}.toml").write_text(GOOD)
    scenario = Scenario.from_toml(tmp_path / f"good{name}.toml")
    assert unprintable(scenario.name + repr(scenario) + str(scenario)) == []
    done = call("check", tmp_path / f"good{name}.toml")
    assert (done.exit_code, unprintable(done.output)) == (0, [])
    measured = Empirical(file=str(tmp_path / "t.csv"), column=f"a{HOSTILE}")
    assert unprintable(str(measured)) == []


def test_a_file_that_cannot_be_named_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"a\\nb\\udcff\.toml: does not exist"):
        Scenario.from_toml(os.fsdecode(b"a\nb\xff.toml"))


# -- floods -----------------------------------------------------------------------------------------------------------


def test_of_many_mistakes_the_first_hundred_are_told(tmp_path: Path) -> None:
    flood = GOOD + "".join(f"key{i} = {i}\n" for i in range(30_000)).replace("key", "w", 1)
    lines = problems(GOOD.replace("\n", "\nwrkers = 3\n", 1) + flood.removeprefix(GOOD), tmp_path)
    assert len(lines) == 101
    assert lines[-1] == "29,901 more mistakes are not told; correct these first"
    with pytest.raises(ScenarioError) as caught:
        Scenario.from_dict({}, overrides=[f"x{i}=1" for i in range(1000)])
    assert caught.value.problems[-1] == "900 more mistakes are not told; correct these first"


# -- what is no file --------------------------------------------------------------------------------------------------


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    if not hasattr(os, "mkfifo"):
        pytest.skip("a system without pipes that have names")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_pipes_and_devices_are_not_read(pipe: Path, tmp_path: Path) -> None:
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(ScenarioError, match=r"cannot be read \(it is no regular file\)"):
            Scenario.from_toml(path)
        law = f'{{ law = "empirical", file = "{path}", column = "x" }}'
        assert "cannot be read (it is no regular file)" in mistake(GOOD.replace('"1s"', law), tmp_path)
        with pytest.raises(ScenarioError, match="no regular file"):
            Empirical(file=str(path), column="x")
        done = call("recommend", "--law", f"file:{path}", "--condition-number", "10")
        assert (done.exit_code, "no regular file" in done.stderr) == (2, True)


def test_a_file_beyond_all_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2 * 10**8)  # a hole: takes no disk
    with pytest.raises(ScenarioError, match=r"cannot be read \(it is larger than 10 MB\)"):
        Scenario.from_toml(tmp_path / "large")
    with pytest.raises(ScenarioError, match=r"cannot be read \(it is larger than 100 MB\)"):
        Empirical(file=str(tmp_path / "large"), column="x")


def test_a_column_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y,x\n1,2,3\n")
    with pytest.raises(ScenarioError, match=r"column is the name of 2 columns of t\.csv"):
        Empirical(file=str(tmp_path / "t.csv"), column="x")
    assert Empirical(file=str(tmp_path / "t.csv"), column="y").mean == 2


# -- anything at all --------------------------------------------------------------------------------------------------

TABLES = [tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "scenarios").rglob("*.toml"))]
ODD = [
    None, True, -1, 0, 1, 3, 10**13, 10**400, 1e-320, 1e308, math.nan, math.inf, "1s", "x", "\x1b[2J", "\u202e", "",
    [], {}, [{}], [[]], [1], {"law": "gamma"}, {"law": "gamma", "mean": 1, "cv": 0.5}, {"law": ["a"]},
    {"kind": "k-async"}, "tree", "gossip", "pipeline", {"a": {"b": 1}}, [{"name": "gpu"}], "gpu[1]", "gpu", "start",
]  # fmt: skip
KEYS = [
    "a\x1b", "concurrency", "failure", "groups", "k", "kind", "law", "laws", "learner", "mean", "network", "plan",
    "pool", "population", "prices", "protocol", "pull", "run", "server", "shards", "slowdown", "tree", "vary",
    "work_time", "x\n", "",
]  # fmt: skip


def places(table: Any) -> list[tuple[Any, Any]]:
    """Every dict or list in a table with each of its keys."""
    pairs = list(table.items() if isinstance(table, dict) else enumerate(table))
    inner = [place for _, value in pairs if isinstance(value, dict | list) for place in places(value)]
    return [(table, key) for key, _ in pairs] + inner


def read_or_told(build: Callable[[], Scenario]) -> None:
    told: tuple[str, ...] = ()
    try:
        scenario = build()
    except ScenarioError as error:
        told = error.problems or ("",)
    assert [line for line in told if not line.isprintable() or not line] == []
    if not told:
        assert Scenario.from_dict(scenario.to_dict()) == scenario
        assert hash(Scenario.from_dict(scenario.to_dict())) == hash(scenario)
        assert unprintable(repr(scenario) + str(scenario)) == []


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_is_declared_is_a_scenario_or_told(data: st.DataObject) -> None:
    """Files of the repository, broken in up to three places, and changed at a random path in three ways."""
    odd = st.sampled_from(ODD).map(copy.deepcopy)
    table, whole = (copy.deepcopy(data.draw(st.sampled_from(TABLES))) for _ in range(2))
    for _ in range(data.draw(st.integers(0, 3))):
        inner, key = data.draw(st.sampled_from(places(table) or [(table, "x")]))
        if isinstance(inner, dict) and data.draw(st.booleans()):
            inner.pop(key, None)
            inner[data.draw(st.sampled_from(KEYS))] = data.draw(odd)
        else:
            inner[key] = data.draw(odd)
    read_or_told(lambda: Scenario.from_dict(table))
    path = ".".join(data.draw(st.lists(st.sampled_from([whole["pool"][0]["name"], *KEYS]), min_size=1, max_size=4)))
    value = data.draw(odd)
    read_or_told(lambda: Scenario.from_dict(whole).with_({path: value}))
    read_or_told(lambda: Scenario.from_dict(whole, overrides=[f"{path}={value}"]))


def test_a_path_through_a_list_without_that_name_is_told() -> None:
    base = Scenario.from_dict(tomllib.loads(GOOD))
    with pytest.raises(ScenarioError, match=r"slowdown\.gpu is not a table here"):
        base.with_({"slowdown.gpu.factor": 2}).with_({})
