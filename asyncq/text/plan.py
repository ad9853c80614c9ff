"""A plan for people: the answers and one table, in the terminal and as Markdown. Computes nothing."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator

from asyncq import __version__
from asyncq.formats import number
from asyncq.planner import Plan, PlanRow

__all__ = ["markdown", "render"]

WIDTH = 100
HEAD = (
    "candidate", "updates/s", "stale", "99 %", "waits", "T_m/T_1", "I_m/I_1", "momentum", "rate", "margin", "updates",
    "", "time", "95 %", "cost",
)  # fmt: skip
NOTES = (
    "stale, 99 %: mean and 99 % quantile of the staleness, in updates. waits: share of machine time lost to waiting.",
    "T_m/T_1, I_m/I_1: time per update and updates to the target over one worker's. time: over one worker's.",
    "rate: learning rate{unit}. margin: the largest stable one over it.",
    "updates: x exact; r replayed, theory agrees; m theory alone (independent staleness). R, X: the two differ.",
    "a * marks a learning rate that was lowered because the trace did not bear theory's.",
)


def render(plan: Plan, *, ascii_only: bool = False) -> str:
    """The answers, and one line for every candidate, the fastest first."""
    bullet = "-" if ascii_only else "•"
    lines = [f"{plan.scenario.name}: {len(plan.rows)} candidates; seed {plan.seed}, asyncq {__version__}", ""]
    for answer in plan.answers:
        lines += textwrap.wrap(answer, WIDTH, initial_indent=f"{bullet} ", subsequent_indent="  ")
    table = [HEAD, *(_cells(row, _unit(plan)) for row in plan.ranked)]
    widths = [max(len(cells[i]) for cells in table) for i in range(len(HEAD))]
    lines.append("")
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else " "
    for cells in table:
        words = [cell.ljust(width) if i == 0 else cell.rjust(width)
                 for i, (cell, width) in enumerate(zip(cells, widths, strict=True))]  # fmt: skip
        lines.append(gap.join(words).rstrip())
    lines += ["", f"cost in {_cost_unit(plan)}", *_notes(plan)]
    for text in _left_out(plan):
        lines += textwrap.wrap(f"left out: {text}", WIDTH, subsequent_indent="  ")
    return "\n".join(lines) + "\n"


def markdown(plan: Plan) -> str:
    """The same as Markdown."""
    lines = [f"# {plan.scenario.name}", "", *(f"- {answer}" for answer in plan.answers), ""]
    head = [word or "source" for word in HEAD]
    lines.append("| " + " | ".join(head) + " |")
    lines.append("|---" + "|---:" * (len(head) - 1) + "|")
    for row in plan.ranked:
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(row, _unit(plan))) + " |")
    lines += ["", f"Cost in {_cost_unit(plan)}. Seed {plan.seed}, asyncq {__version__}.", "", *_notes(plan)]
    lines += [f"\nLeft out: {text}." for text in _left_out(plan)]
    return "\n".join(lines) + "\n"


def _unit(plan: Plan) -> float:
    """What learning rates are divided by: one worker's best where the curvature is a guess."""
    return plan.one_worker["learning_rate"] if plan.problem.is_guess else 1.0


def _notes(plan: Plan) -> Iterator[str]:
    unit = " over one worker's best" if plan.problem.is_guess else ""
    return (note.replace("{unit}", unit) for note in NOTES)


def _cells(row: PlanRow, unit: float) -> tuple[str, ...]:
    seen, ends = row.hardware, row.relative.ci95
    mark = {"exact": "x", "model": "m", "replay": "r"}[row.source]
    mark = mark.upper() if row.agrees is False else mark
    lowered = row.confirmation is not None and row.confirmation.lowered
    interval = "exact" if row.relative.exact else f"{ends[0]:.3g}-{ends[1]:.3g}" if ends else "-"
    return (
        row.name + (" (added)" if row.candidate.added else ""),
        f"{seen.throughput.mean:.3g}",
        f"{seen.law.mean:.3g}",
        f"{seen.stale99}",
        f"{100 * seen.waiting:.0f}%",
        f"{row.hardware_efficiency:.3g}",
        _number(row.statistical_efficiency),
        f"{row.tuned.momentum:+.2f}",
        f"{row.learning_rate / unit:.2g}{'*' if lowered else ''}",
        _number(row.tuned.margin),
        _number(row.updates, whole=True),
        mark,
        _number(row.relative.mean),
        interval,
        _number(row.cost.mean),
    )


def _left_out(plan: Plan) -> Iterator[str]:
    """What is impossible for the same reason but for its numbers, in one text."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for text in plan.left_out:
        name, _, reason = text.partition(": ")
        alike.setdefault(re.sub(r"\d+", "", reason), []).append((name, reason))
    for found in alike.values():
        names = "; ".join(name for name, _ in found[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        yield f"{names}{more}: {found[0][1]}"


def _cost_unit(plan: Plan) -> str:
    return plan.rows[0].cost.unit.removeprefix("in ")


def _number(value: float, *, whole: bool = False) -> str:
    if not math.isfinite(value):
        return "never"
    return f"{value:,.0f}" if whole else number(value, 3)
