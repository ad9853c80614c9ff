"""asyncq timeline."""

from __future__ import annotations

import click

from asyncq.cli import options
from asyncq.cli.terminal import ascii_only, deliver

__all__ = ["timeline"]

MOST_DRAWN = 10_000  # updates


@click.command(
    short_help="Draw the first updates of a scenario.",
    epilog="""\b
Examples:
  asyncq init --example stale-synchronous > my.toml
  asyncq timeline my.toml
  asyncq timeline my.toml --set protocol.bound=0
  asyncq timeline my.toml --seed 7 --out results
""",
)
@options.file
@options.updates("How many updates to draw.", most=MOST_DRAWN, default=20, show_default=True)
@options.seed("Seed of the random streams; the same seed gives the same drawing.")
@options.overrides
@options.out("Also write timeline.png and timeline.svg to DIR.")
def timeline(file: str, updates: int, seed: int | None, overrides: tuple[str, ...], out: str | None) -> None:
    """Draw the first updates of the scenario in FILE: who computes, waits, reads and commits, and how stale."""
    from asyncq.files import Folder, write_schedule, write_timeline
    from asyncq.protocols import EXACT_KINDS
    from asyncq.scenario import Scenario
    from asyncq.text.timeline import draw, draw_schedule

    scenario = Scenario.from_toml(file, overrides=overrides)
    folder = None if out is None else Folder(out)
    if scenario.protocol.kind in EXACT_KINDS:
        from asyncq.theory.queueing.pipeline import Pipeline

        schedule = Pipeline.of(scenario).schedule(updates)
        deliver(draw_schedule(schedule), folder, lambda folder: write_schedule(schedule, folder))
        return
    from asyncq.results.timeline import timeline as run_timeline

    shown = run_timeline(scenario, updates=updates, seed=seed)
    deliver(draw(shown, ascii_only=ascii_only()), folder, lambda folder: write_timeline(shown, folder))
