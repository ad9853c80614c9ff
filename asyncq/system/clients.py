"""Populations of clients: at each read a slot calls a client, which computes one gradient.

A pool with a population has a fixed number of jobs in progress, its slots. At every read a slot calls a client, drawn
from the idle clients; a client that is not available is passed over. A client is busy from its call until its gradient
has arrived (with a server: has been served), is cancelled or lost. A client that leaves too early takes its gradient
along, and its slot calls another at once.

Clients of a class are alike, so only the number of idle clients is kept. A rule knows slots, not clients: a gradient
may wait in a buffer while its slot is busy with the next client. The fates of a slot's gradients are decided in the
order of their arrival, so a queue of classes for each slot gives the class of each.

The functions below are plain arithmetic on sequences. The SimPy engine runs them as they are, the compiled engine
compiles them, so that both call the same clients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from asyncq.protocols.state import CANCELLED, LOST, ROWS
from asyncq.system.machines import NEVER

if TYPE_CHECKING:
    from asyncq.scenario import Scenario

__all__ = ["NOBODY", "Clients", "arrives", "attribute", "call", "lower", "must_draw"]

NOBODY = -1


class Clients(NamedTuple):
    """Client classes of all pools in order; a pool without a population is a single class, always available.

    ``work``, ``pull``, ``push`` and ``stays`` are streams by class, ``NO_STREAM`` where there is no such law."""

    first: Any  # [workers] the first class of a slot's pool
    until: Any  # [workers] the class after its last
    pool: Any  # [classes] the pool of a class
    clients: Any  # [classes] number of clients
    availability: Any  # [classes] chance that an idle client can be called
    work: Any
    pull: Any
    push: Any
    stays: Any
    idle: Any  # [classes] clients that are not busy
    serving: Any  # [workers] the class of the client that a slot called last
    leaves: Any  # [workers] when that client leaves (seconds)
    oldest: Any  # [workers] place of the slot's first gradient whose fate is open, or NOBODY
    newest: Any  # [workers] place of the last such gradient
    following: Any  # [places] place of the slot's next gradient, or the next free place
    waiting: Any  # [places] the class of the gradient
    free: Any  # [1] the first place that is free
    row_client: Any  # [rows] the class of each row

    def copy(self, rows: int, places: int) -> Clients:
        """Return the clients at time 0, with room for ``rows`` rows and ``places`` gradients whose fate is open."""
        return self._replace(
            idle=self.clients.copy(),
            serving=np.zeros_like(self.first),
            leaves=np.full(self.first.size, NEVER),
            oldest=np.full_like(self.first, NOBODY),
            newest=np.full_like(self.first, NOBODY),
            following=np.arange(1, places + 1),
            waiting=np.zeros(places, dtype=np.int64),
            free=np.zeros(1, dtype=np.int64),
            row_client=np.zeros(rows, dtype=np.int64),
        )


# -- what both engines call -------------------------------------------------------------------------------------------


def must_draw(c: Clients, worker: int) -> bool:
    """Whether the slot calls from several classes."""
    return c.until[worker] - c.first[worker] > 1  # type: ignore[no-any-return]


def call(c: Clients, worker: int, uniform: float, work: Any, pull: Any, push: Any) -> None:
    """Call a client for the slot and set its streams, by a uniform variate on [0, 1).

    The chance of a class is proportional to its idle clients times their availability."""
    total = 0.0
    for one in range(c.first[worker], c.until[worker]):
        total += c.idle[one] * c.availability[one]
    chosen, mark = NOBODY, uniform * total
    for one in range(c.first[worker], c.until[worker]):
        if mark >= 0.0 and c.idle[one] > 0:  # the last class where rounding leaves a remainder
            chosen = one
        mark -= c.idle[one] * c.availability[one]
    c.idle[chosen] -= 1
    c.serving[worker] = chosen
    work[worker] = c.work[chosen]
    pull[worker] = c.pull[chosen]
    push[worker] = c.push[chosen]


def arrives(c: Clients, worker: int) -> None:
    """Free the client of a gradient that arrives; queue its class until the gradient's fate is decided."""
    client = c.serving[worker]
    c.idle[client] += 1
    place = c.free[0]
    c.free[0] = c.following[place]
    c.waiting[place] = client
    c.following[place] = NOBODY
    if c.oldest[worker] == NOBODY:
        c.oldest[worker] = place
    else:
        c.following[c.newest[worker]] = place
    c.newest[worker] = place


def attribute(c: Clients, s: Any, written: int) -> None:
    """Set `row_client` of rows written since ``written``; free the client of a cancelled or lost gradient."""
    for i in range(written, s.sizes[ROWS]):
        worker = s.row_worker[i]
        if s.row_fate[i] == CANCELLED or s.row_fate[i] == LOST:
            c.row_client[i] = c.serving[worker]
            c.idle[c.serving[worker]] += 1
        else:
            place = c.oldest[worker]
            c.row_client[i] = c.waiting[place]
            c.oldest[worker] = c.following[place]
            c.following[place] = c.free[0]
            c.free[0] = place


# -- from a scenario --------------------------------------------------------------------------------------------------


def lower(scenario: Scenario, stream: Callable[[Any], int], legs: Sequence[tuple[int, int, int]]) -> Clients:
    """Lower a scenario's clients; ``legs`` are the streams of work, pull and push by class.

    ``stream(law)`` numbers a law."""
    classes = [scenario.classes_of(pool) for pool in scenario.pool]
    ends = np.cumsum([len(own) for own in classes])
    slots = [pool.workers for pool in scenario.pool]
    flat = [one for own in classes for one in own]
    work, pull, push = np.array(legs, dtype=np.int64).T.copy()
    return Clients(
        first=np.repeat(ends - [len(own) for own in classes], slots),
        until=np.repeat(ends, slots),
        pool=np.repeat(np.arange(len(classes)), [len(own) for own in classes]),
        clients=np.array([one.clients for one in flat], dtype=np.int64),
        availability=np.array([one.availability for one in flat]),
        work=work,
        pull=pull,
        push=push,
        stays=np.array([stream(one.stays) for one in flat], dtype=np.int64),
        idle=None,
        serving=None,
        leaves=None,
        oldest=None,
        newest=None,
        following=None,
        waiting=None,
        free=None,
        row_client=None,
    )
