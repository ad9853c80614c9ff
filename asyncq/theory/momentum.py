"""Whether a staleness law acts as momentum. Source: [AbM] section 4; theory.md section 4."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asyncq.staleness import StalenessLaw

__all__ = ["autoregression", "is_momentum"]


def autoregression(law: StalenessLaw, terms: int) -> NDArray[np.float64]:
    """c_1 .. c_terms of 1/Q(B) = (1/q_0)(1 - c_1 B - c_2 B^2 - ...): the update's weights on past steps.

    Raises ``ValueError`` if q_0 = 0: such a law has no autoregression. Source: theory.md section 4.
    """
    q = law.pmf
    if q[0] <= 0:
        raise ValueError("a law with no fresh gradients (q_0 = 0) has no autoregression on past steps")
    ratio = np.zeros(terms + 1)
    ratio[: min(terms + 1, q.size)] = q[: terms + 1] / q[0]
    c = np.zeros(terms + 1)
    for n in range(1, terms + 1):
        c[n] = ratio[n] - c[1:n] @ ratio[n - 1 : 0 : -1]
    return c[1:]


def is_momentum(law: StalenessLaw, rows: int | None = None) -> bool:
    """Whether the law is a sub-convex average of past steps (all c_k >= 0); otherwise it is a delay.

    For a law measured on ``rows`` gradients a weight counts as negative when it is below zero by more than four
    standard errors of independent rows, looked for among the first steps (up to the law's mean, at least two).
    """
    q = law.pmf
    noise = 0.0 if rows is None else 4.0 / (rows * max(q[0], 1.0 / rows)) ** 0.5
    if q[0] <= 0 or noise > 0.5:
        return False
    weights = autoregression(law, max(2, int(law.mean)))
    # an error in c_n is at most its own cell's plus those of the earlier ones it is made of
    return bool(np.all(weights >= -noise * np.sqrt(np.arange(1, weights.size + 1)) - 1e-12))
