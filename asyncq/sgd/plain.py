"""Update in plain numpy: for Python gradients, and as a check of the compiled update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncq.sgd.schedule import Schedule

__all__ = ["descend"]

Real = NDArray[np.float64]


def descend(
    gradient: Callable[[Real, Any], Any],
    samples: Callable[[], Any],
    start: Real,
    schedule: Schedule,
    *,
    step: float,
    momentum: float = 0.0,
    back: float = 0.0,
    shifted: bool = False,
    limit: float = np.inf,
) -> tuple[Real, int]:
    """Positions w_0 .. w_T, (updates + 1, d), and the update at which the squared length exceeded ``limit`` (-1:
    never). ``samples()`` gives the sample of each gradient in row order; the update is that of
    `asyncq.sgd.kernels.advance`. Raises ``ValueError`` for a gradient of another shape than w."""
    path = np.full((schedule.updates + 1, start.size), np.nan)
    path[0], velocity = start, np.zeros((schedule.updates + 1, start.size))
    last = np.zeros(start.size)
    for t in range(schedule.updates):
        total, read_velocity = np.zeros(start.size), np.zeros(start.size)
        rows = range(schedule.first[t], schedule.first[t + 1])
        for i in rows:
            found = np.asarray(gradient(path[schedule.read[i]].copy(), samples()), dtype=np.float64)
            if found.shape != start.shape:
                raise ValueError(f"gradient(w, sample) must have the shape of w, {start.shape} (got {found.shape})")
            total += schedule.weight[i] * found
            read_velocity += velocity[schedule.read[i]] / len(rows)
        used = (total - back * last) / (1.0 - back)
        last = total
        velocity[t + 1] = momentum * (read_velocity if shifted else velocity[t]) - step * used
        path[t + 1] = path[t] + velocity[t + 1]
        if not np.square(path[t + 1]).sum() <= limit:
            path[t + 1] = np.nan
            return path, t + 1
    return path, -1
