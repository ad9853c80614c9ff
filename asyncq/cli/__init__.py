"""The command line: parses, calls one public function, prints. One module per command, or per few small ones."""

from __future__ import annotations

from typing import Any

import click

from asyncq import __version__
from asyncq.cli.plan import plan
from asyncq.cli.predict import predict
from asyncq.cli.recommend import recommend
from asyncq.cli.reproduce import reproduce
from asyncq.cli.simulate import simulate
from asyncq.cli.stability import stability
from asyncq.cli.terminal import BAD_INPUT, FAILED, INTERRUPTED
from asyncq.cli.timeline import timeline
from asyncq.cli.verify import verify
from asyncq.cli.writing import check, init, protocols, schema
from asyncq.errors import AsyncqError, InputError

__all__ = ["main"]


class _Group(click.Group):
    """Commands whose deliberate errors become one clear message and an exit code, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
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
    epilog="""\b
Start with:
  asyncq simulate scenarios/quickstart.toml
  asyncq plan scenarios/plans/slow-machine.toml
""",
)
@click.version_option(__version__, prog_name="asyncq")
def main() -> None:
    """How stale are asynchronous gradients, and which momentum goes with that?"""


for command in (
    check, init, plan, predict, protocols, recommend, reproduce, schema, simulate, stability, timeline, verify,
):  # fmt: skip
    main.add_command(command)
