"""Findings as text: a line for each under its claim, at most 80 columns wide."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from asyncq import __version__
from asyncq.verification.claim import Claim, Finding

__all__ = ["figure", "foot", "head", "row", "test"]


def head(wanted: Sequence[Claim], *, seed: int, false_alarm: float) -> str:
    """Heading: number of claims, and the false-alarm rate."""
    chance = sum(claim.chance for claim in wanted)
    return (
        f"{len(wanted)} claims, seed {seed}, asyncq {__version__}\n"
        f"{chance} are subject to chance: a right program fails one of them in {false_alarm:.1%} of runs\n"
        f"(each below p = {false_alarm / chance:.1e}); the others are exact, up to rounding"
    )


def row(finding: Finding, before: Finding | None) -> str:
    """Line of a finding, after its claim in words unless the finding ``before`` has the same."""
    claim = finding.claim
    name = claim.name.partition(": ")[2] or claim.name
    line = f"{finding.verdict}  {name:<38} {figure(finding):<24} {test(finding)}".rstrip()
    if before is not None and before.claim.says == claim.says:
        return line
    return "\n".join(["", *wrap(f"{claim.says}: {finding.evidence.figure}. Source: {claim.source}", 80), line])


def figure(finding: Finding) -> str:
    """Measured value with its 95 % interval."""
    evidence = finding.evidence
    interval = "" if evidence.ci95 is None else f" [{evidence.ci95[0]:.2g}, {evidence.ci95[1]:.2g}]"
    return f"{evidence.value:.{2 if interval else 3}g}{interval}"


def test(finding: Finding) -> str:
    """The p-value, or the bound of an exact figure."""
    evidence = finding.evidence
    if evidence.p_value is None:
        return "must be 0" if evidence.bound == 0 else f"< {evidence.bound:.0e}"
    return f"p {evidence.p_value:.2g}" if evidence.p_value >= 1e-6 else "p < 1e-6"


def foot(findings: Sequence[Finding], wanted: int) -> str:
    """Summary: how many claims hold, and the names of the others."""
    failed = [finding.claim.name for finding in findings if not finding.holds]
    lines = [f"INTERRUPTED: {wanted - len(findings)} claims were not measured"] if len(findings) < wanted else []
    lines.append(f"{len(findings) - len(failed)} of {len(findings)} claims hold")
    return "\n".join([*lines, *(f"FAILED {name}" for name in failed)])
