"""[Edge] N. Giladi, M. Nacson, E. Hoffer, D. Soudry. At Stability's Edge. ICLR 2020: the figures of its analysis.

The figures show 1/(a eta), the inverse of the largest stable learning rate per unit sharpness, against the delay. The
paper computes it from the roots of a characteristic equation, we from crossings of the unit circle.
"""

from __future__ import annotations

from math import acos, erf, pi, sin, sqrt

import numpy as np
from numpy.typing import NDArray

from asyncq.papers.claim import Comparison, Findings, Line, Panel, PaperClaim, Progress, line
from asyncq.staleness import StalenessLaw
from asyncq.theory.stability import Variant, threshold

__all__ = ["CLAIMS", "PAPER"]

Real = NDArray[np.float64]
PAPER = "[Edge]"
DELAYS = np.arange(1.0, 33.0)
MOMENTA = (0.0, 0.5, 0.7, 0.9)
INVERSE = r"$1/(a\eta)$: 1 / (sharpness x largest stable step)"
STRAIGHT = "1 % of the figure's height, the width of a drawn line: the paper judges by eye"
ROUNDING = "rounding: both are exact"


def inverse_edge(law: StalenessLaw, momentum: float = 0.0, variant: Variant = "dampened") -> float:
    """Inverse threshold 1/(a eta) of stability in expectation."""
    return 1.0 / threshold(law, momentum=momentum, variant=variant, criterion="expectation")


def bend(x: Real, y: Real) -> float:
    """Largest distance of y from its least-squares line, over the largest y."""
    return float(np.abs(np.polyval(np.polyfit(x, y, 1), x) - y).max() / y.max())


def slope(x: Real, y: Real) -> float:
    """Slope of the least-squares line."""
    return float(np.polyfit(x, y, 1)[0])


def largest_root(coefficients: Real) -> float:
    """Largest modulus of a root, by companion matrix: the paper's criterion."""
    return float(np.abs(np.roots(coefficients)).max())


def figure_6(seed: int, progress: Progress) -> Findings:
    """Figure 6 and equations 6 and 7: constant delay, no momentum."""
    y = np.array([inverse_edge(StalenessLaw.constant(int(tau))) for tau in DELAYS])
    straight = (2 * DELAYS + 1) / pi
    closed = 1 / (2 * np.sin(pi / (4 * DELAYS + 2)))
    roots = [
        largest_root(np.concatenate(([1.0, -1.0], np.zeros(int(tau) - 1), [1 / edge])))
        for tau, edge in zip(DELAYS.tolist(), y, strict=True)
    ]
    panel = Panel(
        "Constant delay",
        r"delay $\tau$ (updates)",
        INVERSE,
        (
            line(r"the paper's line, $(2\tau + 1)/\pi$", DELAYS, straight, "paper"),
            line("largest stable step, from the unit circle", DELAYS, y, look="points"),
        ),
    )
    return Findings(
        (
            Comparison("slope of the straight line", 2 / pi, slope(DELAYS, y), 0.01 * 2 / pi, STRAIGHT),
            Comparison(
                "largest gap to the straight line, delays 1 to 32",
                0.05,
                float(np.abs(y - straight).max()),
                0.0,
                "the paper's bound",
                "<=",
            ),
            Comparison("largest gap to equation 6, relative", 0.0, float(np.abs(y / closed - 1).max()), 1e-9, ROUNDING),
            Comparison(
                "largest root at our threshold (the paper's criterion: 1)",
                1.0,
                float(roots[int(np.argmax(np.abs(np.array(roots) - 1)))]),
                1e-9,
                ROUNDING,
            ),
            Comparison(
                "edge at delay 1 by the last line of appendix B, which drops a factor 2",
                sin(pi / 6),
                1 / float(y[0]),
                1e-9,
                ROUNDING,
                theory=2 * sin(pi / 6),
            ),
        ),
        (panel,),
    )


def figure_7(seed: int, progress: Progress) -> Findings:
    """Figure 7: uniform delay on 1 .. b, b up to 64."""
    last = np.arange(1.0, 65.0)
    mean = (1 + last) / 2
    y = np.array([inverse_edge(StalenessLaw.uniform(1, int(b))) for b in last])
    panel = Panel(
        r"Uniform delay on 1, ..., b",
        r"mean delay $E\tau$ (updates)",
        INVERSE,
        (
            line("straight line of least squares", mean, np.polyval(np.polyfit(mean, y, 1), mean), "paper"),
            line("largest stable step", mean, y, look="points"),
            line(r"constant delay of the same mean, $(2\tau + 1)/\pi$", mean, (2 * mean + 1) / pi, "theory", group=3),
        ),
    )
    return Findings(
        (
            Comparison("largest distance from a straight line", 0.0, bend(mean, y), 0.01, STRAIGHT),
            Comparison("slope per update of mean delay", None, slope(mean, y)),
            Comparison(
                "slope from b = 32 on; its limit is 4/pi^2",
                None,
                slope(mean[31:], y[31:]),
                4e-4,
                "0.1 %: the limit is approached like 1/b^2",
                theory=4 / pi**2,
            ),
        ),
        (panel,),
        (
            "A uniform delay allows steps half as large again as a constant one of the same mean: the slope is "
            "4/pi^2 = 0.405, not 2/pi = 0.637. The inverse relation holds, its constant depends on the law.",
        ),
    )


def figure_8(seed: int, progress: Progress) -> Findings:
    """Figure 8: the discretised normal law on 1 .. 2 mu."""
    mu = np.arange(1.0, 31.0)
    laws = [StalenessLaw.discrete_normal(int(m)) for m in mu]
    y = np.array([inverse_edge(law) for law in laws])
    means = np.array([law.mean for law in laws])
    theta = pi / (
        2 * mu + 1
    )  # the angle of the root; a normal law in cells of 1 has the transform e^{-t^2/2} sinc(t/2)
    cells = {
        m: [0.5 * (erf((k + 0.5 - m) / sqrt(2)) - erf((k - 0.5 - m) / sqrt(2))) for k in range(1, 2 * m + 1)]
        for m in (1, 2)
    }
    true = {m: sum(k * q for k, q in enumerate(cell, 1)) / sum(cell) for m, cell in cells.items()}
    panel = Panel(
        r"Normal delay, $N(\mu, 1)$ on 1, ..., $2\mu$",
        r"$\mu$, as the paper labels its axis (updates)",
        INVERSE,
        (
            line(r"constant delay, $(2\tau + 1)/\pi$", mu, (2 * mu + 1) / pi, "paper"),
            line("largest stable step", mu, y, look="points", group=0),
            line("the same, at the law's true mean", means[:2], y[:2], look="points", group=1),
        ),
    )
    return Findings(
        (
            Comparison("largest distance from a straight line, mu 3 to 30", 0.0, bend(mu[2:], y[2:]), 0.01, STRAIGHT),
            Comparison(
                "slope, mu 3 to 30",
                2 / pi,
                slope(mu[2:], y[2:]),
                0.02 * 2 / pi,
                "2 %: a spread of 1 update beside delays of 3 to 30",
            ),
            Comparison(
                "largest gap to the closed form exp(-t^2/2)/t, t = pi/(2 mu + 1), relative, mu 6 to 30",
                None,
                float(np.abs(y * theta * np.exp(theta**2 / 2) - 1)[5:].max()),
                1e-6,
                "1e-6: what the cut tails of the law weigh at mu = 6",
                theory=0.0,
            ),
            Comparison(
                "mean of the law for mu = 1",
                1.0,
                float(means[0]),
                1e-9,
                ROUNDING,
                theory=true[1],
            ),
            Comparison("mean of the law for mu = 2", 2.0, float(means[1]), 1e-9, ROUNDING, theory=true[2]),
        ),
        (panel,),
        (
            "As printed, the probabilities sum to "
            f"{sum(cells[1]):.3f} for mu = 1 and {sum(cells[2]):.3f} for mu = 2; here they are renormalised, and the "
            "mean is then not mu for the two smallest.",
        ),
    )


def _family(variant: Variant) -> tuple[list[Line], dict[float, Real]]:
    """Curves of 1/(a eta) against the delay, for every momentum."""
    edges = {
        m: np.array([inverse_edge(StalenessLaw.constant(int(tau)), m, variant) for tau in DELAYS]) for m in MOMENTA
    }
    return [line(f"m = {m:g}", DELAYS, y, group=n) for n, (m, y) in enumerate(edges.items())], edges


def figure_10(seed: int, progress: Progress) -> Findings:
    """Figure 10: standard momentum with dampening, equation 26."""
    lines, edges = _family("dampened")
    panel = Panel("Standard momentum, dampened", r"delay $\tau$ (updates)", INVERSE, tuple(lines))
    slopes = [slope(DELAYS, y) for y in edges.values()]
    roots = 0.0
    for m, y in edges.items():
        for tau, inverse in zip(DELAYS.astype(int).tolist(), y, strict=True):
            equation = np.zeros(max(tau + 2, 3))
            equation[:3] = 1.0, -(1 + m), m
            equation[tau + 1] += (1 - m) / inverse
            roots = max(roots, abs(largest_root(equation) - 1))
    far = np.arange(400.0, 421.0)
    steep = slope(far, np.array([inverse_edge(StalenessLaw.constant(int(t)), 0.9) for t in far]))
    return Findings(
        (
            Comparison(
                "largest distance from a straight line, m = 0.9",
                0.0,
                bend(DELAYS, edges[0.9]),
                0.05,
                "5 % of the figure's height: the line of m = 0.9 is visibly bent below delay 9",
            ),
            Comparison(
                "smallest increase of the slope from one m to the next",
                0.0,
                float(np.diff(slopes).min()),
                0.0,
                "an order: none",
                ">=",
            ),
            Comparison(
                "smallest increase of 1/(a eta) from one m to the next, at delays of 2 or more",
                0.0,
                float(np.diff(np.array(list(edges.values()))[:, 1:], axis=0).min()),
                0.0,
                "an order: none",
                ">=",
            ),
            Comparison("largest root of equation 26 at our threshold, less 1", 0.0, roots, 1e-9, ROUNDING),
            Comparison("slope for m = 0.9 over delays 1 to 32", None, slopes[-1]),
            Comparison(
                "slope for m = 0.9 over delays 400 to 420; its limit is 2/pi",
                None,
                steep,
                0.002,
                "0.002: the limit is approached like 1/delay",
                theory=2 / pi,
            ),
        ),
        (panel,),
        (
            "The lines are steeper for a larger momentum over the delays drawn, as the paper says. Far out they are "
            "parallel: dampened momentum adds m/(1 - m) updates to the delay and nothing else, and every slope tends "
            "to 2/pi.",
        ),
    )


def shifted_slope(m: float) -> float:
    """Limit slope of 1/(a eta) for shifted momentum: (1 - m)/(arccos(m) sqrt(1 - m^2)) (ours: equation 11 for a large
    delay, with z^tau = e^{i theta}, cos theta = m)."""
    return (1 - m) / (acos(m) * sqrt(1 - m * m))


def figure_4(seed: int, progress: Progress) -> Findings:
    """Figure 4: shifted momentum, equation 11."""
    lines, edges = _family("shifted")
    panel = Panel("Shifted momentum", r"delay $\tau$ (updates)", INVERSE, tuple(lines))
    stacked = np.array(list(edges.values()))
    roots = max(
        abs(largest_root(np.concatenate(([1.0, -1.0], np.zeros(int(tau) - 1), [(1 - m) / y - m, m]))) - 1)
        for m, ys in edges.items()
        for tau, y in zip(DELAYS.tolist(), ys, strict=True)
    )
    comparisons = [
        Comparison(
            "largest distance from a straight line, any m", 0.0, max(bend(DELAYS, y) for y in stacked), 0.01, STRAIGHT
        ),
        Comparison(
            "smallest gain in the largest step from one m to the next, relative",
            0.0,
            float((stacked[:-1] / stacked[1:] - 1).min()),
            0.0,
            "an order: none",
            ">=",
        ),
        Comparison("largest root of equation 11 at our threshold, less 1", 0.0, roots, 1e-9, ROUNDING),
    ]
    comparisons += [
        Comparison(
            f"slope for m = {m:g}, delays 16 to 32; closed form for large delays",
            None,
            slope(DELAYS[15:], y[15:]),
            1e-3,
            "0.001: the limit is approached like 1/delay^2",
            theory=shifted_slope(m),
        )
        for m, y in edges.items()
    ]
    return Findings(
        tuple(comparisons),
        (panel,),
        (
            "The slope is (1 - m)/(arccos(m) sqrt(1 - m^2)): from 2/pi = 0.637 without momentum down to 1/2. All that "
            "shifted momentum can buy is a step size about a quarter larger, far out.",
        ),
    )


CLAIMS = (
    PaperClaim(
        "giladi-fig4",
        PAPER,
        "Figure 4 (left)",
        "With shifted momentum the stable step is inverse to the delay, and grows with the momentum.",
        "The threshold of equation 11. The right panel, measured on a network, is not computed.",
        figure_4,
        exact=True,
    ),
    PaperClaim(
        "giladi-fig6",
        PAPER,
        "Figure 6, equations 6 and 7",
        "The largest stable step is inverse to the delay: 1/(a eta) = (2 tau + 1)/pi within 0.05.",
        "The threshold of constant staleness, without momentum.",
        figure_6,
        exact=True,
    ),
    PaperClaim(
        "giladi-fig7",
        PAPER,
        "Figure 7",
        "The inverse relation holds for a uniform delay too.",
        "The threshold of the uniform law on 1, ..., b for b up to 64.",
        figure_7,
        exact=True,
    ),
    PaperClaim(
        "giladi-fig8",
        PAPER,
        "Figure 8",
        "The inverse relation holds for a normal delay too.",
        "The threshold of the discretised normal law for mu up to 30.",
        figure_8,
        exact=True,
    ),
    PaperClaim(
        "giladi-fig10",
        PAPER,
        "Figure 10",
        "With standard momentum the stable step is inverse to the delay, and smaller the larger the momentum.",
        "The threshold of equation 26, dampened.",
        figure_10,
        exact=True,
    ),
)
