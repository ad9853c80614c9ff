"""asyncq verify."""

from __future__ import annotations

import sys
from itertools import count
from typing import TYPE_CHECKING

import click

from asyncq.cli import options
from asyncq.cli.terminal import FAILED, INTERRUPTED, progress_bar, say
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
""",
)
@click.option("--quick", is_flag=True, help="Less of everything: under a minute, kernels compiled for the first time.")
@options.seed("Seed of all random streams.", default=1, show_default=True)
@options.as_json
def verify(quick: bool, seed: int, as_json: bool) -> None:
    """Check on this machine what asyncq claims of itself: exact laws against simulation, conservation laws, level and
    coverage of its statistics, closed forms. Each claim with its figure, interval, false-alarm rate and verdict."""
    from asyncq import __version__
    from asyncq.verification import FALSE_ALARM, claims, table
    from asyncq.verification import verify as measure

    wanted = claims(quick=quick)
    findings: list[Finding] = []
    interrupted = False
    show = (lambda text: None) if as_json else say
    try:
        with progress_bar() as bar:
            numbers = count()

            def on_claim(claim: Claim) -> None:
                bar(next(numbers), len(wanted), claim.name)

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
        say(dumps(summary))
    if interrupted:
        sys.exit(INTERRUPTED)
    if not all(finding.holds for finding in findings):
        sys.exit(FAILED)

