"""A claim of asyncq about itself, what was measured, and whether the two agree."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncq.jsonable import record

__all__ = ["Claim", "Effort", "Evidence", "Finding"]


@dataclass(frozen=True)
class Effort:
    """How much to simulate, and the seed that everything is drawn from."""

    quick: bool
    seed: int

    def of(self, quick: int, full: int) -> int:
        """One of two sizes."""
        return quick if self.quick else full

    def seed_of(self, name: str) -> int:
        """The seed of one claim: no two claims share their random numbers unless they share a name."""
        return int(np.random.SeedSequence([self.seed, zlib.crc32(name.encode())]).generate_state(1)[0])


@dataclass(frozen=True)
class Evidence:
    """What was measured: ``value`` of ``figure`` with its 95 % interval (None for an exact result), from ``size``.

    With a ``p_value`` (of the claim being true) the claim fails where that is below its false-alarm rate; without one
    no chance is involved, and it fails where ``value`` is above ``bound``."""

    figure: str
    value: float
    size: str
    ci95: tuple[float, float] | None = None
    p_value: float | None = None
    bound: float = 0.0


@dataclass(frozen=True)
class Claim:
    """What asyncq claims: ``says`` in words, ``source`` of the ``oracle`` (page and equation, or paper).

    ``measure(oracle, effort)`` compares the oracle with an engine, or with a second way to compute it. ``wrong`` is an
    oracle that is off by a little: with it the claim must fail, which tests make sure of. ``chance`` says whether a
    right program can fail. Claims that are not ``quick`` need more time than a minute allows for all."""

    name: str
    says: str
    source: str
    oracle: Any
    wrong: Any
    measure: Callable[[Any, Effort], Evidence]
    chance: bool = True
    quick: bool = True


@dataclass(frozen=True)
class Finding:
    """A claim with its evidence; ``false_alarm`` is the chance that a right program fails here."""

    claim: Claim
    evidence: Evidence
    false_alarm: float

    @property
    def holds(self) -> bool:
        """Whether the evidence is compatible with the claim."""
        p_value = self.evidence.p_value
        return self.evidence.value <= self.evidence.bound if p_value is None else p_value >= self.false_alarm

    @property
    def verdict(self) -> str:
        """"pass" or "FAIL"."""
        return "pass" if self.holds else "FAIL"

    def to_dict(self) -> dict[str, Any]:
        """As JSON; None for a number that is not finite."""
        evidence = self.evidence
        return record({
            "name": self.claim.name,
            "says": self.claim.says,
            "source": self.claim.source,
            "figure": evidence.figure,
            "value": evidence.value,
            "ci95": evidence.ci95,
            "size": evidence.size,
            "p_value": evidence.p_value,
            "bound": None if evidence.p_value is not None else evidence.bound,
            "false_alarm": self.false_alarm,
            "verdict": self.verdict,
        })  # fmt: skip
