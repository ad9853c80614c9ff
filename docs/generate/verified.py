"""Write docs/verification.md: the findings of `asyncq verify`.

Run it after a change to an engine, a rule, a formula or a claim: ``python docs/generate/verified.py``. The page is the
same for the same seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from asyncq.verification import FALSE_ALARM, Finding, claims, table, verify
from asyncq.verification.computed import COMPUTED

PAGE = Path(__file__).parents[1] / "verification.md"
SEED = 2026
HEAD = """\
# Verification

`asyncq verify` measures on your machine what asyncq claims, and says of each claim whether it holds:

```console
$ asyncq verify --quick
```

This takes less than a minute on two cores; without `--quick` everything is ten times as long. `--seed` draws other
random numbers, `--json` prints the findings for other programs. The exit code is 1 if a claim fails. Ctrl-C keeps the
finished findings.

- **Exact laws** are compared with the compiled engine by a chi-square test on all cells in which 100 gradients or more
  are expected. Successive gradients are dependent, so the statistic is scaled by the covariance between consecutive
  parts of the run. The figure is the total variation distance with its 95 % interval, corrected for the distance due
  to chance.
- **Throughput** is compared over 16 independent replications (Student's test).
- **Identities** hold in integers, or to the last bit: no chance is involved.
- **Level and coverage** are shares of independent runs. The claim is that they lie between two bounds; the test is
  exact (binomial).
- **Closed forms** are compared with a second way to compute the same number.

**{held} of {total} claims hold** (seed {seed}). {chance} of them are subject to chance. A right program fails at least
one of these in {false_alarm:.1%} of runs: each fails below p = {each:.1e} (Bonferroni). Every claim also has a wrong
oracle, off by a little, with which it must fail: `tests/verification/test_verification_long.py` checks that, and
repeats the quick run for other seeds.

`docs/generate/verified.py` writes this page. The oracles cite pages of `docs/` and their equations.
"""


def page(findings: list[Finding]) -> str:
    """The text of the page."""
    chance = sum(finding.claim.chance for finding in findings)
    text = HEAD.format(
        held=sum(finding.holds for finding in findings),
        total=len(findings),
        seed=SEED,
        chance=chance,
        false_alarm=FALSE_ALARM,
        each=FALSE_ALARM / chance,
    )
    heading = attrgetter("claim.chance", "claim.says")
    exact = [finding for finding in findings if finding.claim in COMPUTED]
    text += "\n## Closed forms, each computed in two ways\n\n"
    text += "| claim | oracle | what is claimed | figure | must be | verdict |\n|---|---|---|---|---|---|\n"
    for finding in exact:
        claim, evidence = finding.claim, finding.evidence
        text += f"| {claim.name} | {claim.source} | {claim.says} | {evidence.figure} {table.figure(finding)} "
        text += f"| {table.test(finding)} | {finding.verdict} |\n"
    for (_, says), group in groupby(findings[len(exact) :], key=heading):
        text += "".join(section(says, list(group)))
    return text


def section(says: str, group: list[Finding]) -> Iterator[str]:
    """A heading with the claim, and a table with a line for each finding."""
    yield f"\n## {says[0].upper()}{says[1:]}\n\n"
    yield f"| claim | oracle | {group[0].evidence.figure} | test | from | verdict |\n|---|---|---:|---|---|---|\n"
    for finding in group:
        claim, size = finding.claim, finding.evidence.size
        yield f"| {claim.name} | {claim.source} | {table.figure(finding)} | {table.test(finding)} | {size} "
        yield f"| {finding.verdict} |\n"


if __name__ == "__main__":
    everything = list(verify(seed=SEED))
    assert len(everything) == len(claims())
    PAGE.write_text(page(everything), encoding="utf-8")
