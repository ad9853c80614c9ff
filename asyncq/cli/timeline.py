"""asyncq timeline."""

from __future__ import annotations

import click

from asyncq.cli.terminal import ascii_only, output_folder

__all__ = ["timeline"]


@click.command(
    short_help="Draw the first updates of a scenario.",
    epilog="""\b
Examples:
  asyncq timeline scenarios/k-async.toml
  asyncq timeline scenarios/stale-synchronous.toml --updates 40 --set protocol.bound=0
  asyncq timeline scenarios/parameter-server.toml --seed 7 --out results
"""
)
@click.argument("file")
@click.option("--updates", type=int, default=20, show_default=True, help="How many updates to draw.")
@click.option("--seed", type=int, help="Seed of the random streams; the same seed gives the same drawing.")
@click.option("--set", "overrides", metavar="PATH=VALUE", multiple=True, help="Override a key of the file; repeatable.")
@click.option("--out", metavar="DIR", help="Also write timeline.png and timeline.svg to DIR.")
def timeline(file: str, updates: int, seed: int | None, overrides: tuple[str, ...], out: str | None) -> None:
    """Draw the first updates of the scenario in FILE: who computes, waits, reads and commits, and how stale."""
    from asyncq import files
    from asyncq.protocols import EXACT_KINDS
    from asyncq.scenario import Scenario
    from asyncq.text.timeline import draw, draw_schedule

    scenario = Scenario.from_toml(file, overrides=overrides)
    folder = None if out is None else output_folder(out)
    if scenario.protocol.kind in EXACT_KINDS:
        from asyncq.theory.queueing.pipeline import Pipeline

        schedule = Pipeline.of(scenario).schedule(updates)
        if folder is not None:
            files.write_schedule(schedule, folder)
        click.echo(draw_schedule(schedule), nl=False)
        return
    from asyncq.results.timeline import timeline as run_timeline

    shown = run_timeline(scenario, updates=updates, seed=seed)
    if folder is not None:
        files.write_timeline(shown, folder)
    click.echo(draw(shown, ascii_only=ascii_only()), nl=False)
