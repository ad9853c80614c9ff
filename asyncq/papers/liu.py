"""[PCA] T. Liu, S. Li, J. Shi, E. Zhou, T. Zhao. Towards Understanding Acceleration Tradeoff between Momentum and
Asynchrony. NeurIPS 2018: its figure on streaming PCA, its limits and its phases.

All on the paper's covariance, diag(4, 3, 2, 1), with normal samples, which are not bounded as its Assumption 2 asks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asyncq.papers.claim import Claim, Comparison, Findings, Panel, Progress, line
from asyncq.sgd.objectives import StreamingPCA
from asyncq.sgd.replay import replay
from asyncq.sgd.streaming_pca import (
    FIGURE_1,
    HarmlessRule,
    delay_grid,
    diffusion,
    harmless_delay,
    ode,
    phases,
    simulated_harmless_delays,
)
from asyncq.staleness import StalenessLaw

__all__ = ["CLAIMS", "PAPER"]

Real = NDArray[np.float64]
PAPER = "[PCA]"
EIGENVALUES = np.array(FIGURE_1.eigenvalues)
ERRORS = 4.0
FALSE = "four standard errors: false alarm 0.006 % each"


def positions(start: Real, eta: float, momentum: float, delay: int, points: Real, runs: int, seed: int) -> Real:
    """Simulated H at the times t = k eta in ``points``, (runs, points, d)."""
    marks = np.unique(np.round(points / eta).astype(np.int64))
    curve = replay(
        StreamingPCA(EIGENVALUES, start=start), StalenessLaw.constant(delay), step=eta, momentum=momentum,
        updates=int(marks[-1]), replications=runs, points=marks.tolist(), keep_positions=True, seed=seed,
    )  # fmt: skip
    assert curve.positions is not None
    return np.asarray(curve.positions[0, 0])


def figure_1(seed: int, progress: Progress) -> Findings:
    """Figure 1: the largest delay that does no harm, at five momenta."""
    rule, grid = HarmlessRule(), delay_grid()
    found, errors = simulated_harmless_delays(rule=rule, grid=grid, seed=seed, progress=progress)
    comparisons, squares, outside = [], [], []
    predicted = []
    for mu, ours, paper in zip(FIGURE_1.momenta, found.tolist(), FIGURE_1.delays, strict=True):
        theory, square = (
            harmless_delay(EIGENVALUES, FIGURE_1.eta, momentum=mu, criterion=criterion)
            for criterion in ("expectation", "mean-square")
        )
        at = int(np.searchsorted(grid, ours))
        step = int(grid[min(at + 1, grid.size - 1)] - ours)
        predicted.append(theory)
        squares.append(square)
        if abs(ours - square) > 0.15 * square + step:
            outside.append(mu)
        comparisons.append(
            Comparison(
                f"largest harmless delay at momentum {mu:g}",
                paper,
                ours,
                0.15 * theory + step,
                "15 % of the prediction and a step of the grid",
                theory=theory,
            )
        )
    panels = (
        Panel(
            "Error by delay",
            r"delay $\tau$ (updates)",
            "error / error without delay",
            tuple(
                line(f"momentum {mu:g}", grid[np.isfinite(e)], e[np.isfinite(e)] / e[0], group=i)
                for i, (mu, e) in enumerate(zip(FIGURE_1.momenta, errors.T, strict=True))
            ),
            ylim=(0.8, 4.0),
            across=((rule.tolerance, "harmless up to here"),),
        ),
        Panel(
            "Largest harmless delay",
            "momentum",
            "updates",
            (
                line("read off the paper's figure", FIGURE_1.momenta, FIGURE_1.delays, "paper"),
                line("simulated", FIGURE_1.momenta, found, look="points"),
                line(r"predicted: stability of curvature $2\lambda_1$", FIGURE_1.momenta, predicted, "theory"),
            ),
            ylim=(0, 140),
        ),
    )
    ours = ", ".join(map(str, squares))
    misses = f"outside the same tolerance at momentum {', '.join(map(str, outside))}" if outside else "within it too"
    return Findings(
        tuple(comparisons),
        panels,
        (
            f"Harmless: squared distance to the optimum, averaged over {rule.runs} runs and the last quarter of "
            f"{rule.updates:,} updates, at most {rule.tolerance:g} times that without delay; one rule for all momenta, "
            "written down before the first run. The theory column is the prediction in expectation (theory.md section "
            f"7); in mean square it is {ours}, {misses}.",
        ),
    )


def limit_ode(seed: int, progress: Progress) -> Findings:
    """Theorem 3: the path converges to the ODE as eta goes to 0."""
    start, mu, delay, runs = np.sqrt([0.01, 0.49, 0.3, 0.2]), 0.5, 4, 50
    etas, times = np.array([1e-4, 2e-5, 4e-6]), np.linspace(0.05, 2.0, 40)
    expected = ode(EIGENVALUES, start, times, momentum=mu)
    gaps, errors, path = [], [], expected
    for number, eta in enumerate(etas):
        h = positions(start, eta, mu, delay, times, runs, seed)
        each = np.abs(h - expected).max(axis=(1, 2))
        gaps.append(float(each.mean()))
        errors.append(float(each.std(ddof=1) / np.sqrt(runs) / gaps[-1]))
        path = h[0]
        progress((number + 1) / 3)
    span = float(np.log(etas[0] / etas[-1]))
    rate, error = float(np.log(gaps[0] / gaps[-1])) / span, float(np.hypot(errors[0], errors[-1])) / span
    panel = Panel(
        f"One path at eta = {etas[-1]:g}, and equation 7",
        "time t = k eta",
        "coordinates of H",
        tuple(line(f"$H_{i + 1}$", times, path[:, i], look="points", group=i) for i in range(4))
        + tuple(line("", times, expected[:, i], "theory", group=i) for i in range(4)),
    )
    return Findings(
        (
            Comparison(
                "exponent of eta in the largest gap between path and equation 7",
                None,
                rate,
                ERRORS * error + 0.02,
                "four standard errors, and 0.02 because the steps are not 0",
                theory=0.5,
            ),
            Comparison(
                "largest gap at the smallest step, mean of 50 runs",
                0.0,
                gaps[-1],
                gaps[0] / 5 * (1 + ERRORS * float(np.hypot(errors[0], errors[-1])) + 0.06),
                "a fifth of the gap at 25 times the step, four standard errors, and 6 % because steps are not 0",
            ),
        ),
        (panel,),
    )


def limit_sde(seed: int, progress: Progress) -> Findings:
    """Theorem 5: the stationary variances of U = (H - e_1) / sqrt(eta)."""
    eta, delay, runs = 1e-4, 5, 100
    comparisons, lines = [], []
    times = np.linspace(2.0, 10.0, 401)
    for number, mu in enumerate((0.0, 0.7)):
        h = positions(np.eye(4)[0], eta, mu, delay, times, runs, seed)
        each = np.square(h[:, :, 1:]).mean(axis=1) / eta
        mean, error = each.mean(axis=0), each.std(axis=0, ddof=1) / np.sqrt(runs)
        expected = diffusion(EIGENVALUES, momentum=mu).stationary_variance[1:]
        low, high = mean - 1.96 * error, mean + 1.96 * error
        lines += [
            line(f"momentum {mu:g}, simulated", [2, 3, 4], mean, "ours", "points", low=low, high=high, group=number),
            line(f"momentum {mu:g}, Theorem 5", [2, 3, 4], expected, "theory", group=number),
        ]
        comparisons += [
            Comparison(
                f"variance of U_{i} at momentum {mu:g}",
                float(expected[i - 2]),
                float(mean[i - 2]),
                float(ERRORS * error[i - 2]),
                FALSE,
                interval=(float(low[i - 2]), float(high[i - 2])),
            )
            for i in (2, 3, 4)
        ]
        progress((number + 1) / 2)
    panel = Panel("Around the optimum", "coordinate i", r"variance of $U_i$", tuple(lines), yscale="log")
    return Findings(tuple(comparisons), (panel,))


def three_phases(seed: int, progress: Progress) -> Findings:
    """Propositions 10, 8 and 6: the times T1, T2, T3 as printed and corrected."""
    from scipy.special import ndtr, ndtri

    eta, mu, delay, runs = 2e-5, 0.7, 10, 500
    square, epsilon, nu = 0.2, 0.05, 0.1
    delta, near = np.sqrt(square), 1.0 - square
    printed, right = (
        phases(EIGENVALUES, eta, momentum=mu, delta=delta, epsilon=epsilon, nu=nu, form=form)
        for form in ("paper", "corrected")
    )

    def share(hits: NDArray[np.bool_]) -> tuple[float, float, tuple[float, float]]:
        """A probability, four standard errors of it, its interval."""
        p = float(hits.mean())
        error = float(np.sqrt(max(p * (1 - p), 0.25 / runs) / runs))
        return p, ERRORS * error, (max(0.0, p - 1.96 * error), min(1.0, p + 1.96 * error))

    h = positions(np.eye(4)[1], eta, mu, delay, np.array([right.escape]), runs, seed)[:, -1]
    escaped, slack, interval = share(np.square(h[:, 1]) <= near)
    left = "probability of H_2^2 <= 1 - delta^2 after T1"
    bent = float(2 * ndtr(-ndtri((1 + nu) / 2) / np.sqrt(near)))  # H_1 = U / sqrt(1 + U^2) lags behind U
    comparisons = [Comparison(left, 1 - nu, escaped, slack, FALSE, ">=", theory=bent, interval=interval)]
    progress(0.5)
    times = np.linspace(0.0, right.traverse, 41)[1:]
    h = positions(np.array([delta, np.sqrt(near), 0, 0]), eta, mu, delay, times, runs, seed)
    first = np.square(h[:, :, 0])
    mean, error = first.mean(axis=0), first.std(axis=0, ddof=1) / np.sqrt(runs)
    half = int(np.argmin(np.abs(times - printed.traverse)))
    allowed = "four standard errors, and 0.01 for the finite step and delay"
    comparisons += [
        Comparison("mean of H_1^2 after T2 as printed", near, float(mean[half]), float(ERRORS * error[half]) + 0.01,
                   allowed, ">=", theory=0.5),
        Comparison("mean of H_1^2 after T2 corrected", None, float(mean[-1]), float(ERRORS * error[-1]) + 0.01,
                   allowed, theory=near),
    ]  # fmt: skip
    progress(0.7)
    start = np.array([np.sqrt(near), delta, 0, 0])
    h = positions(start, eta, mu, delay, np.array([printed.converge, right.converge]), runs, seed)
    rest = np.square(h[:, :, 1:]).sum(axis=2)
    expected = _settled(start, eta, mu, printed.converge, epsilon)
    for form, column, theory in (("as printed", 0, expected), ("corrected", 1, None)):
        p, slack, interval = share(rest[:, column] <= epsilon)
        comparisons.append(
            Comparison(
                f"probability of a rest of {epsilon:g} or less after T3 {form}",
                0.75,
                p,
                slack + (0.0 if theory is None else 0.05),
                FALSE if theory is None else "four standard errors, and 0.05 for the linearisation of the theory",
                ">=",
                theory=theory,
                interval=interval,
            )
        )
    progress(1.0)
    path = ode(EIGENVALUES, [delta, np.sqrt(near), 0, 0], times, momentum=mu)
    panel = Panel(
        "From the saddle to the optimum",
        "time t = k eta",
        r"$H_1^2$",
        (
            line(f"mean of {runs} runs", times, mean),
            line("equation 7", times, np.square(path[:, 0]), "theory"),
        ),
        across=((near, r"$1 - \delta^2$"),),
        upright=((printed.traverse, "T2 as printed"), (right.traverse, "corrected")),
    )
    return Findings(
        tuple(comparisons),
        (panel,),
        (
            "T1 is linearised at the saddle and right for small delta; the theory column has the saturation in it. "
            "T2 as printed reaches H_1^2 = 1/2 only: half the time needed. T3 as printed gives no fixed probability: "
            "it ends where the mean of the rest is about epsilon, and at small steps the probability falls below 1/2.",
        ),
    )


def _settled(start: Real, eta: float, mu: float, time: float, epsilon: float) -> float:
    """The probability that the rest is epsilon or less, by normal deviations from the ODE (200,000 fixed draws)."""
    mean = ode(EIGENVALUES, start, time, momentum=mu)[0, 1:]
    near = diffusion(EIGENVALUES, momentum=mu)
    spread = np.sqrt(eta * near.stationary_variance[1:] * -np.expm1(2.0 * near.drift[1:] * time))
    draws = mean + spread * np.random.default_rng(0).standard_normal((200_000, 3))
    return float((np.square(draws).sum(axis=1) <= epsilon).mean())


def remark_7(seed: int, progress: Progress) -> Findings:
    """Remark 7: at an equal noise floor asynchrony divides each worker's iterations by tau, momentum does not."""
    from scipy.signal import lfilter

    eta, square, epsilon, delay, mu = 1e-4, 0.05, 0.02, 9, 0.9

    def updates(step: float, momentum: float, late: int) -> float:
        """Until E H_2^2 + E H_3^2 + E H_4^2 = epsilon, linearised at the optimum, from H_2^2 = delta^2; no chance."""
        length = 60_000
        total, noise = np.zeros(length), np.zeros(length)
        for number, value in enumerate(EIGENVALUES[1:]):
            c, unit = step * (EIGENVALUES[0] - value), np.zeros(length)
            unit[0] = 1.0
            recursion = np.zeros(max(3, late + 2))
            recursion[:3] += 1.0, -1.0 - momentum, momentum
            recursion[late + 1] += c
            response = lfilter([1.0], recursion, unit)
            if number == 0:
                total += square * np.square(1.0 - c * np.append(0.0, np.cumsum(response)[:-1]))
            noise += step**2 * EIGENVALUES[0] * value * np.append(0.0, np.cumsum(np.square(response))[:-1])
        total += noise
        after = int(np.argmax(total <= epsilon))
        return float(after - (epsilon - total[after]) / (total[after - 1] - total[after]))

    plain = updates(eta, 0.0, 0)
    progress(1 / 3)
    with_momentum = updates(eta * (1 - mu), mu, 0)
    progress(2 / 3)
    late = updates(eta, 0.0, delay)
    bars = np.array([plain, with_momentum, late / delay])
    small = "2 %: terms of the order eta tau and eta mu / (1 - mu) times a few"
    return Findings(
        (
            Comparison("iterations with momentum 0.9 over those without, at an equal noise floor", 1.0,
                       with_momentum / plain, 0.02, small),
            Comparison("iterations of each of 9 asynchronous workers over those of one", 1 / delay,
                       late / delay / plain, 0.02 / delay, small),
        ),
        (
            Panel(
                "Phase III: iterations to the same error at the same noise floor",
                "1: one worker, 2: with momentum 0.9, 3: 9 asynchronous workers",
                "iterations of a worker",
                (line("to a squared distance of 0.02", [1, 2, 3], bars, look="bars"),),
            ),
        ),
        (
            "The conjecture that the paper argues against, asynchrony = momentum, is about a geometric delay and the "
            "expected update at a fixed step; what is compared here is work per worker at a fixed noise floor.",
        ),
    )  # fmt: skip


CLAIMS = (
    Claim(
        "liu-fig1",
        PAPER,
        "Figure 1",
        "The larger the momentum, the smaller the delay that does no harm.",
        "diag(4, 3, 2, 1), eta = 0.0005, from the saddle e_2, 100 runs at every delay and momentum.",
        figure_1,
    ),
    Claim(
        "liu-ode",
        PAPER,
        "Theorem 3, equation 7",
        "As the step goes to 0 the path converges to the solution of an ODE.",
        "50 runs at three step sizes, momentum 0.5, delay 4.",
        limit_ode,
    ),
    Claim(
        "liu-sde",
        PAPER,
        "Theorem 5",
        "Around the optimum the path is an Ornstein-Uhlenbeck process, whatever the delay.",
        "100 runs at eta = 0.0001, delay 5, after the process has become stationary.",
        limit_sde,
    ),
    Claim(
        "liu-phases",
        PAPER,
        "Propositions 6, 8 and 10",
        "After T1, T2, T3 the saddle is left, the optimum is near, the rest is noise.",
        "500 runs at eta = 0.00002, momentum 0.7, delay 10; delta^2 = 0.2, epsilon = 0.05.",
        three_phases,
    ),
    Claim(
        "liu-remark7",
        PAPER,
        "Remark 7",
        "Asynchrony is not equivalent to momentum: it speeds up convergence to the optimum, momentum does not.",
        "Second moments linearised at the optimum, steps chosen for equal noise floors.",
        remark_7,
        exact=True,
    ),
)
