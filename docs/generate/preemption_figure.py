"""The picture of the page on failures, drawn when the documentation is built: a preemption over wall-clock time."""

from __future__ import annotations

from pathlib import Path

from asyncq import Scenario, plots, simulate

GENERATED = Path(__file__).parents[1] / "_generated"
SCENARIO = Path(__file__).parents[2] / "scenarios" / "preemption.toml"


def draw(*_: object) -> None:
    """What ``asyncq simulate scenarios/preemption.toml --out`` draws as over-time.svg."""
    run = simulate(Scenario.from_toml(SCENARIO))
    assert run.over_time is not None
    GENERATED.mkdir(exist_ok=True)
    plots.over_time(run.over_time, run.scenario.name).savefig(GENERATED / "preemption.svg")
