"""The command line: parses, calls one public function, prints."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from asyncq import __version__
from asyncq.errors import AsyncqError, ScenarioError

if TYPE_CHECKING:
    from asyncq.scenario import Scenario

__all__ = ["main"]

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
STARTING = "starting (a new protocol is compiled once, about 4 s)"
SIMULATING = "simulating"


class _Group(click.Group):
    """Commands whose deliberate errors become one clear message and an exit code, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ScenarioError as error:
            for problem in error.problems:
                click.echo(f"error: {problem}", err=True)
            ctx.exit(BAD_INPUT)
        except AsyncqError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(FAILED)
        except KeyboardInterrupt:
            click.echo("interrupted; nothing was written", err=True)
            ctx.exit(INTERRUPTED)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: asyncq simulate scenarios/quickstart.toml",
)
@click.version_option(__version__, prog_name="asyncq")
def main() -> None:
    """How stale are asynchronous gradients, and which momentum goes with that?"""


@main.command(epilog="Example: asyncq check scenarios/*.toml")
@click.argument("files", nargs=-1, required=True)
def check(files: tuple[str, ...]) -> None:
    """Validate scenario FILES without running them."""
    from asyncq.scenario import Scenario

    problems: list[str] = []
    for file in files:
        try:
            scenario = Scenario.from_toml(file)
        except ScenarioError as error:
            problems.extend(error.problems)
        else:
            click.echo(f"{file}: ok ({scenario.workers} workers, {scenario.protocol.kind})")
    if problems:
        raise ScenarioError(problems)


@main.command(epilog="Example: asyncq init k-async > my.toml")
@click.argument("kind", default="asynchronous")
@click.option("--out", metavar="FILE", help="Write to FILE, which must not exist yet.")
def init(kind: str, out: str | None) -> None:
    """Write a commented starter scenario of a protocol KIND (asynchronous if none is given)."""
    from asyncq.starter import starter, write_starter

    if out is None:
        click.echo(starter(kind), nl=False)
    else:
        write_starter(kind, out)
        click.echo(f"wrote {out}; next: asyncq simulate {out}", err=True)


@main.command(epilog="Example: asyncq schema > asyncq.schema.json")
def schema() -> None:
    """Print the JSON schema of a scenario file, for editors that check and complete TOML."""
    from asyncq.starter import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@main.command()
def protocols() -> None:
    """List the protocol kinds, one line each, and the keys they take."""
    from asyncq.starter import protocol_lines

    click.echo("\n".join(protocol_lines()))


@main.command(
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
    from asyncq import files, report
    from asyncq.protocols import EXACT_KINDS
    from asyncq.replications import replicate
    from asyncq.run import simulate as run_simulation
    from asyncq.scenario import Scenario

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
    folder = None if out is None else _output_folder(out)
    interrupted = False
    if exact:
        from asyncq.theory.pipeline import Pipeline

        pipeline = Pipeline.of(scenario)
        summary, text = pipeline.to_dict(), report.render_pipeline(pipeline)
    else:
        with _stop_on_interrupt() as stopped, _progress(scenario, engine, updates, replications or 1) as show:

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
                if fit:
                    run.laws  # noqa: B018  computed here, so that the report has them
                summary, text = run.to_dict(), report.render(run, ascii_only=_ascii_only())
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
                summary, text = seen.to_dict(), report.render_replications(seen)
                interrupted = seen.interrupted
    if folder is not None:
        if exact or replications is not None:
            files.write_summary(summary, folder)
        else:
            files.write_run(run, folder)
    click.echo(json.dumps(summary, allow_nan=False) if as_json else text, nl=as_json)
    if interrupted:
        sys.exit(INTERRUPTED)


@main.command(
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
    from asyncq.chart import draw, draw_schedule
    from asyncq.protocols import EXACT_KINDS
    from asyncq.scenario import Scenario

    scenario = Scenario.from_toml(file, overrides=overrides)
    folder = None if out is None else _output_folder(out)
    if scenario.protocol.kind in EXACT_KINDS:
        from asyncq.theory.pipeline import Pipeline

        schedule = Pipeline.of(scenario).schedule(updates)
        if folder is not None:
            files.write_schedule(schedule, folder)
        click.echo(draw_schedule(schedule), nl=False)
        return
    from asyncq.timeline import timeline as run_timeline

    shown = run_timeline(scenario, updates=updates, seed=seed)
    if folder is not None:
        files.write_timeline(shown, folder)
    click.echo(draw(shown, ascii_only=_ascii_only()), nl=False)


def _output_folder(out: str) -> Path:
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ScenarioError(f"--out must name a folder (got {out!r}, which is a file); give another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScenarioError(f"--out {out!r} cannot be made: {error.strerror}; give another place") from None
    return folder


def _ascii_only() -> bool:
    """Whether standard output takes no more than ASCII."""
    return not (sys.stdout.encoding or "ascii").lower().startswith("utf")


@contextlib.contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks the run to end after its current chunk. Before the first chunk (reading, compiling) there is nothing
    to keep, and a second Ctrl-C means it: both end the program."""
    asked: list[int] = []
    under_way: list[bool] = []

    def ask(number: int, _: object) -> None:
        if asked or not under_way:
            raise KeyboardInterrupt
        asked.append(number)

    def stopped() -> bool:
        under_way[:] = [True]
        return bool(asked)

    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, previous)


class _Shown(NamedTuple):
    """How to show the updates so far, and the half-width so far where a precision is asked for."""

    updates: Callable[[int], None]
    precision: Callable[[float], None]


@contextlib.contextmanager
def _progress(
    scenario: Scenario, engine: str, updates: int | None, replications: int
) -> Iterator[_Shown]:
    """A progress bar on standard error, on a terminal only; it covers all replications. Until the first rows arrive it
    says that a kernel may be compiled, if one is needed."""
    if not sys.stderr.isatty():
        yield _Shown(lambda done: None, lambda width: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from asyncq.network import Network
    from asyncq.run import runs_compiled

    target = scenario.run.updates if updates is None else updates
    compiled = runs_compiled(Network.of(scenario), engine, target)
    total = target * replications
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(STARTING if compiled else SIMULATING, total=total)
        words = [SIMULATING]

        def precision(width: float) -> None:
            now = f"{width:.2%}" if width < 10 else "unknown"
            words[0] = f"{SIMULATING}, half-width now {now}"

        def report(done: int) -> None:
            progress.update(task, completed=min(done, total), description=words[0])

        yield _Shown(report, precision)
