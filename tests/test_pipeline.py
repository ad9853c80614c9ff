"""Pipelines: exact, without an engine, and refused by what simulates."""

from __future__ import annotations

import json
import re
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from asyncq import Scenario, ScenarioError, plots, replicate, simulate
from asyncq.cli import main
from asyncq.protocols import ALL_KINDS, EXACT_KINDS, KINDS
from asyncq.results.timeline import timeline
from asyncq.scenario.starter import starter
from asyncq.text import timeline as chart
from asyncq.theory.queueing.pipeline import DRAWN, UNIT, Pipeline, one_forward_one_backward, stage_law, updates_seen

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "scenarios" / "pipeline.toml"


def call(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def pipeline(stages: int, **tables) -> Scenario:
    pool = [{"name": "stage", "workers": stages, "work_time": 1}]
    return Scenario.from_dict(
        {"schema": 1, "pool": pool, "protocol": {"kind": "pipeline", "stages": stages}, **tables}, name="p"
    )


# -- the law, counted from schedules ----------------------------------------------------------------------------------


def greedy(stages: int, minibatches: int) -> set[tuple[int, int, bool, int]]:
    """1F1B without its order of passes, in unit time: a stage that holds S - s + 1 versions at most makes whatever
    there is to do, backward passes first. (stage, minibatch, backward, begun)."""
    forward = [list(range(minibatches))] + [[] for _ in range(stages)]
    backward: list[list[int]] = [[] for _ in range(stages + 1)]
    held, made, now = [0] * stages, set(), 0
    while len(made) < 2 * stages * minibatches:
        ended = []
        for s in range(stages):
            if backward[s]:
                ended.append((s, backward[s].pop(0), True))
                held[s] -= 1
            elif forward[s] and held[s] < stages - s:
                ended.append((s, forward[s].pop(0), False))
                held[s] += 1
        for s, minibatch, back in ended:
            made.add((s + 1, minibatch, back, now))
            if back:
                backward[s - 1].append(minibatch)  # that of the first stage goes to the end of the list, to nobody
            elif s == stages - 1:
                backward[s].append(minibatch)
            else:
                forward[s + 1].append(minibatch)
        now += 1
    return made


@pytest.mark.parametrize("stages", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("forward", "backward"), [(1, 1), (1, 2), (3, 1)])
def test_a_schedule_has_the_staleness_of_the_law(stages, forward, backward):
    """The first minibatches of a stage have fewer ahead of them."""
    seen = updates_seen(one_forward_one_backward(stages, 25, forward=forward, backward=backward))
    assert len(seen) == 25 * stages
    for (stage, minibatch), staleness in seen.items():
        assert staleness == min(minibatch, stages - stage)
        if minibatch >= stages:
            assert stage_law(stage, stages).pmf[staleness] == 1


@pytest.mark.parametrize("stages", [1, 2, 3, 5])
def test_in_unit_time_the_order_of_passes_is_that_of_a_greedy_stage(stages):
    tasks = one_forward_one_backward(stages, 20)
    assert {(task.stage, task.minibatch, task.backward, task.began) for task in tasks} == greedy(stages, 20)


@pytest.mark.parametrize("stages", [1, 2, 5])
def test_a_schedule_is_possible(stages):
    tasks = one_forward_one_backward(stages, 12, backward=2)
    ended = {(t.stage, t.minibatch, t.backward): t.ended for t in tasks}
    assert len(ended) == len(tasks) == 2 * 12 * stages
    for t in tasks:
        before = (t.stage + 1, t.minibatch, True) if t.backward else (t.stage - 1, t.minibatch, False)
        if t.backward:
            assert t.began >= ended[t.stage, t.minibatch, False]
        assert t.began >= ended.get(before, 0)
    for stage in range(1, stages + 1):
        own = sorted((t.began, t.ended) for t in tasks if t.stage == stage)
        assert all(one[1] <= other[0] for one, other in pairwise(own))


def test_a_drawing_by_hand():
    """Two stages. 0: F1. 1: F2 | F1. 2: - | B1. 3: B1 | F2. 4: F3 | B2. 5: B2, one update since F2 began | F3."""
    shown = Pipeline.of(pipeline(2)).schedule(2)
    lines = chart.draw_schedule(shown).splitlines()[2:5]
    assert [line.split() for line in lines] == [
        ["stage", "1", "F1", "F2", ".", "B1:0", "F3", "B2:1"],
        ["stage", "2", ".", "F1", "B1:0", "F2", "B2:0", "F3"],
        ["time", "0", "1", "2", "3", "4", "5"],
    ]
    for width in (40, 60, 100):
        text = chart.draw_schedule(Pipeline.of(pipeline(12)).schedule(15), width=width)
        assert max(map(len, text.splitlines()[1:])) <= width
        assert len(re.findall(r"^stage 12 ", text, re.MULTILINE)) == len(re.findall(r"^time ", text, re.MULTILINE)) > 1
    assert plots.schedule(shown).axes[0].get_ylim() == (2.5, 0.5)


# -- the law ----------------------------------------------------------------------------------------------------------


def test_the_law_of_a_stage_is_constant_and_exact():
    law = stage_law(2, 6)
    assert law.pmf.tolist() == [0, 0, 0, 0, 1]
    assert (law.mean, law.variance, law.unit, law.source) == (4, 0, UNIT, "exact")
    for stage in (0, 7):
        with pytest.raises(ValueError, match="stage must lie"):
            stage_law(stage, 6)
    for bad in ({"stages": 0, "minibatches": 1}, {"stages": 1, "minibatches": 0}):
        with pytest.raises(ValueError, match="must be 1 or more"):
            one_forward_one_backward(**bad)


def test_the_report_has_every_stage():
    known = Pipeline.of(pipeline(5, optimizer={"momentum": 0.9}))
    report = json.loads(json.dumps(known.to_dict(), allow_nan=False))
    assert (report["schema"], report["engine"]) == (1, "exact")
    assert [stage["staleness"] for stage in report["stages"]] == [4, 3, 2, 1, 0]
    assert report["staleness"] == {"mean": 2, "unit": UNIT}
    assert known.mean == np.mean([known.law(stage).mean for stage in range(1, 6)])
    first, last = report["stages"][0]["momentum"], report["stages"][-1]["momentum"]
    assert (first["implicit"], first["is_delay"]) == (1 - 1 / 5, True)
    assert first["explicit"] == pytest.approx(0.1)
    assert (last["implicit"], last["explicit"], last["is_delay"]) == (0, 0.9, False)
    assert Pipeline.of(pipeline(5)).momentum(1).explicit is None
    assert Scenario.from_dict(report["scenario"]) == known.scenario


def test_only_a_pipeline_is_one():
    with pytest.raises(ScenarioError, match=r"call asyncq\.simulate"):
        Pipeline.of(Scenario.from_toml(ROOT / "scenarios" / "quickstart.toml"))
    long = Pipeline.of(pipeline(DRAWN + 1))
    with pytest.raises(ScenarioError, match="must be at most 64 to be drawn"):
        long.schedule()
    with pytest.raises(ScenarioError, match="updates must be"):
        Pipeline.of(pipeline(2)).schedule(0)


# -- scenario files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"protocol": {"kind": "pipeline"}}, "protocol.stages is missing; kind pipeline needs it"),
        ({"protocol": {"kind": "pipeline", "stages": 0}}, "protocol.stages must be at least 1"),
        (
            {"protocol": {"kind": "pipeline", "stages": 3}},
            "protocol.stages must be the number of workers, 4: a stage has one worker (got 3); make the two equal",
        ),
        ({"protocol": {"kind": "pipeline", "stages": 4, "k": 2}}, "protocol.k does not go with kind pipeline"),
        ({"protocol": {"kind": "asynchronous", "stages": 4}}, "protocol.stages does not go with kind asynchronous"),
        ({"server": {"service_time": 1}}, "protocol.kind does not go with server"),
        ({"groups": {"count": 2}}, "protocol.kind does not go with groups"),
        ({"network": {"pull": 1}}, "protocol.kind does not go with network"),
        ({"network": {"version_fixed": "pull_end"}}, "protocol.kind does not go with network"),
    ],
)
def test_what_does_not_fit_a_pipeline_is_refused(tables, words):
    with pytest.raises(ScenarioError, match=re.escape(words)) as caught:
        pipeline(4, **tables) if "protocol" not in tables else Scenario.from_dict(
            {"schema": 1, "pool": [{"name": "a", "workers": 4, "work_time": 1}], **tables}
        )
    assert len(caught.value.problems) == 1


def test_pools_are_stages_in_their_order():
    pools = [{"name": name, "workers": count, "work_time": 1} for name, count in (("a", 1), ("b", 3))]
    table = {"kind": "pipeline", "stages": 4}
    assert Pipeline.of(Scenario.from_dict({"schema": 1, "pool": pools, "protocol": table})).stages == 4
    wired = [{**pools[0], "pull": 1}, {**pools[1], "push": 1}]
    with pytest.raises(ScenarioError, match="does not go with pull, push"):
        Scenario.from_dict({"schema": 1, "pool": wired, "protocol": table})


@pytest.mark.parametrize(
    "call_",
    [simulate, timeline, lambda scenario: replicate(scenario, replications=2)],
    ids=["simulate", "timeline", "replicate"],
)
def test_what_simulates_says_what_to_call_instead(call_):
    with pytest.raises(ScenarioError, match=r"needs no simulation.*asyncq\.theory\.pipeline\.Pipeline\.of") as caught:
        call_(pipeline(3))
    assert "asyncq simulate" in str(caught.value)


def test_exact_kinds_are_none_of_the_engines():
    assert not set(EXACT_KINDS) & set(KINDS)
    assert list(ALL_KINDS) == [*KINDS, *EXACT_KINDS]


# -- the command line -------------------------------------------------------------------------------------------------


def test_simulate_prints_the_exact_report():
    done = call("simulate", SHIPPED)
    assert done.exit_code == 0
    text = " ".join(done.output.split())
    for words in ("exact, no simulation", "stage 1 3", "stage 4 0", "mean 1.5", "delay per stage",
                  "implicit 0.750 at stage 1, the worst; target 0.9 - 0.750 = +0.150"):  # fmt: skip
        assert words in text
    long = call("simulate", SHIPPED, "--set", "stage.workers=5000", "--set", "protocol.stages=5000").output
    assert len(long.splitlines()) <= 24
    assert "stage 5000  0" in long
    one = call("simulate", SHIPPED, "--set", "stage.workers=1", "--set", "protocol.stages=1").output
    assert "nothing is stale" in one


def test_simulate_json_and_out(tmp_path):
    done = call("simulate", SHIPPED, "--json", "--out", tmp_path)
    assert json.loads(done.stdout) == Pipeline.of(Scenario.from_toml(SHIPPED)).to_dict()
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    assert json.loads((tmp_path / "summary.json").read_text()) == json.loads(done.stdout)


@pytest.mark.parametrize("options", [["--replications", 3], ["--trace", "--out", "x"]])
def test_simulate_refuses_what_has_no_meaning(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("simulate", SHIPPED, *options)
    assert done.exit_code == 2
    assert "is not simulated" in done.stderr
    assert not list(tmp_path.iterdir())


def test_timeline_draws_the_schedule(tmp_path):
    done = call("timeline", SHIPPED, "--updates", 8, "--out", tmp_path)
    assert done.exit_code == 0
    assert "B8:3" in done.output
    assert {path.name for path in tmp_path.iterdir()} == {"timeline.png", "timeline.svg"}


def test_init_and_check(tmp_path):
    assert call("init", "pipeline").stdout == starter("pipeline")
    known = Pipeline.of(Scenario.from_dict(tomllib.loads(starter("pipeline"))))
    assert known.stages == 8
    assert "pipeline" in call("check", SHIPPED).output
