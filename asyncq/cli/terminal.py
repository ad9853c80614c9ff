"""What commands share: exit codes, output folders, Ctrl-C, the progress bar."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from asyncq.errors import ScenarioError

if TYPE_CHECKING:
    from asyncq.scenario import Scenario

__all__ = [
    "BAD_INPUT",
    "FAILED",
    "INTERRUPTED",
    "ascii_only",
    "output_folder",
    "progress",
    "steps_bar",
    "stop_on_interrupt",
]

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
STARTING = "starting (a new protocol is compiled once, about 4 s)"
SIMULATING = "simulating"


def output_folder(out: str) -> Path:
    """The folder named with ``--out``, made if need be; raises ``ScenarioError`` where it cannot be."""
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ScenarioError(f"--out must name a folder (got {out!r}, which is a file); give another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScenarioError(f"--out {out!r} cannot be made: {error.strerror}; give another place") from None
    return folder


def ascii_only() -> bool:
    """Whether standard output takes no more than ASCII."""
    return not (sys.stdout.encoding or "ascii").lower().startswith("utf")


@contextlib.contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks the run to end after its current chunk. Before the first chunk (reading, compiling) there is nothing
    to keep, and a second Ctrl-C means it: both end the program."""
    asked: list[int] = []
    under_way: list[bool] = []

    def ask(number: int, _: object) -> None:
        asked.append(number)  # first: a compiler may swallow what is raised, and then the first chunk is the last
        if len(asked) > 1 or not under_way:
            raise KeyboardInterrupt

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
def progress(scenario: Scenario, engine: str, updates: int | None, replications: int) -> Iterator[_Shown]:
    """A progress bar on standard error, on a terminal only; it covers all replications. Until the first rows arrive it
    says that a kernel may be compiled, if one is needed."""
    if not sys.stderr.isatty():
        yield _Shown(lambda done: None, lambda width: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from asyncq.results.run import foreseen, runs_compiled
    from asyncq.system.machines import NEVER
    from asyncq.system.network import Network

    network, until = Network.of(scenario), scenario.run.until
    target = foreseen(network, scenario.run.updates if updates is None else updates, NEVER if until is None else until)
    compiled = runs_compiled(network, engine, target)
    total = target * replications
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(STARTING if compiled else SIMULATING, total=total)
        words = [SIMULATING]

        def precision(width: float) -> None:
            now = f"{width:.2%}" if width < 10 else "unknown"
            words[0] = f"{SIMULATING}, half-width now {now}"

        def report(done: int) -> None:
            bar.update(task, completed=min(done, total), description=words[0])

        yield _Shown(report, precision)


@contextlib.contextmanager
def steps_bar() -> Iterator[Callable[[int, int, str], None]]:
    """A bar of steps on standard error, on a terminal only: how many are done, of how many, and what is under way."""
    if not sys.stderr.isatty():
        yield lambda done, total, what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading")
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
