"""Claims by name, in the order of the papers, and the call that computes a claim."""

from __future__ import annotations

from asyncq.distributions.declaration import nearest
from asyncq.errors import ScenarioError
from asyncq.papers import giladi, giladi_replay, liu, mitliagkas, mitliagkas_replay
from asyncq.papers.claim import PaperClaim, Progress, Reproduction
from asyncq.system.variates import chosen_seed

__all__ = ["CLAIMS", "claim", "reproduce"]

_MODULES = (mitliagkas, mitliagkas_replay, giladi, giladi_replay, liu)
CLAIMS: dict[str, PaperClaim] = {claim.name: claim for module in _MODULES for claim in module.CLAIMS}


def claim(name: str) -> PaperClaim:
    """Claim by name. Raises ``ScenarioError`` for an unknown name."""
    if name not in CLAIMS:
        raise ScenarioError(f"reproduce: there is no claim of this name (got {name!r}); {nearest(name, [*CLAIMS])}")
    return CLAIMS[name]


def reproduce(name: str, *, seed: int = 1, progress: Progress | None = None) -> Reproduction:
    """Recompute a claim and judge it; ``progress`` is called with the share done.

    Raises ``ScenarioError`` for an unknown name or a negative seed."""
    found = claim(name)
    findings = found.compute(chosen_seed(seed), progress or (lambda share: None))
    return Reproduction(found, None if found.exact else seed, findings)
