"""How large a step stale gradients allow, how fast the update then contracts, and where its noise settles.

Steps are given as learning rate times curvature (alpha h), whatever the variant; any `StalenessLaw` goes in. Two
criteria:

* ``expectation``: E[w] converges ([Edge]). True of the mean and, for variable staleness, useless in practice: with
  geometric staleness of 8 workers it calls a step of 30 stable.
* ``mean-square``: E[w^2] converges when the staleness of each gradient is drawn independently from the law. A model:
  for equal workers 10 % too low to 4 % too high (hyperexponential work of cv 3); for unequal ones too high, by 1.6
  times (one of eight ten times faster) to 3.5 times (speeds 1000 : 1, momentum .9). For exponential work ask
  `exponential_workers`, which is exact.

A single run obeys the almost-sure threshold, which is higher than the mean-square one; between the two, runs settle
but with heavy-tailed bursts. Source: docs/theory/stability.md, sections 5 and 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from asyncq.jsonable import record
from asyncq.shown import Shown
from asyncq.staleness import StalenessLaw
from asyncq.theory.descent.bracketing import bracketed_root
from asyncq.theory.descent.characteristic import Characteristic, Variant
from asyncq.theory.descent.exponential import ExponentialWorkers, exponential_workers
from asyncq.theory.descent.mean_square import AGREE, gain, unit_gain

__all__ = [
    "Criterion",
    "ExponentialWorkers",
    "Region",
    "StepSize",
    "StepSizes",
    "Threshold",
    "Variant",
    "constant_threshold",
    "exponential_workers",
    "noise_floor",
    "rate",
    "region",
    "rule_of_thumb",
    "stable_intervals",
    "step_sizes",
    "threshold",
    "thresholds",
]

Criterion = Literal["expectation", "mean-square"]
Real = NDArray[np.float64]


@dataclass(frozen=True)
class Threshold:
    """The largest safe alpha h of one law under both criteria."""

    law: str
    mean_staleness: float
    momentum: float
    variant: str
    expectation: float
    mean_square: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return record(self)


@dataclass(frozen=True, eq=False)
class Region:
    """Contraction of E[w^2] per update over a map of step sizes and momenta, with the edges of stability.

    ``rates[i, j]`` belongs to ``momenta[i]`` and ``steps[j]`` (alpha h); at or above 1 is unstable."""

    steps: Real
    momenta: Real
    rates: Real
    mean_square: Real
    expectation: Real
    variant: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return record(self)


def threshold(
    law: StalenessLaw,
    *,
    momentum: float = 0.0,
    variant: Variant = "heavy-ball",
    criterion: Criterion = "mean-square",
    curvature_variance: float = 0.0,
) -> float:
    """The first alpha h at which the update stops being stable; every smaller curvature is safe below it.

    ``curvature_variance`` is V_h / h^2, the relative variance of the curvature between gradients (already divided by
    the samples averaged); it plays no part in the expectation. Verified by winding number.

    Raises ``ValueError`` for abs(momentum) >= 1, a law cut too early or too long, a negative ``curvature_variance``;
    ``AsyncqError`` if no threshold could be verified. Source: docs/theory/stability.md.
    """
    _check(criterion, curvature_variance)
    system = Characteristic(law, momentum, variant)
    edge = system.first_crossing()
    if criterion == "mean-square":
        edge = unit_gain(system, edge, curvature_variance=curvature_variance)
    return edge / system.scale


def thresholds(law: StalenessLaw, *, momentum: float = 0.0, variant: Variant = "heavy-ball") -> Threshold:
    """Both criteria side by side, as the command line shows them."""
    system = Characteristic(law, momentum, variant)
    edge = system.first_crossing()
    safe = unit_gain(system, edge)
    return Threshold(law.name, law.mean, float(momentum), variant, edge / system.scale, safe / system.scale)


def stable_intervals(
    law: StalenessLaw, *, momentum: float = 0.0, variant: Variant = "heavy-ball", most: int = 64
) -> list[tuple[float, float]]:
    """Every interval of alpha h on which E[w] converges, in order, among the first ``most`` crossings. The stable set
    need not be connected, but a problem has curvatures all the way down to 0: only the first interval is safe."""
    system = Characteristic(law, momentum, variant)
    edge, unstable, last = system.first_crossing(), 0, 0.0
    found: list[tuple[float, float]] = []
    points = system.points(1)
    for crossing in system.curve(1.0, points).crossings(most):
        if unstable == 0:
            found.append((last / system.scale, crossing.k / system.scale))
        unstable += crossing.roots if crossing.entering else -crossing.roots
        last = crossing.k
    if not found or abs(found[0][1] * system.scale - edge) > 1e-9 * edge:
        return [(0.0, edge / system.scale)]
    return found


def rate(
    law: StalenessLaw,
    step: float,
    *,
    momentum: float = 0.0,
    variant: Variant = "heavy-ball",
    criterion: Criterion = "mean-square",
    curvature_variance: float = 0.0,
) -> float:
    """The contraction of E[w^2] per update at alpha h = ``step`` (of E[w]^2 under ``expectation``); 1 or more
    diverges.

    E[w_t^2] ~ rho^t with g_rho = 1, sought only above the square of the largest root of P, where g_rho decreases.
    Raises ``ValueError`` for a step that is not positive, and as `threshold`. Source: docs/theory/stability.md (6.1).
    """
    _check(criterion, curvature_variance)
    system = Characteristic(law, momentum, variant)
    if not (np.isfinite(step) and step > 0):
        raise ValueError(f"the step alpha h must be positive and finite (got {step!r})")
    k = step * system.scale
    floor = system.root_modulus(k) ** 2
    if criterion == "expectation" or (system.constant and curvature_variance == 0.0):
        return floor
    return decay(system, k, floor, curvature_variance)


def decay(system: Characteristic, k: float, floor: float, curvature_variance: float = 0.0) -> float:
    """The unique rho > ``floor`` with g_rho(k) = 1; ``floor`` if g_rho stays below 1 all the way down to it."""

    def excess(log: float) -> float:
        g = gain(system, k, rho=floor + float(np.exp(log)), curvature_variance=curvature_variance)[0]
        return float(np.log(min(g, 1e30))) if g > 0 else -70.0

    # g_rho grows like 1 / (rho - floor) towards the floor: nearly a line in log(rho - floor)
    high = float(np.log(max(1.0 - floor, 1e-3 * floor)))
    found = excess(high)
    while found > 0.0:
        high += 1.0
        found = excess(high)
    low = high
    while low > np.log(1e-15 * floor):
        low += min(found, 0.0) - 0.2
        found = excess(low)
        if found > 0.0:
            return floor + float(np.exp(bracketed_root(excess, low, high, rtol=1e-11)))
        high = low
    return floor


def noise_floor(
    law: StalenessLaw,
    step: float,
    *,
    momentum: float = 0.0,
    variant: Variant = "heavy-ball",
    noise: float = 1.0,
    curvature: float = 1.0,
    curvature_variance: float = 0.0,
) -> float:
    """The level E[w^2] settles at for alpha h = ``step`` and gradient noise of variance ``noise``: E[w^2] ->
    alpha^2 s^2 / (1 - g) mean 1/abs(P)^2; infinite above the mean-square threshold. ``curvature`` is h, so that
    alpha = step / h. Source: docs/theory/stability.md (6.1)."""
    _check("mean-square", curvature_variance)
    if not (noise >= 0 and curvature > 0 and np.isfinite(step) and step > 0):
        raise ValueError(f"need noise >= 0, curvature > 0, step > 0 (got {noise!r}, {curvature!r}, {step!r})")
    system = Characteristic(law, momentum, variant)
    k = step * system.scale
    if k >= system.first_crossing():
        return float("inf")
    g, density = gain(system, k, curvature_variance=curvature_variance, within=AGREE)
    return float("inf") if g >= 1.0 else (k / curvature) ** 2 * noise * density / (1.0 - g)


def region(
    law: StalenessLaw,
    *,
    steps: Sequence[float] | Real | None = None,
    momenta: Sequence[float] | Real | None = None,
    variant: Variant = "heavy-ball",
    curvature_variance: float = 0.0,
) -> Region:
    """The map of mean-square contraction over step sizes and momenta, with both edges of stability. Defaults: 17
    momenta from -0.8 to 0.9, 24 steps up to 1.2 times the largest mean-square threshold among them."""
    rows = np.linspace(-0.8, 0.9, 17) if momenta is None else np.asarray(momenta, dtype=np.float64)
    edges, safe = np.empty(rows.size), np.empty(rows.size)
    for i, mu in enumerate(rows):
        system = Characteristic(law, float(mu), variant)
        edge = system.first_crossing()
        edges[i] = edge / system.scale
        safe[i] = unit_gain(system, edge, curvature_variance=curvature_variance) / system.scale
    columns = np.linspace(0, 1.2 * safe.max(), 25)[1:] if steps is None else np.asarray(steps, dtype=np.float64)
    rates = np.array(
        [
            [
                rate(law, float(c), momentum=float(mu), variant=variant, curvature_variance=curvature_variance)
                for c in columns
            ]
            for mu in rows
        ]
    )
    return Region(columns, rows, rates, safe, edges, variant)


@dataclass(frozen=True)
class StepSize:
    """What one alpha h = ``step`` does: contraction per update of E[w^2] (``mean_square``) and of E[w]^2
    (``expectation``), 1 or more diverging, and the level that E[w^2] settles at, per curvature 1 and gradient noise of
    variance 1 (``noise_floor``; infinite where it diverges)."""

    step: float
    mean_square: float
    expectation: float
    noise_floor: float


@dataclass(frozen=True, repr=False)
class StepSizes(Shown, text="recommendation.stable"):
    """Which alpha h are stable: the thresholds of ``expectation`` and ``mean_square`` (``exact``, or under independent
    staleness), [Edge]'s rule of thumb from one worker's threshold (eq. 8), and what some ``steps`` do."""

    staleness: str
    mean_staleness: float
    momentum: float
    variant: str
    exact: bool
    mean_square: float
    expectation: float
    one_worker: float
    rule_of_thumb: float
    steps: tuple[StepSize, ...]
    basis: str = ""

    def facts(self) -> dict[str, str]:
        """The thresholds in a few words."""
        return {
            "staleness": self.staleness,
            "momentum": f"{self.momentum:g} ({self.variant})",
            "stable in mean square below": f"{self.mean_square:.4g}",
            "stable in expectation below": f"{self.expectation:.4g}",
        }

    def to_dict(self) -> dict[str, Any]:
        """As JSON; None for what is infinite."""
        return record(self)


def step_sizes(
    staleness: StalenessLaw | ExponentialWorkers,
    *,
    momentum: float = 0.0,
    variant: Variant = "heavy-ball",
    steps: Sequence[float] | None = None,
) -> StepSizes:
    """Both thresholds, and what ``steps`` (alpha h; default: a tenth, a half and nine tenths of the mean-square
    threshold) do. Exponential workers are exact but for shifted momentum, which takes their law."""
    recursion = isinstance(staleness, ExponentialWorkers) and variant != "shifted"
    law = staleness if isinstance(staleness, StalenessLaw) else staleness.law(tail=1e-12)
    found = thresholds(law, momentum=momentum, variant=variant)
    safe, edge, scale = found.mean_square, found.expectation, 1.0 if variant == "heavy-ball" else 1.0 - momentum
    if isinstance(staleness, ExponentialWorkers) and recursion:
        safe = staleness.threshold(momentum) / scale
        edge = staleness.expectation_threshold(momentum) / scale
    rows = []
    for step in np.array([0.1, 0.5, 0.9]) * safe if steps is None else steps:
        kind: dict[str, Any] = {"momentum": momentum, "variant": variant}
        if isinstance(staleness, ExponentialWorkers) and recursion:
            fast = staleness.rate(step * scale, momentum)
            mean = float(staleness.expectation_rates(step * scale, momentum)[0])
            floor = staleness.noise_floor(step * scale, momentum)
        else:
            fast, mean = rate(law, step, **kind), rate(law, step, criterion="expectation", **kind)
            floor = noise_floor(law, step, **kind)
        rows.append(StepSize(float(step), fast, mean, float(floor)))
    exact = recursion or int(np.count_nonzero(law.pmf)) == 1
    alone = thresholds(StalenessLaw.constant(0), momentum=momentum, variant=variant).mean_square
    return StepSizes(
        law.name, law.mean, float(momentum), variant, exact, safe, edge, alone, rule_of_thumb(alone, law.mean),
        tuple(rows),
    )  # fmt: skip


def constant_threshold(staleness: float) -> float:
    """2 sin(pi / (4 tau + 2)), the threshold of constant staleness without momentum ([Edge] eq. 6)."""
    return 2.0 * float(np.sin(np.pi / (4.0 * staleness + 2.0)))


def rule_of_thumb(learning_rate: float, staleness: float) -> float:
    """[Edge] eq. 8: pi alpha_0 / (4 (tau + 1/2)), the learning rate that keeps the minima of alpha_0 stable; meant
    for staleness of 1 or more."""
    return float(np.pi * learning_rate / (4.0 * (staleness + 0.5)))


def _check(criterion: str, curvature_variance: float) -> None:
    if criterion not in ("expectation", "mean-square"):
        raise ValueError(f'criterion must be "expectation" or "mean-square" (got {criterion!r})')
    if not (np.isfinite(curvature_variance) and curvature_variance >= 0):
        raise ValueError(f"curvature_variance must be finite and not negative (got {curvature_variance!r})")
