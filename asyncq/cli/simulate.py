"""asyncq simulate."""

from __future__ import annotations

import sys

import click

from asyncq.cli.terminal import INTERRUPTED, ascii_only, output_folder, progress, stop_on_interrupt
from asyncq.errors import ScenarioError
from asyncq.jsonable import dumps

__all__ = ["simulate"]


@click.command(
    short_help="Throughput, staleness and momentum of a scenario.",
    epilog="""\b
Examples:
  asyncq simulate scenarios/quickstart.toml
  asyncq simulate scenarios/quickstart.toml --seed 7 --updates 500000 --json > run.json
  asyncq simulate scenarios/parameter-server.toml --set near.workers=12 --set server.seats=2
  asyncq simulate scenarios/quickstart.toml --out results --trace
  asyncq simulate scenarios/quickstart.toml --replications 16
"""
)
@click.argument("file")
@click.option("--seed", type=int, help="Seed of the random streams; the same seed gives the same run.")
@click.option("--updates", type=int, help="How many updates to simulate.")
@click.option("--engine", help="auto, simpy or compiled.", default="auto", show_default=True)
@click.option("--set", "overrides", metavar="PATH=VALUE", multiple=True, help="Override a key of the file; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON and nothing else.")
@click.option("--out", metavar="DIR", help="Write summary.json, staleness.csv and figures (PNG, SVG) to DIR.")
@click.option("--trace", is_flag=True, help="With --out: also write trace.csv, one row per gradient.")
@click.option("--fit", is_flag=True, help="Fit and rank all families of staleness laws, not only the geometric.")
@click.option(
    "--replications",
    type=int,
    metavar="N",
    help="Simulate N times, independently, and report estimates over them; --out then writes summary.json only.",
)
def simulate(
    file: str,
    seed: int | None,
    updates: int | None,
    engine: str,
    overrides: tuple[str, ...],
    as_json: bool,
    out: str | None,
    trace: bool,
    fit: bool,
    replications: int | None,
) -> None:
    """Simulate the scenario in FILE and report throughput, staleness, its law and the momentum that goes with it.

    A pipeline needs no simulation: its staleness is reported exactly."""
    from asyncq import files
    from asyncq.protocols import EXACT_KINDS
    from asyncq.results.replications import replicate
    from asyncq.results.run import simulate as run_simulation
    from asyncq.scenario import Scenario
    from asyncq.text import run as report

    if trace and out is None:
        raise ScenarioError("--trace needs a place to write to; add --out DIR")
    if trace and replications is not None:
        raise ScenarioError("--trace goes with a single run; remove it, or --replications")
    scenario = Scenario.from_toml(file, overrides=overrides)
    exact = scenario.protocol.kind in EXACT_KINDS
    if exact and (trace or replications is not None):
        raise ScenarioError(f"{file}: kind {scenario.protocol.kind} is not simulated; remove --trace or --replications")
    if fit and (exact or replications is not None):
        raise ScenarioError("--fit goes with a single simulated run; remove it, or --replications")
    folder = None if out is None else output_folder(out)
    interrupted = False
    if exact:
        from asyncq.theory.queueing.pipeline import Pipeline

        pipeline = Pipeline.of(scenario)
        summary, text = pipeline.to_dict(), report.render_pipeline(pipeline)
    else:
        with stop_on_interrupt() as stopped, progress(scenario, engine, updates, replications or 1) as show:

            def on_chunk(done: int) -> bool:
                show.updates(done)
                return stopped()

            if replications is None:
                run = run_simulation(
                    scenario,
                    engine=engine,
                    seed=seed,
                    updates=updates,
                    trace=trace,
                    on_chunk=on_chunk,
                    on_precision=show.precision,
                )
                laws = run.fit_laws() if fit else ()
                summary, text = run.to_dict(laws=laws), report.render(run, laws=laws, ascii_only=ascii_only())
                interrupted = run.interrupted
            else:
                seen = replicate(
                    scenario,
                    replications=replications,
                    engine=engine,
                    seed=seed,
                    updates=updates,
                    on_chunk=on_chunk,
                )
                summary, text = seen.to_dict(), report.render_replications(seen, ascii_only=ascii_only())
                interrupted = seen.interrupted
    if folder is not None:
        if exact or replications is not None:
            files.write_summary(summary, folder)
        else:
            files.write_run(run, folder, laws=laws)
    click.echo(dumps(summary) if as_json else text, nl=as_json)
    if interrupted:
        sys.exit(INTERRUPTED)
