"""Claims of the papers, their recomputed values, and the comparison of both.

Every verdict is computed from the numbers of a `Comparison`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asyncq.errors import old_names
from asyncq.jsonable import record

__all__ = [
    "Comparison",
    "Findings",
    "Line",
    "Panel",
    "PaperClaim",
    "Progress",
    "Reproduction",
    "Verdict",
    "line",
    "verdict",
]

Real = NDArray[np.float64]
Relation = Literal["=", "<=", ">="]
Verdict = Literal["reproduced", "analogue", "differs", "failed", "reported"]
Whose = Literal["paper", "ours", "theory"]
Look = Literal["line", "points", "area"]
Progress = Callable[[float], None]
WORST: tuple[Verdict, ...] = ("failed", "differs", "analogue", "reproduced", "reported")  # a claim's is the first found


@dataclass(frozen=True)
class Comparison:
    """A number of a paper compared with ours.

    ``relation`` reads "ours is = (at most, at least) the paper's", within ``tolerance`` in the number's unit; an
    inequality must hold for the whole interval. ``basis`` gives the source of the tolerance. ``theory`` replaces
    a paper's number that does not hold or is missing: ours must agree with it. With neither, the number is only shown.
    ``interval`` is 95 %, None for an exact result. ``analogue``: ours is of a small problem that stands in for the
    paper's; agreement then says that the statement holds there too, and is not called a reproduction.
    """

    what: str
    paper: float | None
    ours: float
    tolerance: float = 0.0
    basis: str = ""
    relation: Relation = "="
    theory: float | None = None
    interval: tuple[float, float] | None = None
    analogue: bool = False

    @property
    def verdict(self) -> Verdict:
        """``reproduced``, or ``analogue`` for a problem that stands in for the paper's; ``differs`` where the paper's
        number does not hold and ours is the theory's; ``failed``; ``reported`` where there is nothing to compare
        with."""
        if self.theory is not None and not abs(self.ours - self.theory) <= self.tolerance:
            return "failed"
        agreed: Verdict = "analogue" if self.analogue else "reproduced"
        if self.paper is None:
            return "reported" if self.theory is None else agreed
        if self._agrees(self.paper):
            return agreed
        return "failed" if self.theory is None else "differs"

    def _agrees(self, target: float) -> bool:
        """False for a number that is not finite."""
        low, high = (self.ours, self.ours) if self.interval is None else self.interval
        if self.relation == "<=":
            return bool(high - target <= self.tolerance)
        if self.relation == ">=":
            return bool(target - low <= self.tolerance)
        return bool(abs(self.ours - target) <= self.tolerance)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return record(self, without=("analogue",), verdict=self.verdict)


@dataclass(frozen=True, eq=False)
class Line:
    """A curve or set of points: ``x``, ``y`` and, for a band or error bars, ``low`` and ``high``, all of equal shape.
    ``whose`` decides the style: the paper's lines are grey and dashed, those of theory thin."""

    label: str
    x: Real
    y: Real
    whose: Whose = "ours"
    look: Look = "line"
    low: Real | None = None
    high: Real | None = None
    group: int | None = None  # lines of one group share a colour

    def to_dict(self) -> dict[str, Any]:
        """As JSON; a missing band is left out."""
        found = record(self, without=("look", "group"))
        return {name: item for name, item in found.items() if item is not None}


def line(label: str, x: ArrayLike, y: ArrayLike, whose: Whose = "ours", look: Look = "line", **more: Any) -> Line:
    """A `Line` from arrays or sequences."""
    more = {k: np.asarray(v, dtype=np.float64) if k in ("low", "high") else v for k, v in more.items()}
    return Line(label, np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), whose, look, **more)


@dataclass(frozen=True)
class Panel:
    """A pair of axes as in the paper. ``across`` and ``upright``: pairs (number, label) of the paper, marked with
    dashed horizontal and vertical lines."""

    title: str
    xlabel: str
    ylabel: str
    lines: tuple[Line, ...]
    xscale: str = "linear"
    yscale: str = "linear"
    across: tuple[tuple[float, str], ...] = ()
    upright: tuple[tuple[float, str], ...] = ()
    xlim: tuple[float, float] | None = None
    ylim: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return record(self, without=("xscale", "yscale", "xlim", "ylim"))


@dataclass(frozen=True)
class Findings:
    """Result of computing a claim: comparisons, panels, and sentences for the page."""

    comparisons: tuple[Comparison, ...]
    panels: tuple[Panel, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperClaim:
    """A figure or theorem of a paper: its place, its statement, and its computation.

    ``compute(seed, progress)`` calls ``progress`` with the share done, 0 to 1. ``exact``: the seed is not used.
    ``analogue``: a small problem stands in for the paper's network.
    ``setting``: a sentence on what is computed and where it departs from the paper.
    """

    name: str
    paper: str
    place: str
    says: str
    setting: str
    compute: Callable[[int, Progress], Findings]
    exact: bool = False
    analogue: bool = False


@dataclass(frozen=True)
class Reproduction:
    """A claim with its findings; ``seed`` is None if it was not used."""

    claim: PaperClaim
    seed: int | None
    findings: Findings

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The comparisons, each with its verdict."""
        return tuple(replace(found, analogue=self.claim.analogue) for found in self.findings.comparisons)

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of its comparisons: failed, then differs, analogue, reproduced."""
        return verdict(*(comparison.verdict for comparison in self.comparisons))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        claim = self.claim
        return record({
            "schema": 1,
            "name": claim.name,
            "paper": claim.paper,
            "place": claim.place,
            "says": claim.says,
            "setting": claim.setting,
            "seed": self.seed,
            "verdict": self.verdict,
            "comparisons": self.comparisons,
            "notes": self.findings.notes,
            "panels": self.findings.panels,
        })  # fmt: skip


def verdict(*verdicts: Verdict) -> Verdict:
    """The worst of several; ``reported`` of none."""
    return next((worst for worst in WORST if worst in verdicts), "reported")


__getattr__ = old_names(globals(), Claim="PaperClaim")
