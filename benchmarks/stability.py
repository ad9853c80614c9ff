"""Time of the thresholds, against a companion matrix and a general root finder.

    python benchmarks/stability.py [--long 100000]

Acceptance: for a law of 100,000 cells, ``expectation`` under 0.2 s and ``mean-square`` under 1 s (best of three).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from asyncq.staleness import StalenessLaw
from asyncq.theory.stability import threshold


def best_of(function: Callable[[], float], times: int = 3) -> tuple[float, float]:
    """(seconds, value): the fastest of a few runs."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        value = function()
        found.append(time.perf_counter() - start)
    return min(found), value


def by_roots(law: StalenessLaw, radius: Callable[[np.ndarray], float]) -> float:
    """The threshold by bisection on the largest root, 45 times; assumes one interval of stability."""
    low, high = 0.0, 4.0 * (1.0 + 2.0 * law.mean)
    for _ in range(45):
        middle = 0.5 * (low + high)
        cells = np.append(law.pmf, np.zeros(max(0, 2 - law.pmf.size)))
        polynomial = np.append([1.0, -1.0], np.zeros(cells.size - 1))
        polynomial[1:] += middle * cells
        low, high = (middle, high) if radius(polynomial) < 1.0 else (low, middle)
    return low


def companion(polynomial: np.ndarray) -> float:
    """The largest root in modulus by eigenvalues of the companion matrix."""
    return float(np.abs(np.roots(polynomial)).max())


def durand_kerner(polynomial: np.ndarray, sweeps: int = 60) -> float:
    """The largest root in modulus by simultaneous iteration, a general root finder, O(n^2) per sweep."""
    degree = polynomial.size - 1
    roots = 1.05 * np.exp(2j * np.pi * (np.arange(degree) + 0.25) / degree)
    for _ in range(sweeps):
        gaps = roots[:, None] - roots[None, :]
        np.fill_diagonal(gaps, 1.0)
        roots = roots - np.polyval(polynomial, roots) / np.prod(gaps, axis=1)
    return float(np.abs(roots).max())


def main() -> None:
    """Print one line per law and method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", type=int, default=100_000, help="cells of the long laws")
    n = parser.parse_args().long
    power = np.arange(1, n + 1.0) ** -2.5
    laws = [
        StalenessLaw.uniform(0, n - 1),
        StalenessLaw.geometric(mean=n / 35),
        StalenessLaw.from_pmf(power / power.sum()),
        StalenessLaw.from_pmf(np.random.default_rng(0).dirichlet(np.ones(n))),
    ]
    threshold(StalenessLaw.constant(3))  # imports
    print(f"{'law':34} {'cells':>8} {'criterion or method':24} {'seconds':>9}  threshold")
    for law in laws:
        for criterion in ("expectation", "mean-square"):
            seconds, value = best_of(lambda law=law, criterion=criterion: threshold(law, criterion=criterion))
            print(f"{law.name:34} {law.pmf.size:8d} {criterion:24} {seconds:9.4f}  {value:.10g}")
    for size in (30, 100, 300):
        law = StalenessLaw.uniform(1, size)
        methods = {
            "fft": lambda law=law: threshold(law, criterion="expectation"),
            "companion matrix": lambda law=law: by_roots(law, companion),
        }
        if size <= 30:
            methods["Durand-Kerner"] = lambda law=law: by_roots(law, durand_kerner)
        for name, function in methods.items():
            seconds, value = best_of(function, 1)
            print(f"{law.name:34} {law.pmf.size:8d} {name:24} {seconds:9.4f}  {value:.10g}")


if __name__ == "__main__":
    main()
