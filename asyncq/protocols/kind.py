"""The entry of a protocol in the registry: its rule, its keys, and the facts that the rest of the package goes by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from asyncq.protocols.state import Queues, State, fresh, no_queues

__all__ = ["ExactKind", "Family", "Kind", "Parameter"]

Family = Literal[
    "unknown",  # nothing: laws and rates are measured
    "free",  # nobody waits, every k-th push is an update
    "turns",  # updates in a fixed order of the workers
    "barrier",  # the first k workers, then everybody afresh
    "batch barrier",  # the first k gradients, then everybody afresh
    "k-async",  # the first k workers, who wait for the update; the others compute on
    "gate",  # a worker may be so many clocks ahead of the slowest
    "bounded",  # free, and a gradient that is too stale is dropped or given less weight
    "learner",  # samples queue for a learner
    "tree",  # free, through leaves that forward messages
]
"""The queueing theory that holds for a kind: which law, which mean and which throughput. ``asyncq.theory.queueing``
has a function for every word but "unknown"."""


@dataclass(frozen=True)
class Parameter:
    """One key of ``[protocol]``: a whole number from ``minimum`` to ``maximum``, or one of ``choices``."""

    summary: str
    minimum: int = 0
    maximum: int = 2**40
    choices: tuple[str, ...] = ()
    edges: bool = False  # or a list of pairs of workers


@dataclass(frozen=True)
class Kind:
    """One protocol: its rule, the keys of ``[protocol]`` it takes, and facts about it.

    The defaults say that nothing is known: then laws, rates and shares of time are measured, not computed.
    """

    finish: Callable[[State, int], None]
    summary: str
    parameters: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    all_workers: bool = False  # K is the number of workers
    distinct: bool = False  # K gradients of K different workers: K may not exceed their number
    table: str = ""  # the table of a scenario that this kind needs, and no other kind takes
    queues: Callable[[int, int, dict[str, Any]], Queues] = no_queues  # in which gradients wait, by workers, K and keys
    joined: Callable[[State, int], None] | None = None  # the rule once all shards have applied a gradient
    peers: bool = False  # workers keep a copy each and average with a neighbour: nothing is pulled, there is no server
    why_one: str = "its rule is for one"  # without `joined`: why the server must not be several shards
    family: Family = "unknown"  # whose theory holds
    never_stale: bool = False  # every gradient is applied to the version it was read at
    keeps_all: bool = False  # no gradient is ever dropped or cancelled
    nobody_waits: bool = False  # a worker waits at the server only
    equally_often: bool = False  # all workers make equally many updates, whatever their speeds

    def gradients(self, workers: int, parameters: dict[str, Any]) -> int:
        """Gradients in each update, not counting cancelled ones."""
        if self.all_workers:
            return workers
        sizes = (int(parameters.get(key, 1)) for key in ("k", "batch", "leaf_k", "root_k"))
        return math.prod(sizes)

    def state(
        self,
        workers: int,
        parameters: dict[str, Any],
        rows: int,
        make: Callable[[int, int, int], Any],
        extras: int = 0,
        shards: int = 1,
    ) -> State:
        """A fresh state of this kind: see :func:`asyncq.protocols.state.fresh`."""
        k = self.gradients(workers, parameters)
        queues = self.queues(workers, k, parameters)
        return fresh(workers, k, parameters, rows, make, queues=queues, extras=extras, shards=shards, peers=self.peers)


@dataclass(frozen=True)
class ExactKind:
    """A protocol without a rule: ``asyncq.theory`` knows its staleness, and no engine runs it."""

    summary: str
    parameters: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    distinct: bool = False
    table: str = ""
