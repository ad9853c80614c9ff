"""asyncq verify."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from asyncq.cli.terminal import FAILED, INTERRUPTED
from asyncq.jsonable import dumps

if TYPE_CHECKING:
    from asyncq.verification import Claim, Finding

__all__ = ["verify"]


@click.command(
    short_help="Check here what asyncq claims of itself.",
    epilog="""\b
Examples:
  asyncq verify --quick
  asyncq verify --seed 7 --json > verification.json
\b
Exit code: 0 if every claim holds, 1 if one fails.
"""
)
@click.option("--quick", is_flag=True, help="Less of everything: under a minute, kernels compiled for the first time.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of all random streams.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON and nothing else.")
def verify(quick: bool, seed: int, as_json: bool) -> None:
    """Check on this machine what asyncq claims of itself: exact laws against simulation, conservation laws, level and
    coverage of its statistics, closed forms. Each claim with its figure, interval, false-alarm rate and verdict."""
    from asyncq import __version__
    from asyncq.verification import FALSE_ALARM, claims, table
    from asyncq.verification import verify as measure

    wanted = claims(quick=quick)
    findings: list[Finding] = []
    interrupted = False
    show = (lambda text: None) if as_json else click.echo
    try:
        with _progress(len(wanted)) as on_claim:
            for finding in measure(quick=quick, seed=seed, on_claim=on_claim):
                if not findings:
                    show(table.head(wanted, seed=seed, false_alarm=FALSE_ALARM))
                show(table.row(finding, findings[-1] if findings else None))
                findings.append(finding)
    except KeyboardInterrupt:
        interrupted = True
    show(f"\n{table.foot(findings, len(wanted))}")
    if as_json:
        summary = {
            "schema": 1, "version": __version__, "seed": seed, "quick": quick, "interrupted": interrupted,
            "false_alarm": FALSE_ALARM, "findings": [finding.to_dict() for finding in findings],
        }  # fmt: skip
        click.echo(dumps(summary))
    if interrupted:
        sys.exit(INTERRUPTED)
    if not all(finding.holds for finding in findings):
        sys.exit(FAILED)


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[Claim], None]]:
    """A bar over all claims on standard error, on a terminal only, with the name of the one that is measured."""
    if not sys.stderr.isatty():
        yield lambda claim: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    # rich would take standard output to the bar's console even where that is a file
    options = {"transient": True, "redirect_stdout": sys.stdout.isatty()}
    with Progress(*columns, console=Console(stderr=True), **options) as bar:  # type: ignore[arg-type]
        task = bar.add_task("", total=total)
        begun = [-1]

        def on_claim(claim: Claim) -> None:
            begun[0] += 1
            bar.update(task, completed=begun[0], description=claim.name)

        yield on_claim
