"""The graph of gossip, over which workers average: a named graph or a list of edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asyncq.distributions.declaration import broken_rule
from asyncq.protocols import PARAMETERS

__all__ = ["GRAPHS", "Neighbours", "edges_of", "neighbours"]

GRAPHS = PARAMETERS["graph"].choices
KEY = "protocol.graph"
Integers = NDArray[np.int64]


class Neighbours(NamedTuple):
    """For every worker its ``degree`` (number of neighbours) and where their ``offsets`` begin (``first``); a neighbour
    is the worker plus an offset, modulo the number of workers, so that regular graphs share their offsets."""

    first: Integers
    degree: Integers
    offsets: Integers

    def pick(self, worker: int, uniform: float) -> int:
        """The neighbour for a uniform variate of [0, 1): each with the same probability."""
        at = self.first[worker] + int(uniform * self.degree[worker])
        return int((worker + self.offsets[at]) % self.first.size)

    def of(self, worker: int) -> list[int]:
        """All neighbours of a worker."""
        first = self.first[worker]
        return sorted(((worker + self.offsets[first : first + self.degree[worker]]) % self.first.size).tolist())


def edges_of(value: Any) -> Any:
    """``value`` as a graph of a scenario file: one of :data:`GRAPHS`, or pairs of different workers, each pair once; a
    broken rule otherwise."""
    if isinstance(value, str) and value in GRAPHS:
        return value
    if not isinstance(value, list | tuple) or not value:
        raise broken_rule(f"must be {', '.join(GRAPHS)} or a list of edges", "write edges as [[0, 1], [1, 2]]")
    seen: set[tuple[int, int]] = set()
    for edge in value:
        if not isinstance(edge, list | tuple) or len(edge) != 2 or any(type(end) is not int or end < 0 for end in edge):
            rule = "must have edges of two workers, numbered from 0"
            raise broken_rule(rule, f"correct {list(edge) if isinstance(edge, tuple) else edge!r:.60}")
        one, other = sorted(edge)
        if one == other:
            raise broken_rule(f"must not join worker {one} to itself", "remove that edge")
        if (one, other) in seen:
            raise broken_rule(f"must have every edge once ({one}, {other} is there twice)", "remove one of the two")
        seen.add((one, other))
    return tuple((one, other) for one, other in value)


def neighbours(graph: str | Sequence[tuple[int, int]], workers: int) -> Neighbours:
    """The neighbours of every worker; a broken rule where the graph does not suit so many workers."""
    if workers < 2:
        raise broken_rule("needs at least 2 workers to average", "add workers, or use kind asynchronous", KEY)
    if graph == "complete":
        return _regular(np.arange(1, workers), workers)
    if graph == "ring":
        return _regular(np.unique([1, workers - 1]), workers)
    if graph == "torus":
        rows = next(size for size in range(math.isqrt(workers), 0, -1) if workers % size == 0)
        if rows == 1:
            rule = f"must have rows and columns, and {workers} workers cannot be laid out in several rows"
            raise broken_rule(rule, "change the number of workers, or use ring", KEY)
        return _torus(rows, workers // rows)
    if (largest := max(int(end) for edge in graph for end in edge)) >= workers:
        rule = f"names worker {largest}, and the {workers} workers are numbered from 0"
        raise broken_rule(rule, f"use 0 to {workers - 1}", KEY)
    return _listed(np.array(graph, dtype=np.int64), workers)


def _regular(offsets: Integers, workers: int) -> Neighbours:
    return Neighbours(np.zeros(workers, np.int64), np.full(workers, offsets.size), offsets)


def _torus(rows: int, columns: int) -> Neighbours:
    """A grid whose edges meet, row by row; two rows (or columns) are joined once."""
    number = np.arange(rows * columns).reshape(rows, columns)
    steps = [(step, axis) for axis, size in ((0, rows), (1, columns)) for step in ((1, -1) if size > 2 else (1,))]
    ends = np.stack([np.roll(number, step, axis) for step, axis in steps], axis=-1)
    degree = len(steps)
    offsets = (ends - number[..., None]).ravel() % number.size
    return Neighbours(np.arange(number.size) * degree, np.full(number.size, degree), offsets)


def _listed(edges: Integers, workers: int) -> Neighbours:
    ends = np.concatenate([edges, edges[:, ::-1]])
    ends = ends[np.lexsort((ends[:, 1], ends[:, 0]))]
    degree = np.bincount(ends[:, 0], minlength=workers)
    if not degree.all():
        rule = f"leaves worker {int(np.argmin(degree))} without a neighbour"
        raise broken_rule(rule, "join it to another", KEY)
    found = Neighbours(np.cumsum(degree) - degree, degree, (ends[:, 1] - ends[:, 0]) % workers)
    reached = np.zeros(workers, dtype=bool)
    waiting = [0]
    reached[0] = True
    while waiting:
        new = [other for other in found.of(waiting.pop()) if not reached[other]]
        reached[new] = True
        waiting += new
    if not reached.all():
        rule = f"is not connected: no way from worker 0 to worker {int(np.argmin(reached))}"
        raise broken_rule(rule, "join the parts by an edge", KEY)
    return found
