"""Statistical validation suite: each claim of asyncq about itself, measured on this machine, with a verdict.

The false-alarm rate holds for all claims jointly (Bonferroni): a correct program fails with probability at most
``FALSE_ALARM``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from asyncq.system.variates import chosen_seed
from asyncq.verification.claim import Claim, Effort, Evidence, Finding
from asyncq.verification.computed import COMPUTED
from asyncq.verification.simulated import SIMULATED

__all__ = ["CLAIMS", "FALSE_ALARM", "Claim", "Effort", "Evidence", "Finding", "claims", "verify"]

CLAIMS: tuple[Claim, ...] = (*COMPUTED, *SIMULATED)
FALSE_ALARM = 1e-3  # of all claims together


def claims(*, quick: bool = False) -> tuple[Claim, ...]:
    """All claims, or only the quick ones (a minute in all)."""
    return tuple(claim for claim in CLAIMS if claim.quick or not quick)


def verify(
    *, quick: bool = False, seed: int = 1, on_claim: Callable[[Claim], None] | None = None
) -> Iterator[Finding]:
    """Measure the claims in turn. ``on_claim`` is called before each; a claim takes up to some seconds.

    Raises ``ScenarioError`` for a seed that is not a whole number from 0 on."""
    wanted = claims(quick=quick)
    effort = Effort(quick, chosen_seed(seed))
    level = FALSE_ALARM / sum(claim.chance for claim in wanted)
    for claim in wanted:
        if on_claim is not None:
            on_claim(claim)
        yield Finding(claim, claim.measure(claim.oracle, effort), level if claim.chance else 0.0)
