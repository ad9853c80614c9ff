"""asyncq stability."""

from __future__ import annotations

from typing import Any

import click

from asyncq.cli.recommend import LAW_HELP, source_of
from asyncq.cli.terminal import output_folder
from asyncq.jsonable import dumps

__all__ = ["stability"]


@click.command(
    short_help="Which step sizes a staleness allows.",
    epilog="""\b
Examples:
  asyncq stability scenarios/quickstart.toml --momentum 0.5
  asyncq stability --law constant:32 --variant dampened --momentum 0.9
  asyncq stability --law poisson:31 --step 0.01 --step 0.05 --json
"""
)
@click.argument("file", required=False)
@click.option("--law", metavar="LAW", help=LAW_HELP)
@click.option("--momentum", type=float, default=0.0, show_default=True, help="The momentum that is set.")
@click.option(
    "--variant",
    type=click.Choice(["heavy-ball", "dampened", "shifted"]),
    default="heavy-ball",
    show_default=True,
    help="Plain momentum; gradients times 1 - momentum; or that, with a velocity as stale as the gradient.",
)
@click.option("--criterion", type=click.Choice(["mean-square", "expectation"]), help="Show one threshold only.")
@click.option(
    "--step", "steps", type=float, multiple=True, help="Learning rate times curvature to look at; repeatable."
)
@click.option("--seed", type=int, help="Seed, where the scenario has to be simulated.")
@click.option("--updates", type=int, help="How many updates to simulate, where that is needed.")
@click.option("--set", "overrides", metavar="PATH=VALUE", multiple=True, help="Override a key of the file; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
@click.option("--out", metavar="DIR", help="Write stability.json and a figure (PNG, SVG) to DIR.")
def stability(
    file: str | None,
    law: str | None,
    momentum: float,
    variant: Any,
    criterion: str | None,
    steps: tuple[float, ...],
    seed: int | None,
    updates: int | None,
    overrides: tuple[str, ...],
    as_json: bool,
    out: str | None,
) -> None:
    """Which step sizes are stable under the staleness of the scenario in FILE, or of a --law, and how fast they are.

    A step is learning rate times curvature. Two criteria: E[w^2] stays bounded (mean square), which is what to go by,
    and E[w] does (expectation)."""
    from asyncq import __version__, files
    from asyncq.results import advice
    from asyncq.text import recommendation as briefing

    folder = None if out is None else output_folder(out)
    source, title, about = source_of(file, law, overrides, seed, updates)
    found = advice.stability(source, momentum=momentum, variant=variant, steps=list(steps) or None)
    summary = {"schema": 1, "version": __version__, **about, **found.to_dict()}
    if folder is not None:
        dense = [1.35 * found.mean_square * (n / 64) ** 1.5 for n in range(1, 65)]
        drawn = advice.stability(source, momentum=momentum, variant=variant, steps=dense)
        files.write_stability(drawn, summary, folder)
    text = briefing.render_step_sizes(title, found, criterion=criterion)
    click.echo(dumps(summary) if as_json else text, nl=as_json)
