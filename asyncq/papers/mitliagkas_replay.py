"""[AbM]: theorems measured on replayed descent, and the remark on negative momentum.

The theorems are identities between expected steps and expected gradients for any objective. Here it is a logistic loss,
whose gradient is not linear. The gap between both sides is measured at every update, in standard errors over
replications.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asyncq.papers.claim import Comparison, Findings, Line, Panel, PaperClaim, Progress, line
from asyncq.papers.mitliagkas import FIVE_ERRORS, PAPER, exponential_pool
from asyncq.results.run import Run, simulate
from asyncq.sgd.objectives import LogisticRegression, NoisyQuadratic, Objective
from asyncq.sgd.replay import LossCurve, replay
from asyncq.staleness import StalenessLaw
from asyncq.statistics.intervals import mean_of_independent
from asyncq.theory.momentum import gradient_coefficients, implicit_momentum

__all__ = ["CLAIMS"]

Real = NDArray[np.float64]
SPAN, RUNS, STEP = 60, 4000, 1.5
FALSE_ALARM = 1e-3


def small_logistic(samples: int, batch: int, seed: int = 30) -> LogisticRegression:
    """Logistic loss on fixed random data of overlapping classes."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((samples, 3)) * np.array([2.0, 1.0, 0.5])
    y = (x.sum(axis=1) + 2.0 * generator.standard_normal(samples) > 0).astype(np.float64)
    return LogisticRegression(x, y, batch, start=np.array([2.0, -3.0, 4.0]))


def traced(workers: int, updates: int, seed: int) -> Run:
    """Trace of exponential workers from the start."""
    return simulate(exponential_pool(workers), trace=True, engine="compiled", seed=seed, updates=updates)


def paths_and_gradients(source: Run | StalenessLaw, seed: int) -> tuple[Real, Real]:
    """Positions (runs, updates + 1, d) and the full gradients there."""
    objective = small_logistic(40, 20)
    curve = replay(
        objective, source, step=STEP, updates=SPAN, replications=RUNS, points=range(SPAN + 1), keep_positions=True,
        seed=seed,
    )  # fmt: skip
    assert curve.positions is not None
    w = curve.positions[0, 0]
    x, y = objective.features, objective.answers
    gradients = np.empty_like(w)
    for begin in range(0, RUNS, 500):  # a block of runs at a time, to bound the memory
        block = w[begin : begin + 500]
        gradients[begin : begin + 500] = (-y / (1.0 + np.exp(y * (block @ x.T)))) @ x / y.size
    return w, gradients


class Sides(NamedTuple):
    """A theorem in the form E y = k E x, x and y of shape (runs, updates - 1, d), and its k."""

    x: Real
    y: Real
    constant: float


def measured(sides: Sides) -> tuple[float, tuple[float, float], float]:
    """Measured k with its 95 % interval over 16 parts of the runs, and the largest mean of y - k x at the theorem's k,
    in standard errors, over updates and coordinates."""
    gap = sides.y - sides.constant * sides.x
    scores = gap.mean(axis=0) / (gap.std(axis=0, ddof=1) / np.sqrt(RUNS))
    weight = sides.x.mean(axis=0)
    tops, bottoms = ((part * weight).sum(axis=(1, 2)).reshape(16, -1).mean(axis=1) for part in (sides.y, sides.x))
    ratio = mean_of_independent((tops / bottoms).tolist(), unit="")
    assert ratio.ci95 is not None
    return ratio.mean, ratio.ci95, float(np.abs(scores).max())


def theorem(
    source: Run | StalenessLaw,
    read: Callable[[Real, Real], Sides],
    seed: int,
    progress: Progress,
    *,
    what: str,
    side: str = "step + learning rate x gradient",
) -> Findings:
    """Compare both sides, given by ``read(steps, gradients)``, at every update t = 1, 2, ...; ``what`` names k,
    ``side`` the left side."""
    from scipy.special import ndtri

    w, gradients = paths_and_gradients(source, seed)
    progress(0.8)
    sides = read(np.diff(w, axis=1), gradients)
    k, interval, score = measured(sides)
    t = np.arange(1, SPAN)
    lines: list[Line] = []
    for i in range(w.shape[2]):
        y, x = sides.y[:, :, i], sides.constant * sides.x[:, :, i]
        spread = 1.96 * (y - x).std(axis=0) / np.sqrt(RUNS)
        lines.append(line(f"measured, coordinate {i + 1}", t, y.mean(axis=0), look="points", group=i))
        band = {"low": x.mean(axis=0) - spread, "high": x.mean(axis=0) + spread}
        lines.append(line("theorem (95 % of the gap)" if i == 0 else "", t, x.mean(axis=0), group=i, **band))
    gaps = sides.y[0].size
    half = 0.5 * (interval[1] - interval[0])
    return Findings(
        (
            Comparison(
                what,
                sides.constant,
                k,
                half * FIVE_ERRORS,
                "five standard errors over 16 parts of the runs: false alarm 0.02 %",
                interval=interval,
            ),
            Comparison(
                "largest gap between the two sides, in standard errors",
                0.0,
                score,
                float(-ndtri(FALSE_ALARM / 2 / gaps)),
                f"chance exceeds it with probability {FALSE_ALARM:g}: normal, Bonferroni over {gaps} gaps",
            ),
        ),
        (Panel("Both sides of the theorem, averaged over runs", "update", side, tuple(lines)),),
    )


def theorem_2(seed: int, progress: Progress) -> Findings:
    """Theorem 2 under a law that is not geometric, uniform on 0 .. 4: the change of the expected step is alpha (sum
    d_l grad(w_{t-1-l}) - q_0 grad(w_t)), d_l = q_l - q_{l+1}."""
    law = StalenessLaw.uniform(0, 4)
    fresh, weights = gradient_coefficients(law)

    def read(steps: Real, gradients: Real) -> Sides:
        x = -STEP * fresh * gradients[:, 1:-1]
        for lag, weight in enumerate(weights, start=1):
            reach = np.maximum(np.arange(1, SPAN) - lag, 0)  # reads before the start see the start
            x = x + STEP * weight * gradients[:, reach]
        return Sides(x, np.diff(steps, axis=1), 1.0)

    what = "change of the step, measured over the theorem's"
    return theorem(law, read, seed, progress, what=what, side="change of the step")


def momentum_form(mu: float) -> Callable[[Real, Real], Sides]:
    """Theorems 3 and 5, written as E[w_{t+1} - w_t] + alpha E grad(w_t) = mu (E[w_t - w_{t-1}] + alpha E grad(w_t))."""
    return lambda steps, gradients: Sides(
        steps[:, :-1] + STEP * gradients[:, 1:-1], steps[:, 1:] + STEP * gradients[:, 1:-1], mu
    )


def theorem_3(seed: int, progress: Progress) -> Findings:
    """Theorem 3: independent geometric staleness of mean 4."""
    law = StalenessLaw.geometric(mean=4.0)
    return theorem(law, momentum_form(implicit_momentum(law)["leading"]), seed, progress, what="implicit momentum")


def theorem_5(seed: int, progress: Progress) -> Findings:
    """Theorem 5: a simulated trace of 8 exponential workers, its dependence included."""
    mu = implicit_momentum(StalenessLaw.geometric(workers=8))["leading"]
    run = traced(8, RUNS * SPAN, seed)
    progress(0.3)
    return theorem(run, momentum_form(mu), seed, progress, what="implicit momentum of 8 workers")


# -- negative momentum ------------------------------------------------------------------------------------------------

NEGATIVE = (-0.2, -0.09, -0.06, -0.03)  # the paper's grid of explicit momenta
OTHERS = (0.0, 0.2, 0.4, 0.6, 0.8)
POSITIONS = np.round(10.0 ** (np.arange(8) / 8 - 1), 3)  # largest learning rate of a decade grid below the edge
FINE = 1.25


class Race(NamedTuple):
    """The best negative momentum against the best other one, for a problem and a grid of learning rates."""

    gain: float  # 1 - updates(negative) / updates(other)
    low: float
    high: float


def problems() -> dict[str, tuple[Objective, float, float, int]]:
    """Problems by name: objective, sharpness, target as a share of the initial loss, most updates."""
    curved = NoisyQuadratic.between(0.05, 1.0, 6)
    noisy = NoisyQuadratic.between(0.05, 1.0, 6, noise=0.3)
    varied = NoisyQuadratic(np.geomspace(0.05, 1.0, 6), 0.0, 0.5, start=curved.start)
    logistic = small_logistic(120, 8, seed=31)
    return {
        "curved": (curved, curved.sharpness, 0.01, 1500),
        "noisy": (noisy, noisy.sharpness, 0.05, 1500),
        "curvature varies": (varied, varied.sharpness, 0.01, 1500),
        "logistic": (logistic, logistic.sharpness, 0.05, 1500),
    }


def race(curve: LossCurve, rates: NDArray[np.intp], target: float) -> Race:
    """Choose settings on the first half of the runs and judge them on the second, in eight parts, so that selection
    noise does not bias the gain. Gains and their interval are computed in the logarithm."""
    half = curve.loss.shape[2] // 2
    count = len(NEGATIVE)

    def updates_to(loss: Real) -> Real:
        reached = loss <= target
        first = curve.updates[np.argmax(reached, axis=-1)].astype(np.float64)
        return np.asarray(np.where(reached.any(axis=-1), first, np.inf))

    chosen = updates_to(curve.loss[rates, :, :half].mean(axis=2))
    best = [np.unravel_index(int(np.argmin(part)), part.shape) for part in (chosen[:, :count], chosen[:, count:])]
    pairs = (best[0], (best[1][0], best[1][1] + count))
    if not np.isfinite([chosen[pair] for pair in pairs]).all():
        nan = float("nan")
        return Race(nan, nan, nan)
    parts = np.array([
        updates_to(curve.loss[rates[s], m, half:].reshape(8, -1, curve.updates.size).mean(axis=1)) for s, m in pairs
    ])  # fmt: skip
    if not np.isfinite(parts).all():
        nan = float("nan")
        return Race(nan, nan, nan)
    log = mean_of_independent((np.log(parts[0]) - np.log(parts[1])).tolist(), unit="logarithm")
    assert log.ci95 is not None
    return Race(*(float(1 - np.exp(value)) for value in (log.mean, log.ci95[1], log.ci95[0])))


def negative(seed: int, progress: Progress) -> Findings:
    """Section 4: with 8 workers a momentum of -0.09 needed 15 % fewer iterations than 0 on a grid of decades."""
    momenta = (*NEGATIVE, *OTHERS)
    decades = (POSITIONS[:, None] * np.array([1.0, 0.1, 0.01])).ravel()
    fine = FINE ** -np.arange(12.0)
    lines, comparisons, places = [], [], []
    best = Race(float("-inf"), 0.0, 0.0)
    cases = problems()
    run = traced(8, 1500 * 32, seed)
    for number, (name, (objective, sharp, share, updates)) in enumerate(cases.items()):
        marks = np.unique(np.round(1.01 ** np.arange(0, 735)).astype(int))
        marks = marks[marks <= updates].tolist()
        any_objective: Any = objective
        curve = replay(
            any_objective, run, step=np.concatenate((decades, fine)) / sharp, momentum=momenta, updates=updates,
            replications=32, points=marks, seed=seed,
        )  # fmt: skip
        target = share * float(objective.loss(objective.start))
        coarse = [race(curve, np.arange(3) + 3 * i, target) for i in range(POSITIONS.size)]
        tuned = race(curve, np.arange(decades.size, decades.size + fine.size), target)
        gains = np.array(coarse)
        seen = np.isfinite(gains[:, 0])
        band = {"low": 100 * gains[seen, 1], "high": 100 * gains[seen, 2]}
        lines.append(line(name, POSITIONS[seen], 100 * gains[seen, 0], look="points", group=number, **band))
        lines.append(line("", POSITIONS[seen], 100 * gains[seen, 0], group=number))
        places += [
            f"{name} at {position:g}: {100 * gain:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
            for position, (gain, low, high) in zip(POSITIONS, gains, strict=True)
            if low > 0
        ]
        comparisons.append(
            Comparison(f"gain on a fine grid of learning rates, {name}", None, tuned.gain, interval=tuned[1:])
        )
        for found in coarse:
            if np.isfinite(found.gain) and found.gain > best.gain:
                best = found
        progress((number + 1) / len(cases))
    return Findings(
        (
            Comparison(
                "largest gain of a negative momentum on a grid of decades",
                0.15,
                best.gain,
                0.0,
                "",
                ">=",
                interval=(best.low, best.high),
            ),
            Comparison(
                f"of {len(cases) * POSITIONS.size} problems and grid positions: negative momentum wins (95 %)",
                None,
                len(places),
            ),
            *comparisons,
        ),
        (
            Panel(
                "Fewer updates with the best negative momentum",
                "position of the decade grid: its largest step x sharpness",
                "gain over the best other momentum (%)",
                tuple(lines),
                xscale="log",
                across=((15.0, "the paper, CIFAR: 15 %"), (0.0, "")),
                ylim=(-130.0, 80.0),
            ),
        ),
        (
            "A negative momentum wins where the grid of learning rates just misses: one step lies a little above the "
            "edge of momentum 0, the next ten times below it. " + "; ".join(places) + ".",
            "On a fine grid of learning rates little or nothing is left of the gain.",
        ),
    )


CLAIMS = (
    PaperClaim(
        "mitliagkas-thm2",
        PAPER,
        "Theorem 2",
        "The expected step is the one before plus differences of the staleness law times past gradients.",
        "Independent staleness, uniform on 0 .. 4; a logistic loss; 4,000 runs of 60 updates.",
        theorem_2,
    ),
    PaperClaim(
        "mitliagkas-thm3",
        PAPER,
        "Theorem 3",
        "Geometric staleness gives the expected update of standard momentum.",
        "Independent geometric staleness of mean 4; a logistic loss; 4,000 runs of 60 updates.",
        theorem_3,
    ),
    PaperClaim(
        "mitliagkas-thm5",
        PAPER,
        "Theorem 5",
        "M exponential workers give an implicit momentum of 1 - 1/M.",
        "A simulated trace of 8 workers, dependence included; a logistic loss; 4,000 windows of 60 updates.",
        theorem_5,
    ),
    PaperClaim(
        "mitliagkas-negative",
        PAPER,
        "Section 4, negative momentum",
        "With 8 workers a negative explicit momentum beats the best other one, by 15 % on CIFAR.",
        "Four problems on a trace of 8 exponential workers, learning rates on a grid of decades and on a fine one.",
        negative,
    ),
)
