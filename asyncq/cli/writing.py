"""The commands that help to write scenario files: check, init, schema, protocols."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from asyncq.cli.terminal import say
from asyncq.errors import InputError, ScenarioError
from asyncq.formats import printable

if TYPE_CHECKING:
    from asyncq.scenario import Scenario

__all__ = ["check", "init", "protocols", "schema"]


@click.command(
    short_help="Validate scenario files and their plans.",
    epilog="""\b
Examples:
  asyncq init --example quickstart > quickstart.toml
  asyncq check quickstart.toml
  asyncq check *.toml
""",
)
@click.argument("files", nargs=-1, required=True)
def check(files: tuple[str, ...]) -> None:
    """Validate scenario FILES, and the candidates of their plans, without running them."""
    from asyncq.scenario import Scenario

    problems: list[str] = []
    for file in files:
        try:
            scenario = Scenario.from_toml(file)
            planned = _planned(scenario)
        except ScenarioError as error:
            problems.extend(error.problems)
        else:
            say(f"{printable(file)}: ok ({scenario.crew}, {scenario.protocol.kind}{planned})")
    if problems:
        raise ScenarioError(problems)


def _planned(scenario: Scenario) -> str:
    """Number of candidates of the scenario's plan, in words; empty without a plan."""
    if scenario.plan is None:
        return ""
    from asyncq.planner.candidates import candidates
    from asyncq.planner.problem import Problem

    Problem.of(scenario)
    found, left_out = candidates(scenario)
    return f"; a plan of {len(found)} candidates" + (f", {len(left_out)} impossible" if left_out else "")


@click.command(
    short_help="Write a commented starter scenario.",
    epilog="""\b
Examples:
  asyncq init k-async > my.toml
  asyncq init synchronous --out my.toml
  asyncq init --example quickstart --out my.toml
""",
)
@click.argument("kind", required=False)
@click.option("--example", "name", metavar="NAME", help="A scenario that comes with asyncq, such as quickstart.")
@click.option("--out", metavar="FILE", help="Write to FILE, which must not exist yet.")
def init(kind: str | None, name: str | None, out: str | None) -> None:
    """Write a commented starter scenario of a protocol KIND (asynchronous if none is given), or of a population; or an
    example that comes with asyncq."""
    from asyncq.scenario.starter import example, starter, write_new

    if kind is not None and name is not None:
        raise InputError("name a protocol kind or an --example, and not both; remove one")
    text = starter(kind or "asynchronous") if name is None else example(name)
    if out is None:
        say(text)
        return
    write_new(text, out)
    command = "plan" if name is not None and name.startswith("plans/") else "simulate"
    click.echo(printable(f"wrote {out}; next: asyncq {command} {out}"), err=True)


@click.command(
    short_help="Print the JSON schema of a scenario.",
    epilog="""\b
Examples:
  asyncq schema > asyncq.schema.json
""",
)
def schema() -> None:
    """Print the JSON schema of a scenario file, for editors that check and complete TOML."""
    from asyncq.scenario.starter import json_schema

    say(json.dumps(json_schema(), indent=2))


@click.command(
    short_help="List the protocol kinds and their keys.",
    epilog="""\b
Examples:
  asyncq protocols
  asyncq protocols | less
""",
)
def protocols() -> None:
    """List the protocol kinds, one line each, and the keys they take."""
    from asyncq.scenario.starter import protocol_lines

    say("\n".join(protocol_lines()))
