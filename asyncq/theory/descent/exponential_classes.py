"""The exact second moments of exponential workers of a few speeds, as a matrix.

With d = w - v the last update and e_m = w - u_m how far worker m is behind, an update by worker m adds
D = mu d - c (w - e_m) to w and to the other e_n, and sets d = D, e_m = 0. The moments are E of w^2, wd, d^2, of w e,
d e, e^2 for each class of equal workers, and of e_m e_n for each pair of classes. Source: docs/theory/stability.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["class_moments"]

Real = NDArray[np.float64]


def class_moments(
    counts: Sequence[int], shares: Sequence[float], steps: Real, momentum: float, curvature_variance: float = 0.0
) -> tuple[Real, Real]:
    """The recursion of the moments at each alpha h (S,), shape (S, N, N), and what noise of unit alpha^2 s^2 adds to
    them, (N,). The first moment is E w^2; ``counts`` and ``shares`` are those of the classes."""
    n, p, mu, classes = np.array(counts), np.array(shares), momentum, range(len(counts))
    pairs = [(k, g) for k in classes for g in classes if k < g or (k == g and n[k] > 1)]
    size = 3 + 3 * len(counts) + len(pairs)
    unit = np.eye(size)
    c = steps[:, None]
    ww, wd, dd = unit[0], unit[1], unit[2]
    we, de, ee = (unit[3 + i * len(counts) :][: len(counts)] for i in range(3))
    both = {pair: unit[3 + 3 * len(counts) + i] for i, pair in enumerate(pairs)}
    both.update({(g, k): row for (k, g), row in both.items()})
    by_w = [c * (we[g] - ww) + mu * wd for g in classes]  # E w D if the worker is of class g
    square = [
        mu * mu * dd + 2 * mu * c * (de[g] - wd) + c * c * (1.0 + curvature_variance) * (ww - 2 * we[g] + ee[g])
        for g in classes
    ]
    by_e = {pair: mu * de[pair[0]] + c * (row - we[pair[0]]) for pair, row in both.items()}  # E e_k D

    def others(*absent: int) -> Real:
        """The chances of a worker of each class, other than these of their classes."""
        return np.asarray(n * p - sum(p[k] * (np.arange(n.size) == k) for k in absent))

    rows = [
        sum(n[g] * p[g] * (ww + 2 * by_w[g] + square[g]) for g in classes),
        sum(n[g] * p[g] * (by_w[g] + square[g]) for g in classes),
        sum(n[g] * p[g] * square[g] for g in classes),
    ]
    for kept, w_part, e_part in ((we, 1, 1), (None, 0, 1), (ee, 0, 2)):
        for k in classes:
            chance = others(k)
            row = 0.0 * c * ww if kept is None else (1 - p[k]) * kept[k] + 0.0 * c
            for g in classes:
                if (k, g) in by_e:
                    row = row + chance[g] * (w_part * by_w[g] + e_part * by_e[k, g] + square[g])
            rows.append(row)
    for k, j in pairs:
        chance, row = others(k, j), (1 - p[k] - p[j]) * both[k, j] + 0.0 * c
        for g in classes:
            if (k, g) in by_e and (j, g) in by_e:
                row = row + chance[g] * (by_e[k, g] + by_e[j, g] + square[g])
        rows.append(row)
    drive = np.concatenate([np.ones(3), np.tile(1 - p, 3), [1 - p[k] - p[j] for k, j in pairs]])
    return np.stack(rows, axis=1), drive
