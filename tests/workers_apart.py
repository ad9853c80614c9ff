"""Staleness of independent workers without an engine: each worker's commits are sums of its own times, then merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

Times = Callable[[np.random.Generator, int], np.ndarray]
"""So many cycle times in seconds."""


def staleness(
    rng: np.random.Generator,
    cycles: Sequence[Times],
    means: Sequence[float],
    seconds: float,
    pulls: Sequence[Times] | None = None,
) -> np.ndarray:
    """Staleness of the gradients committed after a warm-up of 100 of the longest cycles, in the order of the workers.

    With ``pulls`` the version is that of the end of the pull, which is a part of the cycle drawn beforehand.
    """
    warmup = 100 * max(means)
    commits, reads = [], []
    for number, (draw, mean) in enumerate(zip(cycles, means, strict=True)):
        count = int((seconds + warmup) / mean * 1.05 + 50)
        times = draw(rng, count)
        late = 0.0 if pulls is None else pulls[number](rng, count)
        ends = np.cumsum(times + late)
        commits.append(ends)
        reads.append(np.concatenate([[0.0], ends[:-1]]) + late)
    end = min(times[-1] for times in commits)
    everybody = np.sort(np.concatenate(commits))
    result = []
    for own, read in zip(commits, reads, strict=True):
        inside = (own > warmup) & (own < end)
        side = "right" if pulls is None else "left"  # a worker's own commit is before its read
        before = np.searchsorted(everybody, read[inside], side=side)
        result.append(np.searchsorted(everybody, own[inside], side="left") - before)
    return np.concatenate(result)


def by_ranks(rng: np.random.Generator, draw: Times, workers: int, commits: int) -> Iterator[np.ndarray]:
    """Staleness of equal workers, worker by worker, after a warm-up of 100 cycles; about ``commits`` in all."""
    count = commits // workers + 100
    ends = np.cumsum(draw(rng, workers * count).reshape(workers, count), axis=1)
    last = ends[:, -1].min()
    ranks = np.empty(ends.size, dtype=np.int64)
    ranks[np.argsort(ends, axis=None, kind="stable")] = np.arange(ends.size)
    for own, rank in zip(ends, ranks.reshape(ends.shape), strict=True):
        inside = own[1:] <= last
        inside[:100] = False
        yield (np.diff(rank) - 1)[inside]
