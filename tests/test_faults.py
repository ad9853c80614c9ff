"""Failures, outages, slowdowns, shared slowness and a time limit: timelines worked out by hand.

The timelines are those of tests/test_protocol_timelines.py: A, B and C of work times 2, 3 and 5. A row is (time,
worker, version read, staleness, kind).
"""

from __future__ import annotations

from typing import Any

from cases import scenario

from asyncq.engines import Chunk
from asyncq.engines.process import SimpyEngine
from asyncq.network import Network
from asyncq.protocols import CANCELLED, LOST
from asyncq.variates import Variates

A, B, C = 0, 1, 2


def three(kind: str = "asynchronous", *, failure: Any = None, run: Any = None, works: Any = (2, 3, 5), **tables: Any):
    parameters = {key: tables.pop(key) for key in ("k", "bound") if key in tables}
    pools = [{"name": name, "workers": 1, "work_time": float(work)} for name, work in zip("ABC", works, strict=True)]
    for name, table in (failure or {}).items():
        pools["ABC".index(name)]["failure"] = table
    run = {"warmup": "none", **(run or {})}
    return scenario(pools=pools, protocol={"kind": kind, **parameters}, run=run, **tables)


def rows(case: Any, updates: int, until: float = float("inf")) -> list[tuple[float, int, int, int, int]]:
    network = Network.of(case)
    engine = SimpyEngine(network, Variates(network.laws, seed=0))
    seen = Chunk.join([chunk.copy() for chunk in engine.chunks(updates, until)])
    columns = (seen.time, seen.worker, seen.read, seen.staleness, seen.kind)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def window(worker: str, begins: float, until: float, **more: float) -> dict[str, Any]:
    return {"worker": worker, "from": begins, "until": until, **more}


# -- timelines by hand ------------------------------------------------------------------------------------------------


def test_a_slowdown_in_the_middle_of_work():
    """B (3 s of work) is slowed by 2 from 2 to 4: at 2 it has 1 left, which takes 2: B is done at 4, not 3. A at 2
    and 4; at 4 B's end was scheduled at 0, A's at 2: B (0) at v1 is 1 old, v2; A (1) at v2 is 1 old, v3. 5: C (0) 3
    old, v4. 6: A (3) is 1 old, v5. 7: B (2), as fast as ever, is 3 old."""
    assert rows(three(slowdown=[window("B", 2, 4, factor=2)]), 6) == [
        (2, A, 0, 0, 0), (4, B, 0, 1, 0), (4, A, 1, 1, 0), (5, C, 0, 3, 0), (6, A, 3, 1, 0), (7, B, 2, 3, 0),
    ]  # fmt: skip


def test_slowdowns_that_overlap_multiply():
    """C has 5 s of work. 0-1 at factor 2: 0.5 done. 1-3 at 2 * 4: 0.25 done. From 3 at 4: 4.25 left takes 17: 20."""
    case = three(works=(90, 90, 5), slowdown=[window("C", 0, 3, factor=2), window("C", 1, 100, factor=4)])
    assert rows(case, 1) == [(20, C, 0, 0, 0)]


def test_an_outage_loses_the_work_and_reads_again():
    """B is out from 1 to 4. 1: its gradient is lost, read 0, 0 old. 2, 4: A, v1, v2; A's end at 4 was scheduled at
    2, B's return at 1: B reads 1 first, @7, then A (1) is 0 old, v2. 5: C (0) is 2 old, v3. 6: A (2) is 1 old, v4.
    7: B (1) is 3 old."""
    assert rows(three(outage=[window("B", 1, 4)]), 5) == [
        (1, B, 0, 0, LOST), (2, A, 0, 0, 0), (4, A, 1, 0, 0), (5, C, 0, 2, 0), (6, A, 2, 1, 0), (7, B, 1, 3, 0),
    ]  # fmt: skip


def test_what_ends_at_the_moment_of_a_strike_has_ended():
    """B is due at 3 and out from 3 to 6: its gradient arrives, it reads 1 in the same event, and loses that at once."""
    case = three(outage=[window("B", 3, 6)], works=(90, 3, 91))
    assert rows(case, 2) == [(3, B, 0, 0, 0), (3, B, 1, 0, LOST), (9, B, 1, 0, 0)]


def test_the_clock_of_failures_counts_computing_and_carries_over():
    """A computes 2 s at a time and fails after 5 s of it, for 4 s: 2, 4: pushes; 5: a second into its third, lost; back
    at 9, 11, 13: pushes; 14: lost; back at 18."""
    case = three(failure={"A": {"after": 5.0, "repair": 4.0}}, works=(2, 90, 91))
    assert rows(case, 5) == [
        (2, A, 0, 0, 0), (4, A, 1, 0, 0), (5, A, 2, 0, LOST),
        (11, A, 2, 0, 0), (13, A, 3, 0, 0), (14, A, 4, 0, LOST), (20, A, 4, 0, 0),
    ]  # fmt: skip


def test_a_barrier_waits_for_who_is_under_repair():
    """Synchronous: A 2, B 3, C fails at 4, loses its work and is back at 10: the update at 15. The clock of C then
    has 4 s again; it computed 5 after its repair, but fails after 4 of them: at 14, back at 20: and so on for ever.
    With 6: the first update at 5; in the second round C has 1 s left, fails at 6, is back at 12, done at 17."""
    case = three("synchronous", failure={"C": {"after": 6.0, "repair": 6.0}})
    assert rows(case, 2) == [
        (5, A, 0, 0, 0), (5, B, 0, 0, 0), (5, C, 0, 0, 0), (6, C, 1, 0, LOST),
        (17, A, 1, 0, 0), (17, B, 1, 0, 0), (17, C, 1, 0, 0),
    ]  # fmt: skip


def test_a_release_finds_a_worker_under_repair():
    """2-sync: C is out from 1 to 8. 3: A and B update; C holds no gradient, so none is cancelled, and its release is
    for when it is back. 6: again. 8: C reads 2. 9: A and B; C (2) is cancelled, 1 s into its work."""
    case = three("k-sync", k=2, outage=[window("C", 1, 8)])
    assert rows(case, 3) == [
        (1, C, 0, 0, LOST), (3, A, 0, 0, 0), (3, B, 0, 0, 0), (6, A, 1, 0, 0), (6, B, 1, 0, 0),
        (9, A, 2, 0, 0), (9, B, 2, 0, 0), (9, C, 2, 0, CANCELLED),
    ]  # fmt: skip


def test_cancelled_work_counts_towards_the_failure():
    """2-sync: C computes 3 s of 5 and is cancelled, every 3 s; failing after 4 s of computing it is lost at 4."""
    case = three("k-sync", k=2, failure={"C": {"after": 4.0, "repair": 1.5}})
    assert rows(case, 2)[2:4] == [(3, C, 0, 0, CANCELLED), (4, C, 1, 0, LOST)]


def test_shared_slowness_stretches_everything():
    case = three(slowness={"every": 60.0, "factor": 2.0})
    assert rows(case, 12) == [(2 * time, *rest) for time, *rest in rows(three(), 12)]


def test_exactly_the_events_up_to_the_limit_happen():
    assert rows(three(), 1000, 10.0) == [row for row in rows(three(), 40) if row[0] <= 10]
