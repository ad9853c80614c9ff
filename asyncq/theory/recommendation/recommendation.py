"""Which momentum and learning rate to use under stale gradients, what they gain, and what the usual rules would cost.

In mean square throughout; the expectation is only shown. Source: theory.md sections 6 and 8; a guide for users in
docs/choosing-momentum.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncq.jsonable import record
from asyncq.staleness import StalenessLaw
from asyncq.theory.descent.exponential import ExponentialWorkers, exponential_workers
from asyncq.theory.momentum import expected_update, largest_useful_workers
from asyncq.theory.recommendation.minimax import ExactDecay, LawDecay, best_momentum, polyak, worst
from asyncq.theory.stability import rule_of_thumb, threshold

__all__ = ["Ceiling", "Choice", "Recommendation", "Rule", "Today", "recommend"]

MOMENTA = (-0.8, -0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
LOWEST, HIGHEST = -0.95, 0.999

ALMOST_SURE = (
    "A single run obeys the almost-sure threshold, which is higher than the mean-square one named here; between the "
    "two, runs settle, but with heavy-tailed bursts."
)
OTHER_OPTIMISERS = (
    "Adam: its beta_1 is a momentum with dampening, so the direction of the change transfers (lower beta_1 as "
    "staleness grows), but its step is rescaled per coordinate and the learning rates named here do not. Nesterov: its "
    "look-ahead damps the fast modes, so its ceiling differs; at small steps the momentum transfers unchanged."
)


@dataclass(frozen=True)
class Ceiling:
    """The largest safe learning rate at one momentum: in mean square, and in expectation (not safe, shown beside)."""

    momentum: float
    learning_rate: float
    expectation: float


@dataclass(frozen=True)
class Choice:
    """A momentum and learning rate, with its worst contraction of E[w^2] over the curvature range. ``updates`` to a
    target relative to today's setting on one worker (infinite: diverges); ``margin`` the ceiling over the rate."""

    momentum: float
    learning_rate: float
    contraction: float
    updates: float
    margin: float


@dataclass(frozen=True)
class Rule:
    """A rule of thumb: what it would set, and its ``cost``, updates relative to the recommendation (inf:
    diverges)."""

    name: str
    momentum: float
    learning_rate: float
    updates: float
    cost: float


@dataclass(frozen=True)
class Today:
    """What runs on one worker, as given or implied: the problem that everything else is measured on."""

    momentum: float
    learning_rate: float
    condition_number: float
    sharpness: float
    contraction: float
    inferred: tuple[str, ...]


@dataclass(frozen=True)
class Recommendation:
    """The ceiling curve first, then the best momentum at the learning rate you keep, then the best pair.

    ``kept`` is None if no momentum makes today's learning rate safe. ``additive`` are the papers' rule
    mu* - mu_S with its step retuned and at today's step; ``nonnegative`` the best pair without negative momentum.
    ``criterion`` names what all figures are in; ``reserve`` is the share of the ceiling held back where that
    criterion can be optimistic, and every recommended learning rate respects it. ``basis`` says in words which
    staleness all this is for. ``against_synchronous`` is the time to a target with the best pair, relative to the same
    workers behind a barrier with the best pair of one worker, gradient noise left aside: above 1, stay synchronous."""

    criterion: str
    exact: bool
    today: Today
    mean_staleness: float
    implicit_momentum: float
    kind: str
    largest_useful_workers: float
    reserve: float
    ceiling: tuple[Ceiling, ...]
    kept: Choice | None
    best: Choice
    nonnegative: Choice
    additive: tuple[Rule, ...]
    rules: tuple[Rule, ...]
    notes: tuple[str, ...]
    basis: str = ""
    against_synchronous: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON; None for what is infinite (it diverges)."""
        return record(self)


def recommend(
    staleness: StalenessLaw | ExponentialWorkers,
    *,
    momentum: float | None = None,
    learning_rate: float | None = None,
    condition_number: float | None = None,
    sharpness: float | None = None,
    dampened: bool = False,
    curvature_variance: float = 0.0,
    heterogeneous: bool = False,
    reserve: float | None = None,
    momenta: Sequence[float] = MOMENTA,
) -> Recommendation:
    """The momentum and learning rate that minimise the worst mean-square contraction over the curvature range.

    ``staleness``: exponential workers (exact), or a law (independent staleness, a model; say ``heterogeneous=True``
    if the workers differ in speed, and a ``reserve`` of half the ceiling is held back unless stated). The problem:
    today's one-worker ``momentum`` and ``learning_rate`` if they were tuned on a curvature-dominated problem, or
    ``condition_number`` and ``sharpness`` (largest curvature), which win where both are given. ``dampened`` says
    that the optimiser multiplies gradients by 1 - momentum.

    Raises ``ValueError`` for an input that does not determine the problem, naming what to add.
    """
    if reserve is not None and not 0 <= reserve < 1:
        raise ValueError(f"reserve must be from 0 to below 1 (got {reserve!r}); give 0.2 to hold back a fifth")
    one = ExactDecay(exponential_workers(1), curvature_variance)
    today = _today(momentum, learning_rate, condition_number, sharpness, dampened, one)
    kappa, h = today.condition_number, today.sharpness
    exact = isinstance(staleness, ExponentialWorkers)
    if isinstance(staleness, ExponentialWorkers):
        decay: ExactDecay | LawDecay = ExactDecay(staleness, curvature_variance)
        law = staleness.law(tail=1e-12) if staleness.workers <= 1024 else None
        mean = staleness.workers / staleness.contributors - 1.0
        criterion = "mean square, exact for exponential work"
    else:
        decay, law, mean = LawDecay(staleness, curvature_variance), staleness, staleness.mean
        criterion = "mean square, independent staleness (a model)"
    modes = 25 if exact else 7  # each mode of a law costs milliseconds
    held = reserve if reserve is not None else 0.5 if heterogeneous and not exact else 0.0

    def scale(mu: float) -> float:
        return 1.0 - mu if dampened else 1.0

    def rated(mu: float, rate_: float) -> tuple[float, float, float]:
        """(contraction, relative updates, margin) of a learning rate."""
        edge, step = decay.threshold(mu), rate_ * scale(mu) * h
        rho = worst(decay, step, mu, kappa, modes=modes) if step < edge else float("inf")
        return rho, _updates(rho, today.contraction), edge / step

    def choice(mu: float, step: float) -> Choice:
        rate_ = step / h / scale(mu)
        return Choice(mu, rate_, *rated(mu, rate_))

    def best_step(mu: float) -> tuple[float, float]:
        step, rho = decay.best_step(mu, kappa)
        limit = decay.threshold(mu) * (1.0 - held)
        return (step, rho) if step <= limit else (limit, worst(decay, limit, mu, kappa, modes=modes))

    @cache
    def objective(mu: float) -> float:
        rho = best_step(mu)[1]
        return -1.0 / float(np.log(rho)) if rho < 1 else float("inf")

    target, single = polyak(kappa)
    alone = exact and isinstance(staleness, ExponentialWorkers) and staleness.workers == staleness.contributors == 1
    high = min(HIGHEST, float(np.tanh(np.arctanh(max(target, 0.3)) + 0.5)))
    quick = isinstance(staleness, ExponentialWorkers) and staleness.homogeneous
    rounds, grid = (6, _momenta(LOWEST, high, 33)) if quick else (3, _momenta(LOWEST, high, 17))
    if alone and curvature_variance == 0.0 and held == 0.0:
        best = choice(target, single)  # Polyak's optimum, in closed form
        nonnegative = best
    else:
        mu = best_momentum(objective, grid, rounds=rounds)[0]
        best = choice(mu, best_step(mu)[0])
        nonnegative = best
        if mu < 0:
            mu = best_momentum(objective, np.append(0.0, grid[grid > 0]), rounds=rounds)[0]
            nonnegative = choice(mu, best_step(mu)[0])

    def at_kept(mu: float) -> float:
        step = today.learning_rate * scale(mu) * h
        if step >= decay.threshold(mu) * (1.0 - held):
            return float("inf")
        rho = worst(decay, step, mu, kappa, modes=9 if exact else 3)
        return -1.0 / float(np.log(rho)) if rho < 1 else float("inf")

    mu, value = best_momentum(at_kept, _momenta(LOWEST, high, 41 if exact else 17), rounds=3 if exact else 2)
    kept = choice(mu, today.learning_rate * scale(mu) * h) if np.isfinite(value) else None

    update = expected_update(law) if law is not None else None
    implicit = update.implicit if update is not None else mean / (1.0 + mean)

    def rule(name: str, mu: float, rate_: float) -> Rule:
        updates = rated(mu, rate_)[1] if rate_ > 0 else float("inf")
        return Rule(name, mu, rate_, updates, updates / best.updates)

    summed = target - implicit
    additive = []
    if abs(summed) < 1:
        retuned = best_step(summed)[0] / h / scale(summed)
        additive = [
            rule("additive mu* - mu_S, step retuned", summed, retuned),
            rule("additive mu* - mu_S, today's step", summed, today.learning_rate),
        ]
    rules = (
        rule("today's setting, unchanged", today.momentum, today.learning_rate),
        rule("[Edge] eq. 8, today's momentum", today.momentum, rule_of_thumb(today.learning_rate, mean)),
        rule("alpha / tau, today's momentum", today.momentum, today.learning_rate / max(mean, 1.0)),
        rule(
            "alpha / sqrt(tau), today's momentum", today.momentum, today.learning_rate / float(np.sqrt(max(mean, 1.0)))
        ),
    )
    ceiling = []
    for mu in momenta:
        if isinstance(staleness, ExponentialWorkers):
            mean_edge = staleness.expectation_threshold(mu)
        else:
            mean_edge = threshold(staleness, momentum=mu, criterion="expectation")
        unit = h * scale(mu)
        ceiling.append(Ceiling(mu, decay.threshold(mu) / unit, mean_edge / unit))
    notes = _notes(best, nonnegative, kept, today, exact, heterogeneous, held)
    return Recommendation(
        criterion,
        exact,
        today,
        mean,
        implicit,
        update.kind if update else "standard momentum",
        largest_useful_workers(target),
        held,
        tuple(ceiling),
        kept,
        best,
        nonnegative,
        tuple(additive),
        rules,
        notes,
    )


def _momenta(lowest: float, highest: float, points: int) -> NDArray[np.float64]:
    """A grid even in atanh(momentum)."""
    return np.tanh(np.linspace(np.arctanh(lowest), np.arctanh(highest), points))


def _updates(contraction: float, reference: float) -> float:
    """Updates to any target relative to the reference, asymptotically."""
    if contraction >= 1.0:
        return float("inf")
    return float(np.log(reference) / np.log(contraction)) if contraction > 0 else 0.0


def _today(
    momentum: float | None,
    learning_rate: float | None,
    condition_number: float | None,
    sharpness: float | None,
    dampened: bool,
    one: ExactDecay,
) -> Today:
    """Fill in what was not said from what was (theory.md section 8), keeping a list of what was inferred."""
    inferred = []
    for name, value, lowest in (("learning_rate", learning_rate, 0.0), ("sharpness", sharpness, 0.0)):
        if value is not None and not (np.isfinite(value) and value > lowest):
            raise ValueError(f"{name} must be positive and finite (got {value!r})")
    if condition_number is not None and not (np.isfinite(condition_number) and condition_number > 1):
        raise ValueError(f"condition_number must be finite and above 1 (got {condition_number!r})")
    if momentum is not None and not abs(momentum) < 1:
        raise ValueError(f"momentum must lie strictly between -1 and 1 (got {momentum!r})")
    if condition_number is None:
        if momentum is None or momentum <= 0:
            raise ValueError(
                "a momentum of 0 or less does not tell the condition number: give condition_number as well"
            )
        root = np.sqrt(momentum)
        condition_number = float(((1 + root) / (1 - root)) ** 2)
        inferred.append(
            f"condition number {condition_number:.3g}, from momentum {momentum:g}, as if tuned without noise"
        )
    target, single = polyak(condition_number)
    if momentum is None:
        momentum = target
        inferred.append(f"momentum {momentum:.3g}, the optimum of one worker")
    unit = 1.0 - momentum if dampened else 1.0
    if sharpness is None:
        if learning_rate is None:
            raise ValueError(
                "give learning_rate (today's, on one worker) or sharpness: without either no step has a unit"
            )
        if momentum > 0:
            sharpness = float((1 + np.sqrt(momentum)) ** 2 / (learning_rate * unit))
            inferred.append(
                f"sharpness {sharpness:.3g}, from the learning rate, as if tuned without noise: a rough guess"
            )
        else:
            sharpness = single / (learning_rate * unit)
            inferred.append(f"sharpness {sharpness:.3g}, as if the learning rate were the optimum of one worker")
    if learning_rate is None:
        learning_rate = single / (sharpness * unit) if momentum == target else (1 + abs(momentum)) / (sharpness * unit)
        inferred.append(f"learning rate {learning_rate:.3g}, the optimum of one worker")
    step = learning_rate * unit * sharpness
    if step >= one.threshold(momentum):
        raise ValueError(
            f"learning rate {learning_rate:g} with sharpness {sharpness:g} and momentum {momentum:g} is unstable on "
            "one worker: what runs today cannot be all three"
        )
    contraction = worst(one, step, momentum, condition_number, modes=65)
    return Today(momentum, learning_rate, condition_number, sharpness, contraction, tuple(inferred))


def _notes(
    best: Choice, nonnegative: Choice, kept: Choice | None, today: Today, exact: bool, heterogeneous: bool, held: float
) -> tuple[str, ...]:
    notes = []
    if best.momentum < 0:
        share = 1.0 - best.updates / nonnegative.updates
        worth = "worth having" if share > 0.01 else "hardly worth having once the step is retuned"
        notes.append(
            f"Negative momentum saves {100 * share:.2g} % of the updates over the best momentum >= 0: {worth}."
        )
    else:
        notes.append("Negative momentum is not called for: the best momentum is not negative.")
    if kept is None:
        notes.append(f"No momentum makes today's learning rate {today.learning_rate:g} safe: lower it to the ceiling.")
    elif kept.updates > 1.2 * best.updates:
        ratio = kept.updates / best.updates
        notes.append(f"Keeping today's learning rate costs {ratio:.2f} times the updates of retuning it.")
    if best.momentum < 0.95 * LOWEST:
        notes.append(
            f"The best momentum lies at the end of the search ({LOWEST:g}): it is flat there, take a milder one."
        )
    if best.margin < 1.1:
        notes.append(
            f"The best pair sits {100 * (best.margin - 1):.1f} % below its ceiling: a sharpness that is off by more "
            "diverges. A reserve of 0.1 to 0.3 buys safety at a known price."
        )
    if exact:
        notes.append(
            "The criterion is exact for exponential work without a server queue; elsewhere it is an approximation."
        )
    else:
        notes.append("Independent staleness is a model: 5-16 % pessimistic for equal workers, not a bound.")
        if heterogeneous:
            notes.append(
                f"Workers of different speeds: the model can be optimistic by up to 90 %; {100 * held:.0f} % of the "
                "ceiling is held in reserve. Confirm by replaying the trace."
            )
    if today.inferred:
        listed = "; ".join(today.inferred)
        notes.append(f"Inferred, not measured: {listed}. A momentum tuned to noise says nothing of curvature.")
    return (*notes, ALMOST_SURE, OTHER_OPTIMISERS)
