"""Cycles of the workers, as the SimPy engine records them."""

from __future__ import annotations

from typing import NamedTuple

from asyncq.system.clients import NOBODY

__all__ = ["NOT_YET", "Cycle", "Progress"]

NOT_YET = float("nan")


class Cycle(NamedTuple):
    """A worker's way from a read to the arrival of its gradient: when each leg ended (seconds), nan if it did not.

    The pull lasts from ``began`` to ``pulled``, then work, push (to ``joined``), queue (to ``seated``) and service. Of
    several shards, queue and service are those of the last to be done.
    """

    worker: int
    began: float
    pulled: float
    worked: float
    joined: float
    seated: float
    ended: float
    cancelled: bool
    lost: bool = False  # with its machine or its client, at ``ended``; ``cancelled`` is true as well
    client: int = NOBODY  # the client's class, numbered through all pools


class Progress:
    """When the legs of a worker's latest cycle ended (seconds); nan for a leg that has not."""

    __slots__ = ("began", "joined", "pulled", "worked")

    def __init__(self) -> None:
        self.began = self.pulled = self.worked = self.joined = NOT_YET
