"""What a person reads of a recommendation, and of the step sizes that are stable. Computes nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from asyncq import __version__

if TYPE_CHECKING:
    from asyncq.theory.recommendation.recommendation import Choice, Recommendation, Rule
    from asyncq.theory.stability import StepSizes

__all__ = ["recommended", "render_recommendation", "render_step_sizes", "stable"]

WIDTH = 96
COLUMNS = 7


def recommended(found: Recommendation) -> str:
    """The whole recommendation under a plain title."""
    return render_recommendation("momentum and learning rate", found)


def stable(found: StepSizes) -> str:
    """The stable step sizes under a plain title."""
    return render_step_sizes("step sizes", found)


def render_recommendation(title: str, found: Recommendation) -> str:
    """The ceiling and what goes with today's learning rate first, then the best pair, then rules of thumb."""
    lines = [title, f"recommended, asyncq {__version__}", "", *_text("criterion", found.criterion)]
    lines += _text("staleness", f"mean {found.mean_staleness:.5g}; from {found.basis}")
    today = found.today
    lines += _text(
        "today",
        f"momentum {today.momentum:.4g}, learning rate {today.learning_rate:.4g} on one worker; condition number "
        f"{today.condition_number:.4g}, sharpness {today.sharpness:.4g}" + (" (inferred)" if today.inferred else ""),
    )
    lines += ["", "ceiling      the largest learning rate that is stable, at each momentum"]
    for start in range(0, len(found.ceiling), COLUMNS):
        rows = found.ceiling[start : start + COLUMNS]
        lines.append("  momentum   " + "".join(f"{row.momentum:>10g}" for row in rows))
        lines.append("  at most    " + "".join(f"{row.learning_rate:>10.3g}" for row in rows))
    if found.kept is None:
        lines += _text("keep", f"no momentum makes today's learning rate {today.learning_rate:.4g} stable: lower it")
    else:
        lines += _text("keep", f"learning rate {today.learning_rate:.4g}: best momentum {_choice(found.kept)}")
    best, positive = found.best, found.nonnegative
    lines += ["", *_text("retune", f"learning rate {best.learning_rate:.4g}, momentum {_choice(best)}")]
    if best.momentum < 0 and math.isfinite(positive.updates):
        cost = positive.updates / best.updates - 1
        pair = f"learning rate {positive.learning_rate:.4g}, momentum {positive.momentum:.3f}"
        lines += _text("", f"without negative momentum {pair}: {cost:.1%} more updates")
    if found.reserve:
        lines += _text("", f"{found.reserve:.0%} of the ceiling is held in reserve")
    if found.against_synchronous is not None:
        lines += _text("", _barrier(found.against_synchronous))
    lines += ["", f"{'rules':<42}{'momentum':>9}{'learning rate':>15}   times the best pair's updates"]
    lines += [_rule(rule) for rule in (*found.additive, *found.rules)]
    lines.append("")
    for number, note in enumerate(found.notes):
        lines += _text("notes" if number == 0 else "", note)
    return "\n".join(lines) + "\n"


def render_step_sizes(title: str, found: StepSizes, *, criterion: str | None = None) -> str:
    """The thresholds by both criteria or by one, and what some steps do."""
    lines = [title, f"stability, {found.variant} momentum {found.momentum:g}; asyncq {__version__}", ""]
    lines += _text("staleness", f"mean {found.mean_staleness:.5g}; from {found.basis}")
    lines += ["", "largest stable step, as learning rate times curvature"]
    model = "exact" if found.exact else "independent staleness, a model"
    if criterion != "expectation":
        lines.append(f"  mean square            {found.mean_square:<10.4g} {model}")
    if criterion != "mean-square":
        lines.append(
            f"  expectation            {found.expectation:<10.4g} exact, but no guide: E[w^2] may diverge far below it"
        )
    lines.append(f"  one worker             {found.one_worker:<10.4g} exact")
    lines.append(
        f"  rule of thumb          {found.rule_of_thumb:<10.4g} one worker's times pi / (4 (mean + 1/2)), [Edge] eq. 8"
    )
    lines += ["", "      step   contraction of E[w^2]   updates to halve it   noise floor   of E[w]^2"]
    for row in found.steps:
        half = f"{math.log(0.5) / math.log(row.mean_square):.4g}" if 0 < row.mean_square < 1 else "diverges"
        floor = f"{row.noise_floor:.4g}" if math.isfinite(row.noise_floor) else "none"
        lines.append(f"{row.step:>10.4g}{row.mean_square:>24.6f}{half:>22}{floor:>14}{row.expectation:>12.6f}")
    lines += [
        "",
        *_text("note", "noise floor: E[w^2] in the long run, for curvature 1 and gradient noise of variance 1"),
    ]
    return "\n".join(lines) + "\n"


def _text(heading: str, words: str) -> Sequence[str]:
    """A heading and wrapped words beside it."""
    return wrap(f"{heading:<13}{words}", WIDTH, subsequent_indent=" " * 13) if heading else _more(words)


def _more(words: str) -> Sequence[str]:
    return wrap(words, WIDTH, initial_indent=" " * 13, subsequent_indent=" " * 13)


def _choice(choice: Choice) -> str:
    return (
        f"{choice.momentum:.3f}: {choice.updates:.3g} times the updates of today's one worker; "
        f"the ceiling is {choice.margin:.3g} times the rate"
    )


def _barrier(ratio: float) -> str:
    if ratio > 1:
        return (
            "stay synchronous if gradient noise does not matter: behind a barrier, with one worker's best pair, the "
            f"same workers need 1/{ratio:.3g} of the time"
        )
    return f"with it the workers need {ratio:.3g} of the time of a barrier with one worker's best pair (without noise)"


def _rule(rule: Rule) -> str:
    cost = f"{rule.cost:.2f}" if math.isfinite(rule.cost) else "diverges"
    return f"  {rule.name:<40}{rule.momentum:>9.3f}{rule.learning_rate:>15.4g}   {cost}"
