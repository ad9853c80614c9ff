"""Machines of a candidate: updates per second, staleness, and shares of machine time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncq.errors import NoExactLaw
from asyncq.estimate import Estimate
from asyncq.planner.candidates import Candidate
from asyncq.results.run import EngineName, Run, simulate
from asyncq.staleness import StalenessLaw
from asyncq.system.network import NO_STREAM
from asyncq.theory.queueing.staleness_laws import staleness_law
from asyncq.theory.queueing.throughput import throughput

__all__ = ["PRECISION", "Hardware", "hardware", "known", "pace", "relative_error", "to_dict"]

ROWS = 40_000  # of the first simulation
MOST_ROWS = 1_600_000
PRECISION = 0.01  # relative half-width of a simulated throughput
BUSY = 0.9


@dataclass(frozen=True, eq=False)
class Hardware:
    """Machines of a candidate.

    ``throughput`` (updates per second) and ``law`` are exact if theory has them, else simulated. ``waiting``: share of
    machine time in queues, behind barriers and for slower members of a group; ``wasted``: share in work cancelled,
    dropped or lost. ``dropped`` and ``cancelled`` are shares of the gradients. ``stations`` are shares of machine time
    by station; ``bottleneck`` names a station and ``busy`` is its utilisation. If all shares follow from the throughput
    (``shares_are_exact``), nothing is simulated and ``run`` is None, unless a replay needs it.
    """

    throughput: Estimate
    law: StalenessLaw
    law_is_exact: bool
    waiting: float
    wasted: float
    dropped: float
    cancelled: float
    stations: dict[str, float]
    bottleneck: str
    busy: float
    utilisation: Estimate | None  # of the server
    shares_are_exact: bool
    run: Run | None

    @property
    def stale99(self) -> int:
        """99 % quantile of the staleness, in updates."""
        return int(self.law.quantile(0.99)[0])


def hardware(candidate: Candidate, *, seed: int, engine: EngineName, updates: int | None = None) -> Hardware:
    """Exact throughput and law if known; the rest from a simulation, prolonged until the throughput has ``PRECISION``
    or ``MOST_ROWS`` are reached. ``updates``: simulate at least this many."""
    scenario = candidate.scenario
    rate, law = known(candidate)
    if updates is None and rate is not None and law is not None and (shares := _shares(candidate, rate)) is not None:
        return _by_utilisation(candidate, shares, rate, law)
    wanted = max(2000, ROWS // candidate.gradients, updates or 0)
    most = max(wanted, MOST_ROWS // candidate.gradients)
    plain = scenario.run.model_copy(update={"precision": None, "warmup": "auto", "until": None})
    settled = scenario.model_copy(update={"run": plain, "plan": None})
    while True:
        run = simulate(settled, engine=engine, seed=seed, updates=wanted, trace=True)
        if rate is not None or run.throughput.half_width <= PRECISION * run.throughput.mean or wanted >= most:
            break
        wanted = min(4 * wanted, most)
    return _seen(candidate, run, rate or run.throughput, law)


def pace(candidate: Candidate, *, seed: int, engine: EngineName) -> tuple[float, StalenessLaw]:
    """Updates per second and staleness law only, simulated if theory does not have them."""
    rate, law = known(candidate)
    if rate is not None and law is not None:
        return rate.mean, law
    seen = hardware(candidate, seed=seed, engine=engine)
    return seen.throughput.mean, seen.law


def known(candidate: Candidate) -> tuple[Estimate | None, StalenessLaw | None]:
    """Exact throughput and exact law; None if theory does not have them."""
    rate: Estimate | None = None
    law: StalenessLaw | None = None
    try:
        found = throughput(candidate.scenario)
        rate = found if isinstance(found, Estimate) else None
    except NoExactLaw:
        rate = None
    try:
        law = staleness_law(candidate.scenario)
    except NoExactLaw:
        law = None
    return rate, law


def _shares(candidate: Candidate, rate: Estimate) -> dict[str, float] | None:
    """Shares of machine time by the utilisation law (throughput times mean time), as in ``MachineTime``. None if
    gradients are discarded, workers have unequal rates, or waits at barrier and queue cannot be separated."""
    network, kind = candidate.network, candidate.network.kind
    if not kind.keeps_all or network.is_sharded or network.clients is not None or network.machines is not None:
        return None
    queued = network.has_server and network.seats < network.workers
    if queued and not kind.nobody_waits:
        return None
    legs = {
        name: np.array([0.0 if stream == NO_STREAM else network.laws[stream].mean for stream in leg])
        for name, leg in (("pull", network.pull), ("work", network.work), ("push", network.push))
    }
    service = network.laws[network.service].mean if network.has_server else 0.0
    cycle = np.sum(list(legs.values()), axis=0) + service
    alike = bool(np.all(cycle == cycle[0]))
    if not (alike or kind.equally_often or (kind.nobody_waits and not queued)):
        return None
    each = rate.mean * candidate.gradients / network.workers
    often = np.full(network.workers, each) if alike or kind.equally_often else 1.0 / cycle
    share = {name: float(np.mean(often * means)) for name, means in legs.items()}
    share["service"] = float(np.mean(often)) * service
    left = max(0.0, 1.0 - sum(share.values()))
    return {**share, "queue": left if queued else 0.0, "blocked": 0.0 if queued else left}


def _by_utilisation(candidate: Candidate, share: dict[str, float], rate: Estimate, law: StalenessLaw) -> Hardware:
    network, server = candidate.network, candidate.scenario.server
    utilisation = None
    if server is not None:
        gradients = rate.mean * candidate.gradients
        utilisation = Estimate(gradients * server.service_time.mean / server.seats, None, "", exact=True)
    stations = _stations(share, network.group_efficiency)
    name, busy = _bottleneck(stations, utilisation)
    return Hardware(
        throughput=rate,
        law=law,
        law_is_exact=True,
        waiting=share["queue"] + stations["waiting for others"],
        wasted=0.0,
        dropped=0.0,
        cancelled=0.0,
        stations=stations,
        bottleneck=name,
        busy=busy,
        utilisation=utilisation,
        shares_are_exact=True,
        run=None,
    )


def _stations(share: dict[str, float], own: float) -> dict[str, float]:
    """Shares of machine time by station. ``own``: a machine's work over that of its group."""
    return {
        "workers": share["work"] * own,
        "network": share["pull"] + share["push"],
        "server": share["queue"] + share["service"],
        "waiting for others": share["blocked"] + share["work"] * (1.0 - own),
        "thrown away": share.get("cancelled", 0.0) + share.get("dropped", 0.0) + share.get("lost", 0.0),
        "repair": share.get("repair", 0.0),
    }


def _bottleneck(stations: dict[str, float], utilisation: Estimate | None) -> tuple[str, float]:
    if utilisation is not None and utilisation.mean >= BUSY:
        return "server", utilisation.mean
    name = max(stations, key=lambda key: stations[key])
    return name, stations[name]


def _seen(candidate: Candidate, run: Run, rate: Estimate, law: StalenessLaw | None) -> Hardware:
    spent = run.machine_time._asdict()
    total = sum(spent.values()) or 1.0
    share = {stage: seconds / total for stage, seconds in spent.items()}
    stations = _stations(share, candidate.network.group_efficiency)
    utilisation = None if run.server is None else run.server.utilisation
    name, busy = _bottleneck(stations, utilisation)
    decided = sum(run.gradients.values())
    return Hardware(
        throughput=rate,
        law=run.staleness.law if law is None else law,
        law_is_exact=law is not None,
        waiting=share["queue"] + stations["waiting for others"],
        wasted=stations["thrown away"],
        dropped=run.gradients["dropped"] / decided,
        cancelled=run.gradients["cancelled"] / decided,
        stations=stations,
        bottleneck=name,
        busy=busy,
        utilisation=utilisation,
        shares_are_exact=False,
        run=run,
    )


def to_dict(seen: Hardware, candidate: Candidate, batch: float | None) -> dict[str, Any]:
    """As in the JSON report. Staleness is in updates, in samples (batches if ``batch`` is None), and in seconds."""
    mean, late = seen.law.mean, seen.stale99
    samples = candidate.samples * (batch or 1.0)
    seconds = 1.0 / seen.throughput.mean
    return {
        "throughput": seen.throughput,
        "staleness": {
            "mean": mean,
            "p99": late,
            "exact": seen.law_is_exact,
            "samples": mean * samples,
            "samples_unit": "samples" if batch else "batches",
            "seconds": mean * seconds,
        },
        "waiting": seen.waiting,
        "wasted": seen.wasted,
        "dropped": seen.dropped,
        "cancelled": seen.cancelled,
        "stations": seen.stations,
        "bottleneck": seen.bottleneck,
        "busy": seen.busy,
        "shares_are_exact": seen.shares_are_exact,
        "server_utilisation": seen.utilisation,
    }


def relative_error(estimate: Estimate) -> float:
    """Standard error over the mean: 0 if exact, infinite without an interval."""
    return 0.0 if estimate.exact else float(np.divide(estimate.half_width, 1.96 * estimate.mean))
