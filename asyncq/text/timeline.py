"""A timeline as text, for terminals and documents. Computes nothing but where things stand on the line."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from asyncq.results.timeline import DRAWN, Gradient, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncq.results.timeline import Timeline
    from asyncq.theory.queueing.pipeline import PipelineSchedule

__all__ = ["draw", "draw_schedule"]

LABEL = 14  # columns for a worker's name, at most
SYMBOLS = {"work": "█", "wire": "─", "queue": "░", "service": "▓", "waiting": "·", "cancelled": "x", "repair": "~"}
ASCII = {"work": "=", "wire": "-", "queue": ":", "service": "#", "waiting": ".", "cancelled": "x", "repair": "~"}
MEANINGS = {
    "work": "work",
    "wire": "pull or push",
    "queue": "in the server's queue",
    "service": "being served",
    "waiting": "waits before it may read again",
    "cancelled": "for nothing, cancelled or lost at X",
    "repair": "its machine is away",
}
SCHEDULE = (
    "F5 is the forward pass of minibatch 5; B5:3 is its backward pass and the stage's update, by a gradient that is 3 "
    "updates of the stage old: so many were made since F5 read the weights. Every pass takes one unit of time."
)
PREFIXES = {"committed": "", "downweighted": "/", "dropped": "x"}
STEPS = (1.0, 1.25, 2.0, 2.5, 4.0, 5.0, 8.0, 10.0)  # what a column may stand for, times a power of ten
UNITS = ((3600.0, "h", 36_000.0), (60.0, "min", 600.0), (1.0, "s", 1.0), (1e-3, "ms", 1e-3), (1e-6, "us", 0.0))
CLIENT = "client "  # before the name of a class, in what a span looks like
BEYOND = 4  # columns left for the last number of a scale
TICK = 10  # columns from one written time to the next, at least


def draw(timeline: Timeline, *, width: int = 100, ascii_only: bool = False) -> str:
    """One line per worker, scaled to time, at most ``width`` columns wide (40 or more); versions above, time below."""
    names = [name if len(name) <= LABEL else f"{name[: LABEL - 2]}.." for name in timeline.names[:DRAWN]]
    margin = max(len(name) for name in [*names, "version"]) + 2
    seconds = timeline.seconds or 1.0
    step = _nice(seconds / (max(width, 40) - margin - BEYOND))
    columns = max(1, math.ceil(seconds / step - 1e-9))
    letters = _letters(timeline.classes)
    symbols = {**(ASCII if ascii_only else SYMBOLS), **letters}
    lines = [[" "] * columns for _ in names]
    for span in timeline.spans:
        if span.worker < len(names):
            first, last = (math.ceil(time / step - 0.5 - 1e-9) for time in (span.began, span.ended))
            lines[span.worker][first:last] = symbols[_look(span)] * (min(last, columns) - first)
    for cycle in timeline.cycles:
        if cycle.cancelled and cycle.worker < len(names) and cycle.ended > cycle.began:
            lines[cycle.worker][math.ceil(cycle.ended / step - 1e-9) - 1] = "X"
    notes = _mark(lines, timeline.gradients, step)
    seen = {_look(span) for span in timeline.spans if span.worker < len(names)}
    meanings = {**{look: f"work of {look.removeprefix(CLIENT)}" for look in letters}, **MEANINGS}
    legend = [f"{symbols[look]} {meaning}" for look, meaning in meanings.items() if look in seen]
    size, unit = next((size, unit) for size, unit, least in UNITS if seconds >= least)
    drawing = [
        ("version", _written([(0.0, "0"), *_versions(timeline.updates, step)], step, columns)),
        *((name, "".join(line)) for name, line in zip(names, lines, strict=True)),
        (unit, _written(_times(seconds, step, size), step, columns)),
    ]
    text = [timeline.title, "", *(f"{name:<{margin}}{line}".rstrip() for name, line in drawing), ""]
    words = "   ".join(word.replace(" ", "\0") for word in [*legend, f"one column is {step / size:.6g} {unit}"])
    wrapped = textwrap.wrap(words, max(width, 40), break_long_words=False)
    return "\n".join([*text, *(line.replace("\0", " ") for line in wrapped), *notes]) + "\n"


def _look(span: Span) -> str:
    if span.cancelled:
        return "cancelled"
    if span.stage == "work" and span.client is not None:
        return CLIENT + span.client
    return "wire" if span.stage in ("pull", "push") else span.stage


def _letters(classes: Sequence[str]) -> dict[str, str]:
    """How the work of every class of clients looks: its first letter, if no other's is the same."""
    first = [name[0].lower() for name in classes]
    usual = len(set(first)) == len(first) and all(letter.isalpha() and letter != "x" for letter in first)
    letters = first if usual else [chr(ord("a") + number % 23) for number in range(len(classes))]
    return {CLIENT + name: letter for name, letter in zip(classes, letters, strict=True)}


def _nice(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (*STEPS, 100.0) if step * power >= least * (1 - 1e-9))


def _mark(lines: list[list[str]], gradients: Sequence[Gradient], step: float) -> list[str]:
    """Write every gradient's staleness where its worker was done with it; what there is to say about the marks."""
    last: dict[int, tuple[int, int]] = {}  # by worker: where its last mark stands
    kinds, several, early = set(), False, False
    for gradient in sorted(gradients, key=lambda gradient: gradient.left):
        if gradient.fate not in PREFIXES or gradient.worker >= len(lines):
            continue
        kinds.add(gradient.fate)
        early = early or gradient.left < gradient.time
        mark = f"{PREFIXES[gradient.fate]}{gradient.staleness}"
        line = lines[gradient.worker]
        end = max(math.ceil(gradient.left / step - 1e-9), len(mark))
        start = end - len(mark)
        before, until = last.get(gradient.worker, (0, -1))
        if start <= until:  # 4 and 0 side by side are not 40
            start, end, several = before, max(end, until), True
            mark = "+" * (end - start)
        line[start:end] = mark
        last[gradient.worker] = start, end
    notes = ["a digit is a commit: the number of updates since its worker's read, at the left end of the bar"]
    if early:
        notes.append("a worker that does not wait goes on behind the digit; the update comes when the version changes")
    if "dropped" in kinds:
        notes.append("x3 is a gradient that was 3 updates old and was dropped")
    if "downweighted" in kinds:
        notes.append("/3 is a gradient that was 3 updates old and was given less weight")
    if several:
        notes.append("+ stands for several commits that are too close to be told apart")
    return notes


def _versions(updates: Sequence[float], step: float) -> list[tuple[float, str]]:
    """When each version begins; of those that begin in the same column, the last."""
    last = {round(time / step): (time, str(number)) for number, time in enumerate(updates, start=1)}
    return list(last.values())


def _times(seconds: float, step: float, size: float) -> list[tuple[float, str]]:
    """Where to write which time, in units of ``size`` seconds."""
    power = 10.0 ** math.floor(math.log10(TICK * step / size))
    between = next(tick * power for tick in (1, 2, 5, 10, 20) if tick * power >= TICK * step / size * (1 - 1e-9))
    return [
        (number * between * size, f"{number * between:.6g}")
        for number in range(int(seconds / size / between + 1e-9) + 1)
    ]


def _written(words: list[tuple[float, str]], step: float, columns: int) -> str:
    """Each word from the column in which its time begins, if the one before it leaves room."""
    line = ""
    for time, word in words:
        column = round(time / step)
        if not line or len(line) < column < columns + 1:
            line = f"{line:<{column}}{word}"
    return line


def draw_schedule(schedule: PipelineSchedule, *, width: int = 100) -> str:
    """One line per stage of a pipeline, one cell per unit of time, wrapped at ``width`` columns (40 or more)."""
    words = [["."] * schedule.end for _ in range(schedule.stages)]
    for task, staleness in schedule.passes:
        word = f"F{task.minibatch + 1}" if staleness is None else f"B{task.minibatch + 1}:{staleness}"
        words[task.stage - 1][task.began] = word
    names = [f"stage {number}" for number in range(1, schedule.stages + 1)]
    margin = len(names[-1]) + 2
    cell = max(len(word) for line in words for word in line) + 1
    across = max(1, (max(width, 40) - margin) // cell)
    text = [schedule.title, ""]
    for first in range(0, schedule.end, across):
        here = range(first, min(first + across, schedule.end))
        drawing = [(name, [line[time] for time in here]) for name, line in zip(names, words, strict=True)]
        for name, row in [*drawing, ("time", [str(time) for time in here])]:
            text.append(f"{name:<{margin}}{''.join(f'{word:<{cell}}' for word in row)}".rstrip())
        text.append("")
    return "\n".join([*text, *textwrap.wrap(SCHEDULE, max(width, 40))]) + "\n"
