"""asyncq predict."""

from __future__ import annotations

from typing import Any

import click

from asyncq.cli.terminal import ascii_only, output_folder
from asyncq.jsonable import dumps

__all__ = ["predict"]


@click.command(
    short_help="What theory knows of a scenario, without a simulation.",
    epilog="""\b
Examples:
  asyncq predict scenarios/quickstart.toml
  asyncq predict scenarios/language-model.toml --set replicas.workers=64
  asyncq predict scenarios/k-async.toml --json --out results
"""
)
@click.argument("file")
@click.option("--set", "overrides", metavar="PATH=VALUE", multiple=True, help="Override a key of the file; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the prediction as JSON and nothing else.")
@click.option("--out", metavar="DIR", help="Write summary.json, staleness.csv and figures (PNG, SVG) to DIR.")
def predict(file: str, overrides: tuple[str, ...], as_json: bool, out: str | None) -> None:
    """Say what theory knows of the scenario in FILE, without a simulation: the exact law of its staleness, the momentum
    that goes with it, and throughput, exact or between bounds.

    Where no exact law is known the reason is given, and the nearest scenario that has one."""
    from asyncq import files
    from asyncq.protocols import EXACT_KINDS
    from asyncq.scenario import Scenario
    from asyncq.text import run as report

    scenario = Scenario.from_toml(file, overrides=overrides)
    folder = None if out is None else output_folder(out)
    summary: dict[str, Any]
    if scenario.protocol.kind in EXACT_KINDS:
        from asyncq.theory.queueing.pipeline import Pipeline

        pipeline = Pipeline.of(scenario)
        summary, text = pipeline.to_dict(), report.render_pipeline(pipeline)
        if folder is not None:
            files.write_summary(summary, folder)
    else:
        from asyncq.theory.prediction import predict as find

        found = find(scenario)
        summary, text = found.to_dict(), report.render_prediction(found, ascii_only=ascii_only())
        if folder is not None:
            files.write_prediction(found, folder)
    click.echo(dumps(summary) if as_json else text, nl=as_json)
