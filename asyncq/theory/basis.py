"""The exact process behind a scenario: a process whose second moments are known, not only its staleness law."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from asyncq.errors import NoExactLaw
from asyncq.theory.descent.exponential import ExponentialWorkers, exponential_workers
from asyncq.theory.queueing.staleness_laws import has_wires, network_of

if TYPE_CHECKING:
    from asyncq.scenario import Scenario

__all__ = ["exact_process"]


def exact_process(scenario: Scenario) -> ExponentialWorkers | None:
    """Process of workers with exponential work and no pull, push or server: of any speeds if every push is an update,
    of equal speeds if K of them wait for each other. None for other scenarios (docs/theory/stability.md)."""
    try:
        network = network_of(scenario)
    except NoExactLaw:
        return None
    kind, k = network.kind, network.rows_per_update
    free = k == 1 and kind.family in ("free", "k-async") and not kind.peers
    if not (free or kind.family == "k-async") or network.has_server or network.calls_differ or has_wires(network):
        return None
    works = [network.laws[number] for number in network.work]
    if not all(law.is_exponential for law in works):
        return None
    rates = 1.0 / np.array([law.mean for law in works])
    if np.all(rates == rates[0]):
        return exponential_workers(rates.size, contributors=k)
    return exponential_workers(rates) if free else None
