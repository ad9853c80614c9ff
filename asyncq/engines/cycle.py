"""Cycles of the workers, as the SimPy engine records them."""

from __future__ import annotations

from typing import NamedTuple

from asyncq.system.clients import NOBODY

__all__ = ["NOT_YET", "Cycle", "Progress"]

NOT_YET = float("nan")


class Cycle(NamedTuple):
    """Cycle of a worker from a read to the arrival of its gradient: end time of each leg (seconds), nan if unfinished.

    The pull lasts from ``began`` to ``pulled``, then work, push (to ``joined``), queue (to ``seated``) and service.
    With several shards, queue and service are those of the last shard to finish.
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
    """End times (seconds) of the legs of a worker's latest cycle; nan if unfinished."""

    __slots__ = ("began", "joined", "pulled", "worked")

    def __init__(self) -> None:
        self.began = self.pulled = self.worked = self.joined = NOT_YET
