"""asyncq against textbook SimPy programs (``textbook.py``) that share nothing with it, under continuous laws.

Chance: every figure is a Student t over 32 batches a side (Welch); a right program passes its limit with probability
1e-6. A case has about 20 figures and there are about 40 cases: false alarm of the whole file below 1e-3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import textbook
from cases import scenario
from textbook import from_interval, ratio

from asyncq import simulate

CHANCE = 1e-6
GRADIENTS = 10_000
LAWS = {
    "exponential": (lambda mean: {"law": "exponential", "mean": mean}, textbook.exponential),
    "gamma": (lambda mean: {"law": "gamma", "mean": mean, "cv": 0.5}, lambda mean: textbook.gamma(mean, 0.5)),
}


@dataclass(frozen=True)
class Case:
    """One protocol on some workers, of several speeds perhaps, with a server or without."""

    kind: str
    program: type[textbook.System]
    parameters: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)  # keys of the table that the program does not know
    means: tuple[float, ...] = (1.0,) * 5  # of each worker's work, seconds
    service: float = 0.0  # mean, seconds; 0: no server
    seats: int = 1

    def __str__(self) -> str:
        server = f", {self.seats} seats" if self.service else ""
        mixed = ", mixed speeds" if len(set(self.means)) > 1 else ""
        return f"{self.kind}{server}{mixed}"


ONE, TWO = {"service": 0.15}, {"service": 0.35, "seats": 2}
MIXED = {"means": (0.4, 0.4, 1.0, 2.5)}
CASES = [
    Case("asynchronous", textbook.Asynchronous),
    Case("asynchronous", textbook.Asynchronous, **ONE),
    Case("asynchronous", textbook.Asynchronous, **TWO),
    Case("asynchronous", textbook.Asynchronous, **ONE, **MIXED),
    Case("bounded", textbook.Asynchronous, {"maximum_staleness": 4}, {"policy": "reject"}),
    Case("bounded", textbook.Asynchronous, {"maximum_staleness": 4}, {"policy": "reject"}, **MIXED),
    Case("round-robin", textbook.RoundRobin),
    Case("stale-synchronous", textbook.StaleSynchronous, {"bound": 1}),
    Case("stale-synchronous", textbook.StaleSynchronous, {"bound": 2}, **ONE),
    Case("stale-synchronous", textbook.StaleSynchronous, {"bound": 3}, **MIXED),
    Case("k-async", textbook.KAsynchronous, {"k": 2}),
    Case("k-async", textbook.KAsynchronous, {"k": 3}, **TWO),
    Case("k-async", textbook.KAsynchronous, {"k": 2}, **MIXED),
    Case("k-batch-async", textbook.BatchAsynchronous, {"k": 3}),
    Case("k-batch-async", textbook.BatchAsynchronous, {"k": 2}, **ONE, **MIXED),
    Case("k-sync", textbook.KSynchronous, {"k": 3}),
    Case("k-sync", textbook.KSynchronous, {"k": 3}, **ONE),
    Case("k-sync", textbook.KSynchronous, {"k": 2}, **TWO, **MIXED),
    Case("k-batch-sync", textbook.BatchSynchronous, {"k": 4}),
    Case("k-batch-sync", textbook.BatchSynchronous, {"k": 4}, **TWO),
]
CANCELLING = ("k-sync", "k-batch-sync")


def figures(time, worker, staleness, kept, cells, k):
    """What gradients in order show, k to an update: by name, with standard errors."""
    gaps = np.diff(time[kept][k - 1 :: k])
    tau, who = staleness[kept], worker[kept]
    shares = {f"staleness {cell}": tau == cell for cell in range(cells)}
    shares |= {f"staleness {cells} or more": tau >= cells, "dropped": ~kept}
    shares |= {f"worker {one}": who == one for one in range(int(who.max()) + 1)}
    return {
        "mean staleness": ratio(tau),
        "staleness squared": ratio(tau**2),
        "time per update": ratio(gaps),
        "time per update squared": ratio(gaps**2),
        "staleness of successive commits": ratio(tau[1:] * tau[:-1]),
        **{f"share of {name}": ratio(share) for name, share in shares.items()},
    }


def server_figures(run, log, cancelling):
    """Utilisation; and waiting, unless some leave the queue before they are served."""
    cold = log.left.size // 20
    ours = [from_interval(run.server.utilisation), from_interval(run.server.waiting)]
    elapsed = np.diff(log.left)[cold:]
    theirs = [ratio(log.served[cold + 1 :], elapsed * run.server.seats), ratio(log.waited[cold:])]
    pairs = dict(zip(["utilisation", "waiting"], zip(ours, theirs, strict=True), strict=True))
    return {"utilisation": pairs["utilisation"]} if cancelling else pairs


def compare(run, log, *, k=1, cancelling=False):
    """All figures of a run and of the textbook program's log, in pairs by name."""
    trace, kinds = run.trace, list(run.gradients)
    kept = trace.fate == kinds.index("committed")
    decided = kept | (trace.fate == kinds.index("dropped"))
    ours = [column[decided] for column in (trace.time, trace.worker, trace.staleness, kept)]
    theirs = [log.time, log.worker, log.staleness, log.kept]
    cold = trace.time.size // 20
    ours, theirs = [c[cold:] for c in ours], [c[log.time.size // 20 :] for c in theirs]
    counts = [np.bincount(columns[2][columns[3]], minlength=500) for columns in (ours, theirs)]
    cells = int(np.argmin(np.minimum(*counts) >= 80))  # more per cell than batches, so that a batch is near normal
    first, second = (figures(*columns, cells, k) for columns in (ours, theirs))
    pairs = {name: (first[name], second[name]) for name in first}
    return pairs | (server_figures(run, log, cancelling) if run.server else {})


def pairs_of(case, law, *, gradients=GRADIENTS, seed=11):
    """One case simulated by both."""
    table, book = LAWS[law]
    k = case.parameters.get("k", 1)
    pools = [
        {"name": f"w{i}", "workers": 1, "work_time": table(mean)} for i, mean in enumerate(case.means)
    ]  # a pool each: a stream each
    tables = {"protocol": {"kind": case.kind, **case.parameters, **case.extra}}
    options = dict(case.parameters)
    if case.service:
        tables["server"] = {"service_time": table(case.service), "seats": case.seats}
        options |= {"service": book(case.service), "seats": case.seats}
    run = simulate(scenario(pools=pools, **tables), updates=gradients // k, seed=seed, trace=True)
    log = case.program([book(mean) for mean in case.means], updates=gradients // k, seed=seed, **options).log()
    return compare(run, log, k=k, cancelling=case.kind in CANCELLING)


def group_pairs(law, batch, *, gradients=GRADIENTS, seed=11):
    """Six machines in three groups, with a server; a split batch takes each of two members half as long."""
    table, book = LAWS[law]
    case = scenario(
        table(1.0),
        workers=6,
        groups={"count": 3, "batch": batch, "all_reduce": 0.1},
        server={"service_time": table(0.15)},
    )
    share = {"split": 0.5, "replicated": 1.0}[batch]
    program = textbook.Groups([book(share)] * 6, count=3, all_reduce=0.1, updates=gradients, seed=seed,
                              service=book(0.15))  # fmt: skip
    return compare(simulate(case, updates=gradients, seed=seed, trace=True), program.log())


def differing(pairs, chance=CHANCE):
    """The figures that differ by more than chance allows."""
    return {name: pair for name, pair in pairs.items() if pair[0].excess(pair[1], chance) > 1}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_protocol_is_its_textbook_program(case, law):
    assert differing(pairs_of(case, law)) == {}


@pytest.mark.parametrize("batch", ["split", "replicated"])
@pytest.mark.parametrize("law", LAWS)
def test_a_group_is_the_slowest_of_its_machines(law, batch):
    assert differing(group_pairs(law, batch)) == {}


@pytest.mark.parametrize(
    ("case", "other"),
    [
        (Case("k-async", textbook.KAsynchronous, {"k": 2}), Case("k-async", textbook.BatchAsynchronous, {"k": 2})),
        (Case("k-sync", textbook.KSynchronous, {"k": 3}), Case("k-sync", textbook.BatchSynchronous, {"k": 3})),
        (
            Case("stale-synchronous", textbook.StaleSynchronous, {"bound": 1}),
            Case("stale-synchronous", textbook.Asynchronous, {}, {"bound": 1}),
        ),
    ],
    ids=["k-async", "k-sync", "stale-synchronous"],
)
def test_the_comparison_sees_a_wrong_protocol(case, other):
    """The program of the nearest other protocol differs."""
    assert differing(pairs_of(case, "exponential")) == {}
    assert differing(pairs_of(other, "exponential")) != {}
