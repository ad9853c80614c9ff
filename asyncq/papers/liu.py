"""[PCA] T. Liu, S. Li, J. Shi, E. Zhou, T. Zhao. Acceleration Tradeoff between Momentum and Asynchrony. NeurIPS 2018.

Streaming PCA with the paper's covariance diag(4, 3, 2, 1), in eigenvector coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asyncq.papers.claim import Comparison, Findings, Panel, PaperClaim, Progress, line
from asyncq.sgd.objectives import StreamingPCA
from asyncq.sgd.replay import replay
from asyncq.sgd.streaming_pca import (
    FIGURE_1,
    delay_grid,
    diffusion,
    harmless_delay,
    ode,
    phases,
    simulated_harmless_delays,
    stationary_variance,
)
from asyncq.staleness import StalenessLaw

__all__ = ["CLAIMS"]

Real = NDArray[np.float64]
PAPER = "[PCA]"
VALUES = np.array(FIGURE_1.eigenvalues)
MU = 0.7


def descent(
    start: ArrayLike,
    eta: float,
    points: Sequence[int],
    *,
    momentum: float = MU,
    delay: int | StalenessLaw = 0,
    runs: int,
    seed: int,
) -> Real:
    """Positions (runs, points, 4) under equation 5; the last point is the number of updates."""
    law = delay if isinstance(delay, StalenessLaw) else StalenessLaw.constant(delay)
    curve = replay(
        StreamingPCA(VALUES, start=np.asarray(start, dtype=np.float64)), law, step=eta, momentum=momentum,
        updates=int(points[-1]), replications=runs, points=points, keep_positions=True, seed=seed,
    )  # fmt: skip
    assert curve.positions is not None
    return np.asarray(curve.positions[0, 0])


def evenly(updates: float, points: int) -> list[int]:
    """Evenly spaced numbers of updates from 0 to ``updates``, ``points`` in all."""
    return [int(point) for point in np.unique(np.round(np.linspace(0, updates, points)))]


# -- figure 1 ---------------------------------------------------------------------------------------------------------


def figure_1(seed: int, progress: Progress) -> Findings:
    """Figure 1: the error against the delay for five momenta, and the largest harmless delay."""
    momenta, delays = FIGURE_1.momenta, delay_grid()
    predicted = [harmless_delay(VALUES, FIGURE_1.eta, momentum=mu, criterion="expectation") for mu in momenta]
    found, errors = simulated_harmless_delays(FIGURE_1, seed=seed, progress=progress)
    curves = []
    for column, mu in enumerate(momenta):
        seen = np.isfinite(errors[:, column]) & (errors[:, column] < 1.0)
        curves.append(line(rf"$\mu$ = {mu:g}", delays[seen], errors[seen, column], group=column))
        at = FIGURE_1.delays[column]
        height = np.interp(at, delays[seen], errors[seen, column])
        curves.append(line("read off the paper" if column == 0 else "", [at], [height], "paper", "points"))
    panels = (
        Panel(
            "Error at the end of 40,000 updates",
            r"delay $\tau$ (updates)",
            "squared distance to the optimum",
            tuple(curves),
            yscale="log",
            xlim=(-4.0, 235.0),
        ),
        Panel(
            "Largest harmless delay",
            r"momentum $\mu$",
            "delay (updates)",
            (
                line("read off the paper", momenta, FIGURE_1.delays, "paper", "points"),
                line("predicted: edge of the radial direction", momenta, predicted, "theory", group=1),
                line("simulated, 100 runs", momenta, found, look="points", group=0),
            ),
            ylim=(0.0, 130.0),
        ),
    )
    return Findings(
        tuple(
            Comparison(
                f"largest harmless delay, momentum {mu:g}",
                paper,
                float(ours),
                0.15 * theory + max(1.0, 0.1 * theory),
                "15 % and a step of the grid of delays, as on the theory page",
                theory=float(theory),
            )
            for mu, paper, theory, ours in zip(momenta, FIGURE_1.delays, predicted, found.tolist(), strict=True)
        ),
        panels,
        (
            "Predicted without a run: at the optimum the radial direction has curvature 2 l_1, and a constant delay is "
            "stable up to the edge of [Edge]. A delay is harmless while the error is at most twice that without delay; "
            "the paper does not say its rule. The paper's numbers are read off a figure.",
        ),
    )


# -- the limits of small steps ----------------------------------------------------------------------------------------


def differential_equation(seed: int, progress: Progress) -> Findings:
    """Theorem 3, equation 7: paths tend to the solution of the ODE as the step tends to 0."""
    start = np.array([0.4, 0.8, 0.35, 0.25])
    start /= np.linalg.norm(start)
    etas, delay, runs = np.array([1.6e-3, 4e-4, 1e-4]), 20, 200
    spreads, lines = [], []
    bias = error = 0.0
    for number, eta in enumerate(etas.tolist()):
        points = evenly(4.0 * (1 - MU) / eta, 41)
        h = descent(start, eta, points, delay=delay, runs=runs, seed=seed)
        t = np.array(points) * eta
        expected = ode(VALUES, start, t, momentum=MU)
        spreads.append(float(np.sqrt(np.square(h - expected).sum(axis=2).mean(axis=0).max())))
        if number == len(etas) - 1:
            gap = h.mean(axis=0) - expected
            bias, error = float(np.abs(gap).max()), float((h.std(axis=0) / np.sqrt(runs)).max())
            for i in range(4):
                low, high = np.quantile(h[:, :, i], [0.025, 0.975], axis=0)
                lines.append(line(f"$H_{i + 1}$, mean and 95 % of runs", t, h[:, :, i].mean(axis=0), low=low, high=high,
                                  group=i))  # fmt: skip
                lines.append(line("ODE, equation 7" if i == 0 else "", t, expected[:, i], "paper"))
        progress((number + 1) / len(etas))
    order = float(np.polyfit(np.log(etas), np.log(spreads), 1)[0])
    scaled = line("largest r.m.s. distance of a path", etas, spreads, look="points", group=0)
    half = line(r"$\sqrt{\eta}$", etas, spreads[-1] * np.sqrt(etas / etas[-1]), "paper")
    return Findings(
        (
            Comparison(
                "largest distance of the mean path from the ODE, step 1e-4",
                0.0,
                bias,
                4 * error + 24 * etas[-1] / (1 - MU),
                "4 standard errors, and a bias of the order of eta phi/(1 - mu), phi = 24",
            ),
            Comparison(
                "order in the step of a path's distance from the ODE",
                0.5,
                order,
                0.1,
                "0.1: three step sizes over a factor 16, terms of order eta beside those of order sqrt(eta)",
            ),
        ),
        (
            Panel(r"Mean path for $\eta = 10^{-4}$", r"time $t = k\eta$", "coordinate", tuple(lines)),
            Panel("Distance from the ODE", r"step $\eta$", "distance", (half, scaled), xscale="log", yscale="log"),
        ),
        (f"Momentum {MU:g}, delay {delay}: well within the delays that Theorem 3 allows.",),
    )


def stochastic_equation(seed: int, progress: Progress) -> Findings:
    """Theorem 5, equation 8: the stationary variance around the optimum, without delay and with a long one."""
    eta, runs = FIGURE_1.eta, 300
    mixing = (1 - MU) / eta  # updates in which the slowest direction mixes
    points = evenly(14 * mixing, 43)
    limit = diffusion(VALUES, momentum=MU).stationary_variance[1:]
    comparisons, lines = [], []
    axis = np.array([2.0, 3.0, 4.0])
    for number, delay in enumerate((0, 50)):
        h = descent(np.eye(4)[0], eta, points, delay=delay, runs=runs, seed=seed)
        late = np.square(h[:, 15:, 1:]).mean(axis=1) / eta
        mean, error = late.mean(axis=0), late.std(axis=0, ddof=1) / np.sqrt(runs)
        finite = stationary_variance(VALUES, eta, momentum=MU, delay=delay)[1:]
        band = {"low": (mean - 1.96 * error) / limit, "high": (mean + 1.96 * error) / limit}
        beside = axis + 0.1 * (number - 0.5)
        lines.append(
            line(f"simulated, delay {delay} (95 %)", beside, mean / limit, look="points", group=number, **band)
        )
        lines.append(line(f"noise floor at delay {delay}", axis, finite / limit, "theory", group=number))
        for i in range(3):
            comparisons.append(
                Comparison(
                    f"stationary variance of U_{i + 2}, delay {delay}",
                    float(limit[i]),
                    float(mean[i]),
                    4 * float(error[i]) + 0.02 * float(finite[i]),
                    "4 standard errors (false alarm 6e-5), and 2 % for terms of second order: eta Var = 0.01",
                    theory=float(finite[i]),
                    interval=(float(mean[i] - 1.96 * error[i]), float(mean[i] + 1.96 * error[i])),
                )
            )
        progress((number + 1) / 2)
    return Findings(
        tuple(comparisons),
        (
            Panel(
                rf"Around the optimum, $\mu$ = {MU:g}, $\eta$ = {eta:g}",
                "direction i",
                r"stationary variance of $U_i$ over the paper's",
                tuple(lines),
                across=((1.0, "the paper's: no delay in it"),),
                xlim=(1.8, 4.2),
            ),
        ),
        (
            "The paper's variance is the limit of eta tau to 0. At a delay of 50 it is too low; the noise floor of a "
            "quadratic of the same curvature at that delay is right.",
        ),
    )


# -- phases -----------------------------------------------------------------------------------------------------------


def share(hits: NDArray[np.bool_]) -> tuple[float, tuple[float, float]]:
    """Share of the runs with Wilson's 95 % interval."""
    n, p, z = hits.size, float(hits.mean()), 1.96
    middle, shrink = p + z * z / (2 * n), 1 + z * z / n
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return p, (float((middle - half) / shrink), float((middle + half) / shrink))


def four_errors(p: float, runs: int) -> float:
    """Four standard errors of a share with probability p."""
    return 4 * float(np.sqrt(p * (1 - p) / runs))


def probability_within(epsilon: float, eta: float, time: float, start: Real) -> float:
    """Probability P(H_2^2 + H_3^2 + H_4^2 <= epsilon) after ``time`` from ``start``: mean by equation 7, noise by the
    diffusion of equation 8; 10^5 draws with a fixed seed."""
    law = diffusion(VALUES, momentum=MU)
    drift, noise = law.drift[1:], law.noise[1:]
    sd = np.sqrt(eta * np.square(noise) / (-2 * drift) * (1 - np.exp(2 * drift * time)))
    draws = ode(VALUES, start, time, momentum=MU)[0, 1:] + sd * np.random.default_rng(40).standard_normal((100_000, 3))
    return float((np.square(draws).sum(axis=1) <= epsilon).mean())


def _escape(eta: float, runs: int, seed: int) -> tuple[list[Comparison], Panel]:
    """Proposition 10: escape from e_2, with delta small enough for the diffusion at the saddle."""
    small, nu = 0.1, 0.1
    times = phases(VALUES, eta, momentum=MU, delta=small, epsilon=0.05, nu=nu)
    points = evenly(times.escape / eta, 21)
    h = descent(np.eye(4)[1], eta, points, runs=runs, seed=seed)
    outside = h[:, :, 0] ** 2 >= small**2
    p, interval = share(outside[:, -1])
    comparison = Comparison(
        "after T1: probability of H_2^2 <= 1 - delta^2", 1 - nu, p, four_errors(1 - nu, runs),
        "4 standard errors: false alarm 6e-5", interval=interval,
    )  # fmt: skip
    return [comparison], Panel(
        rf"Escape from the saddle, $\delta$ = {small:g}", r"time $t = k\eta$", "share of runs that have escaped",
        (line("simulated", np.array(points) * eta, outside.mean(axis=0)),),
        across=((1 - nu, "the paper's 0.9"),), upright=((times.escape, r"$T_1$"),), ylim=(0.0, 1.2),
        xlim=(0.0, 1.15 * times.escape),
    )  # fmt: skip


def _traverse(eta: float, runs: int, seed: int) -> tuple[list[Comparison], Panel]:
    """Proposition 8: traverse from the saddle to the optimum."""
    wide = 0.3
    start = np.array([wide, np.sqrt(1 - wide**2), 0.0, 0.0])
    printed = phases(VALUES, eta, momentum=MU, delta=wide, epsilon=0.05, form="paper")
    right = phases(VALUES, eta, momentum=MU, delta=wide, epsilon=0.05)
    points = evenly(right.traverse / eta, 41)
    h = descent(start, eta, points, runs=runs, seed=seed)
    first = np.median(h[:, :, 0] ** 2, axis=0)
    halfway = int(np.argmin(np.abs(np.array(points) - printed.traverse / eta)))
    tolerance = 5 * float(np.std(h[:, halfway, 0] ** 2)) / np.sqrt(runs) + 0.01
    basis = "4 standard errors of a median (1.25 sd/sqrt(runs); false alarm 6e-5), and 0.01 for terms of order eta"
    comparisons = [
        Comparison("after the printed T2: median of H_1^2", 1 - wide**2, float(first[halfway]), tolerance, basis,
                   theory=0.5),
        Comparison("after twice the printed T2: median of H_1^2", None, float(first[-1]), tolerance, basis,
                   theory=1 - wide**2),
    ]  # fmt: skip
    low, high = np.quantile(h[:, :, 0] ** 2, [0.025, 0.975], axis=0)
    return comparisons, Panel(
        rf"Traverse, $\delta$ = {wide:g}", r"time $t = k\eta$", r"$H_1^2$",
        (line("simulated, median and 95 % of runs", np.array(points) * eta, first, low=low, high=high),),
        across=((1 - wide**2, r"the paper's $1 - \delta^2$"),),
        upright=((printed.traverse, r"$T_2$ as printed"), (right.traverse, "twice")), ylim=(0.0, 1.2),
        xlim=(0.0, 1.25 * right.traverse),
    )  # fmt: skip


def _converge(runs: int, seed: int) -> tuple[list[Comparison], Panel]:
    """Proposition 6: convergence into the noise around the optimum."""
    fine, near, epsilon = 1e-5, 0.45, 0.05
    start = np.array([np.sqrt(1 - near**2), near, 0.0, 0.0])
    ends = {form: phases(VALUES, fine, momentum=MU, delta=near, epsilon=epsilon, form=form).converge
            for form in ("paper", "corrected")}  # fmt: skip
    points = sorted({*evenly(1.2 * ends["corrected"] / fine, 31), *(round(t / fine) for t in ends.values())})
    h = descent(start, fine, points, runs=runs, seed=seed)
    inside = np.square(h[:, :, 1:]).sum(axis=2) <= epsilon
    at = {form: share(inside[:, points.index(round(end / fine))]) for form, end in ends.items()}
    model = probability_within(epsilon, fine, ends["paper"], start)
    comparisons = [
        Comparison(
            f"after the printed T3: probability that the rest is below {epsilon:g}", 0.75, at["paper"][0],
            four_errors(max(model, 0.05), runs) + 0.03,
            "4 standard errors (false alarm 6e-5), and 0.03: the noise is taken from the limit",
            theory=model, interval=at["paper"][1],
        ),
        Comparison(
            "after T3 with a factor 4 in the logarithm: the same", 0.75, at["corrected"][0], relation=">=",
            interval=at["corrected"][1],
        ),
    ]  # fmt: skip
    return comparisons, Panel(
        rf"Converge, $\delta$ = {near:g}, $\epsilon$ = {epsilon:g}", r"time $t = k\eta$",
        r"share of runs within $\epsilon$", (line("simulated", np.array(points) * fine, inside.mean(axis=0)),),
        across=((0.75, "the paper's 3/4"),),
        upright=((ends["paper"], r"$T_3$ as printed"), (ends["corrected"], "corrected")), ylim=(0.0, 1.2),
        xlim=(0.0, 1.3 * ends["corrected"]),
    )  # fmt: skip


def three_phases(seed: int, progress: Progress) -> Findings:
    """Propositions 10, 8 and 6: escape from the saddle, traverse, convergence."""
    eta, runs = 1e-4, 400
    escaped, escape = _escape(eta, runs, seed)
    progress(0.4)
    traversed, traverse = _traverse(eta, runs, seed + 1)
    progress(0.6)
    converged, converge = _converge(runs, seed + 2)
    progress(1.0)
    return Findings(
        (*escaped, *traversed, *converged),
        (escape, traverse, converge),
        (
            "T1 is right. T2 as printed is the time to H_1^2 = 1/2; twice as long is needed. T3 as printed leaves out "
            "a factor 4 in the logarithm, which Markov's inequality needs for a probability of 3/4; what it gives "
            "instead depends on the step, and falls to 0 with it.",
        ),
    )


def remark_7(seed: int, progress: Progress) -> Findings:
    """Remark 7: in the last phase a delay of tau gives a speed-up of tau per worker, momentum gives none."""
    eta, runs, delay, near, epsilon = 1e-3, 400, 16, 0.45, 0.1
    start = np.array([np.sqrt(1 - near**2), near, 0.0, 0.0])
    points = evenly(1200, 301)
    cases: dict[str, tuple[float, float, int | StalenessLaw]] = {  # step, momentum, delay
        "neither": (eta, 0.0, 0),
        f"delay {delay}": (eta, 0.0, delay),
        "momentum 0.9": (0.1 * eta, 0.9, 0),
        f"geometric delay of mean {delay - 1}": (eta, 0.0, StalenessLaw.geometric(mean=delay - 1.0)),
        f"momentum 1 - 1/{delay}": (eta / delay, 1 - 1 / delay, 0),
    }
    needed, lines, per_worker = {}, [], []
    for number, (name, (step, mu, tau)) in enumerate(cases.items()):
        h = descent(start, step, points, momentum=mu, delay=tau, runs=runs, seed=seed)
        rest = np.quantile(np.square(h[:, :, 1:]).sum(axis=2), 0.75, axis=0)
        below = rest <= epsilon
        needed[name] = float(points[int(np.argmax(below))]) if below.any() else float("nan")
        shared = 1 if tau == 0 else delay
        lines.append(line(name, points, rest, group=number))
        per_worker.append(line(name, np.array(points) / shared, rest, group=number))
        progress((number + 1) / len(cases))
    alone, late, heavy, geometric, matched = needed.values()
    basis = "15 %: the quantile of 400 runs is known to 5 %, and eta (delay + 1) times the gap is 0.02"
    return Findings(
        (
            Comparison(f"speed-up of a delay of {delay}, in iterations of each worker", delay, delay * alone / late,
                       0.15 * delay, basis),
            Comparison("speed-up of momentum 0.9, at the step that ends as near", 1.0, alone / heavy, 0.15, basis),
            Comparison(
                f"updates with geometric delay over updates with momentum 1 - 1/{delay} and the step / {delay}",
                None, geometric / matched, 0.15, basis, theory=1.0,
            ),
        ),
        (
            Panel("Last phase, by updates", "updates", r"75 % quantile of $\sum_{i>1} H_i^2$", tuple(lines),
                  yscale="log", across=((epsilon, r"$\epsilon$"),)),
            Panel("By iterations of each worker, as the paper counts", "updates / workers", "", tuple(per_worker),
                  yscale="log", across=((epsilon, r"$\epsilon$"),)),
        ),
        (
            "Both papers are right: update for update a geometric delay of mean M - 1 and a momentum of 1 - 1/M, with "
            "the step that goes with it, need the same number; the speed-up of the delay is that M workers share them.",
        ),
    )  # fmt: skip


CLAIMS = (
    PaperClaim(
        "liu-fig1",
        PAPER,
        "Figure 1",
        "The larger the momentum, the smaller the largest delay that does no harm.",
        "Streaming PCA from the saddle e_2, step 5e-4, 100 runs of 40,000 updates on a grid of delays.",
        figure_1,
    ),
    PaperClaim(
        "liu-ode",
        PAPER,
        "Theorem 3, equation 7",
        "For small steps the path is that of an ordinary differential equation.",
        "200 runs at three step sizes, delay 20, momentum 0.7.",
        differential_equation,
    ),
    PaperClaim(
        "liu-sde",
        PAPER,
        "Theorem 5, equation 8",
        "Around the optimum the deviations are a diffusion, whose variance does not depend on the delay.",
        "300 runs at the step of Figure 1, momentum 0.7, without delay and with a delay of 50.",
        stochastic_equation,
    ),
    PaperClaim(
        "liu-phases",
        PAPER,
        "Propositions 6, 8 and 10",
        "Times to escape from the saddle (T1), to traverse (T2) and to converge (T3).",
        "400 runs of each phase, step 1e-4 (T3: 1e-5), momentum 0.7, no delay.",
        three_phases,
    ),
    PaperClaim(
        "liu-remark7",
        PAPER,
        "Remark 7",
        "Delay and momentum are not equivalent: a delay speeds up the last phase, momentum does not.",
        "400 runs of the last phase for each case; the updates are those after which 3/4 of the runs have arrived.",
        remark_7,
    ),
)
