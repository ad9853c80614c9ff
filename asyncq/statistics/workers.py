"""Staleness by worker: means, a test for equality, and the workers that stand out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncq.jsonable import record
from asyncq.statistics.collect.accumulate import Collected

__all__ = ["LEVEL", "Stale", "WhoIsStale", "who_is_stale"]

LEVEL = 0.01  # probability that any worker is named although all are alike
FEWEST_ROWS = 30  # of every worker
FEWEST_SEEN = 100  # of a pool, in the blocks that were kept

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stale:
    """A worker whose gradients are staler than others: its pool and ``number`` there, its mean ``staleness``, the
    ``ratio`` to a typical worker's, and the p-value of that difference alone."""

    pool: str
    number: int
    worker: int
    staleness: float
    ratio: float
    p_value: float

    @property
    def name(self) -> str:
        """As scenario files name a worker: "spot[7]"."""
        return f"{self.pool}[{self.number}]"


@dataclass(frozen=True, eq=False)
class WhoIsStale:
    """Mean staleness per worker, shape (workers,), with standard errors; ``p_value`` of "all are equally stale".

    ``named`` are the workers staler than the rest, the worst first; the probability of naming any although all are
    alike is at most ``level`` (Holm's correction). ``p_value`` is None where a worker has too few rows.
    """

    means: Floats
    errors: Floats
    p_value: float | None
    named: tuple[Stale, ...]
    level: float = LEVEL

    def to_dict(self) -> dict[str, Any]:
        """As the JSON report has it: the test, and at most 20 of the named workers."""
        named = [record(stale, name=stale.name) for stale in self.named[:20]]
        return {"p_value": self.p_value, "level": self.level, "count": len(self.named), "named": named}


def who_is_stale(
    collected: Collected, pool_of: NDArray[np.int64], pools: tuple[str, ...], *, level: float = LEVEL
) -> WhoIsStale:
    """Compare the workers' mean staleness with each other.

    The gradients of a worker do not overlap, so they are nearly independent; the standard error includes the
    correlation of neighbours. Means are compared on a log scale, where they are less skew."""
    from scipy.special import chdtrc, ndtr

    rows = collected.per_worker.rows.astype(np.float64)
    means = collected.per_worker.staleness / np.maximum(rows, 1)
    errors = _errors(collected, pool_of, rows, means)
    if rows.size < 2 or rows.min() < FEWEST_ROWS:
        return WhoIsStale(means, errors, None, (), level)
    scale = np.log1p(means)
    scatter = np.maximum(errors / (1 + means), 1e-9)
    typical = float(np.median(scale))
    spread = float(np.sqrt(np.pi / 2 / rows.size) * np.median(scatter))  # of the median
    z = (scale - typical) / np.hypot(scatter, spread)
    weights = scatter**-2.0
    pooled = float((weights @ scale) / weights.sum())
    equal = float(chdtrc(rows.size - 1, float((weights * (scale - pooled) ** 2).sum())))
    p_values = ndtr(-z)
    named = []
    for rank, worker in enumerate(np.argsort(p_values).tolist()):
        if p_values[worker] * (rows.size - rank) > level:
            break
        pool = int(pool_of[worker])
        first = int(np.argmax(pool_of == pool))
        ratio = float(means[worker] / max(np.expm1(typical), 1e-12))
        own = float(means[worker])
        named.append(Stale(pools[pool], worker - first, worker, own, ratio, float(p_values[worker])))
    return WhoIsStale(means, errors, equal, tuple(named), level)


def _errors(collected: Collected, pool_of: NDArray[np.int64], rows: Floats, means: Floats) -> Floats:
    """Standard errors of the means, from the blocks: the relative spread of a pool's gradients about the means of their
    workers, and the correlation of neighbours."""
    pools = int(pool_of.max()) + 1
    squares, products, count, pairs = np.zeros((4, pools))
    relative = 1 / (1 + means)
    for staleness, worker in collected.blocks:
        order = np.argsort(worker, kind="stable")
        who = worker[order]
        centred = (staleness[order] - means[who]) * relative[who]
        pool = pool_of[who]
        squares += np.bincount(pool, weights=centred**2, minlength=pools)
        count += np.bincount(pool, minlength=pools)
        same = who[1:] == who[:-1]
        products += np.bincount(pool[1:][same], weights=(centred[1:] * centred[:-1])[same], minlength=pools)
        pairs += np.bincount(pool[1:][same], minlength=pools)
    # a pool with few rows takes the spread of all
    variance = np.where(count >= FEWEST_SEEN, squares / np.maximum(1, count), squares.sum() / max(1.0, count.sum()))
    # a pool with few pairs counts as independent, and so does a negative correlation
    own = np.where(variance > 0, products / np.maximum(1, pairs) / np.where(variance > 0, variance, 1), 0.0)
    own = np.clip(np.where(pairs >= FEWEST_SEEN, own, 0.0), 0.0, 0.9)
    spread = np.sqrt(variance * (1 + own) / (1 - own))
    return np.asarray(spread[pool_of] * (1 + means) / np.sqrt(np.maximum(1, rows)))
