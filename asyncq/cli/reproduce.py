"""asyncq reproduce."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator

import click

from asyncq.cli.terminal import FAILED, INTERRUPTED, output_folder
from asyncq.errors import ScenarioError
from asyncq.jsonable import dumps

__all__ = ["reproduce"]


@click.command(
    short_help="Compute the papers' figures and theorems again.",
    epilog="""\b
Examples:
  asyncq reproduce
  asyncq reproduce giladi-fig6
  asyncq reproduce liu-fig1 --seed 7 --json > liu-fig1.json
  asyncq reproduce all --out reproduced
\b
Exit code: 0 if every number is reproduced or differs from the paper's in the way the theory says it must;
1 if one is neither.
"""
)
@click.argument("names", metavar="[NAME...|all]", nargs=-1)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the random streams.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON, a list, and nothing else.")
@click.option("--out", metavar="DIR", help="Write NAME.json and figures (NAME.png, NAME.svg) to DIR.")
def reproduce(names: tuple[str, ...], seed: int, as_json: bool, out: str | None) -> None:
    """Compute the figures and theorems of the papers again, and judge them: the paper's number, ours, the tolerance
    and the verdict. Without a NAME: list what there is."""
    from asyncq import files
    from asyncq.papers.registry import CLAIMS, claim
    from asyncq.papers.registry import reproduce as compute
    from asyncq.text import run as report

    if not names:
        if out is not None:
            raise ScenarioError("--out needs something to write; name a claim, or all")
        listed = [{"name": c.name, "paper": c.paper, "place": c.place, "says": c.says} for c in CLAIMS.values()]
        click.echo(dumps(listed) if as_json else report.render_claims(CLAIMS.values()), nl=as_json)
        return
    wanted = list(CLAIMS) if "all" in names else list(dict.fromkeys(names))
    for name in wanted:
        claim(name)
    folder = None if out is None else output_folder(out)
    done, interrupted = [], False
    with _progress(wanted) as show:
        try:
            for name in wanted:
                done.append(compute(name, seed=seed, progress=functools.partial(show, name)))
                if folder is not None:
                    files.write_reproduction(done[-1], folder)
        except KeyboardInterrupt:
            interrupted = True
    if as_json:
        click.echo(dumps(done))
    else:
        parts = [report.render_reproduction(seen) for seen in done]
        click.echo("\n".join([*parts, report.render_verdicts(done)] if len(done) > 1 else parts), nl=False)
    if interrupted:
        kept = "" if folder is None else f"; their files are in {folder}"
        click.echo(f"interrupted after {len(done)} of {len(wanted)}{kept}", err=True)
        sys.exit(INTERRUPTED)
    if any(seen.verdict == "failed" for seen in done):
        sys.exit(FAILED)


@contextlib.contextmanager
def _progress(names: list[str]) -> Iterator[Callable[[str, float], None]]:
    """A bar over all claims on standard error, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda name, share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(names[0], total=len(names))
        yield lambda name, share: bar.update(task, description=name, completed=names.index(name) + share)
