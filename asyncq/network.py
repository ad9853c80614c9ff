"""Where gradients travel: what a scenario lowers to, and all that an engine needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asyncq.protocols import KINDS, Kind

if TYPE_CHECKING:
    from asyncq.distributions import Law
    from asyncq.scenario import Scenario

__all__ = ["NO_STREAM", "Network"]

NO_STREAM = -1


@dataclass(frozen=True, eq=False)
class Network:
    """Workers, their routes and the station, with laws replaced by the numbers of the streams that draw from them.

    A route is pull -> work -> push -> station; ``work``, ``pull`` and ``push`` have shape (workers,) and hold stream
    numbers, ``NO_STREAM`` where a route has no such leg. ``service`` is one stream, or ``NO_STREAM`` without a server.
    """

    laws: tuple[Law, ...]
    pools: tuple[str, ...]
    pool_of: NDArray[np.int64]
    work: NDArray[np.int64]
    pull: NDArray[np.int64]
    push: NDArray[np.int64]
    service: int
    seats: int
    read_at_pull_end: bool
    kind: Kind
    parameters: dict[str, Any]

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return int(self.pool_of.size)

    @property
    def unit(self) -> str:
        """What staleness counts."""
        k = self.workers if self.kind.all_workers else self.parameters.get("k", 1)
        return "updates" if k == 1 else f"updates of {k} gradients"

    @property
    def has_server(self) -> bool:
        """Whether gradients queue at a station before they are applied."""
        return self.service != NO_STREAM

    @classmethod
    def of(cls, scenario: Scenario) -> Network:
        """Lower a scenario: one stream for every leg of every pool, and one for the server."""
        laws: list[Law] = []

        def stream(law: Law | None) -> int:
            if law is None:
                return NO_STREAM
            laws.append(law)
            return len(laws) - 1

        sizes = [pool.workers for pool in scenario.pool]
        legs = [
            (stream(pool.work_time), stream(scenario.pull_of(pool)), stream(scenario.push_of(pool)))
            for pool in scenario.pool
        ]
        work, pull, push = (_spread(leg, sizes) for leg in zip(*legs, strict=True))
        service = stream(scenario.server.service_time if scenario.server else None)
        return cls(
            laws=tuple(laws),
            pools=tuple(pool.name for pool in scenario.pool),
            pool_of=_spread(range(len(sizes)), sizes),
            work=work,
            pull=pull,
            push=push,
            service=service,
            seats=scenario.server.seats if scenario.server else 0,
            read_at_pull_end=scenario.network.version_fixed == "pull_end",
            kind=KINDS[scenario.protocol.kind],
            parameters=scenario.protocol.parameters,
        )


def _spread(values: Sequence[int], sizes: Sequence[int]) -> NDArray[np.int64]:
    return np.repeat(np.array(values, dtype=np.int64), sizes)
