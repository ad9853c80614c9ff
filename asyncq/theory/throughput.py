"""Updates and gradients per second without simulation. Source: theory.md section 3.4."""

from __future__ import annotations

import numpy as np

from asyncq.distributions import Law, Maximum, Shifted
from asyncq.estimate import Estimate
from asyncq.network import NO_STREAM, Network

__all__ = ["synchronous_throughput"]


def synchronous_throughput(network: Network) -> Estimate | None:
    """Gradients per second of the same workers behind a barrier: M / E[max of their times], exact.

    None where the maximum has no closed form: with a server, or with a random pull or push. None for compute groups
    as well, whose gradients are not a machine's.
    """
    if network.has_server or network.group_size > 1:
        return None
    slowest: list[Law] = []
    routes, counts = np.unique(
        np.stack([network.pull, network.work, network.push]), axis=1, return_counts=True
    )
    for (pull, work, push), count in zip(routes.T, counts, strict=True):
        wires = [network.laws[leg] for leg in (pull, push) if leg != NO_STREAM]
        if not all(law.is_constant for law in wires):
            return None
        law: Law = network.laws[work]
        if wires:
            law = Shifted(minimum=sum(wire.mean for wire in wires), plus=law)
        slowest.append(Maximum(of=law, count=int(count)))
    barrier = slowest[0] if len(slowest) == 1 else Maximum(laws=tuple(slowest))
    return Estimate(network.workers / barrier.mean, None, "gradients per second", exact=True)
