"""asyncq plan."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from asyncq.cli.terminal import INTERRUPTED, ascii_only, output_folder, steps_bar, stop_on_interrupt
from asyncq.errors import ScenarioError
from asyncq.jsonable import dumps

if TYPE_CHECKING:
    from asyncq.scenario import Scenario

__all__ = ["plan"]


@click.command(
    short_help="Which workers, groups, protocol and momentum to use.",
    epilog="""\b
Examples:
  asyncq plan scenarios/plans/cluster.toml
  asyncq plan scenarios/plans/language-model.toml --out results
  asyncq plan scenarios/plans/cluster.toml --set plan.gradient_noise=0.5 --set machine.work_time.cv=0.02
"""
)
@click.argument("file")
@click.option("--seed", type=int, help="Seed of the random streams, shared by all candidates.")
@click.option("--engine", help="auto, simpy or compiled.", default="auto", show_default=True)
@click.option("--set", "overrides", metavar="PATH=VALUE", multiple=True, help="Override a key of the file; repeatable.")
@click.option("--no-replay", is_flag=True, help="Leave the confirmation out: updates to the target are then theory's.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON and nothing else.")
@click.option("--out", metavar="DIR", help="Write plan.json, plan.md, plan.csv and figures (PNG, SVG) to DIR.")
def plan(
    file: str,
    seed: int | None,
    engine: str,
    overrides: tuple[str, ...],
    no_replay: bool,
    as_json: bool,
    out: str | None,
) -> None:
    """How many workers, which groups, which momentum, and is asynchrony worth it? Compares the candidates of the [plan]
    in FILE."""
    from asyncq.planner import plan as run_plan
    from asyncq.scenario import Scenario
    from asyncq.text import plan as plan_report

    scenario = Scenario.from_toml(file, overrides=overrides)
    _heard(scenario, overrides)
    folder = None if out is None else output_folder(out)
    with stop_on_interrupt() as stopped, steps_bar() as show:

        def on_progress(done: int, total: int, what: str) -> bool:
            show(done, total, what)
            return stopped()

        found = run_plan(
            scenario, seed=seed, engine=engine, confirm_by_replay=not no_replay, on_progress=on_progress
        )
    if folder is not None:
        plan_report.write(found, folder)
    summary = dumps(found.to_dict()) if as_json else None
    click.echo(summary or plan_report.render(found, ascii_only=ascii_only()), nl=as_json)
    if found.interrupted:
        sys.exit(INTERRUPTED)


def _heard(scenario: Scenario, overrides: Sequence[str]) -> None:
    """Raises ``ScenarioError`` for an override of what the plan varies: every candidate would take it back."""
    from asyncq.scenario.plan import varied

    if scenario.plan is None:
        return
    for text in overrides:
        path, _, value = (part.strip() for part in text.partition("="))
        for other, _ in varied(scenario.plan.vary):
            ours, theirs = (f"{one.removeprefix('pool.')}." for one in (path, other))
            if ours.startswith(theirs) or theirs.startswith(ours):
                raise ScenarioError(
                    f"--set {path}: is varied by the plan ({other}); "
                    f"give the values to try, --set 'plan.vary.{other}=[{value}]'"
                )
