"""The drawings of the protocol pages, made when the documentation is built: three workers of work times 2, 3 and 5.

Every scenario is small enough to be followed by hand; ``conf.py`` calls :func:`draw_all` before any page is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asyncq import Scenario, plots
from asyncq.results.timeline import Timeline, timeline
from asyncq.text.timeline import draw, draw_schedule
from asyncq.theory.queueing.pipeline import Pipeline

GENERATED = Path(__file__).parents[1] / "_generated"
WIDTH = 88  # columns that fit the text of a page


def case(kind: str, works: tuple[float, ...] = (2, 3, 5), tables: dict[str, Any] | None = None, **parameters: Any):
    """Workers A, B, C, ... of constant work times under a protocol."""
    pools = [
        {"name": name, "workers": 1, "work_time": float(work)} for name, work in zip("ABCDEF", works, strict=False)
    ]
    return {"schema": 1, "pool": pools, "protocol": {"kind": kind, **parameters}, **(tables or {})}


STAYS = {"law": "empirical", "values": [3, 9]}

# by the name of the drawing: the scenario and how many updates to draw
DRAWINGS: dict[str, tuple[dict[str, Any], int]] = {
    "asynchronous": (case("asynchronous"), 12),
    "round-robin": (case("round-robin"), 11),
    "synchronous": (case("synchronous"), 3),
    "k-sync": (case("k-sync", k=2), 5),
    "backup-workers": (case("backup-workers", k=2, tables={"server": {"service_time": 2.0}}), 3),
    "k-batch-sync": (case("k-batch-sync", k=3), 4),
    "k-async": (case("k-async", k=2), 6),
    "k-batch-async": (case("k-batch-async", k=2), 6),
    "stale-synchronous": (case("stale-synchronous", bound=1), 11),
    "stale-synchronous-0": (case("stale-synchronous", bound=0), 9),
    "bounded": (case("bounded", maximum_staleness=1), 10),
    "bounded-downweight": (case("bounded", maximum_staleness=1, policy="downweight"), 12),
    "gossip": (case("gossip", (2, 3, 5, 4), graph="ring"), 12),
    "shards": (
        case("asynchronous", tables={"server": {"service_time": {"law": "empirical", "values": [1, 2]}, "shards": 2}}),
        8,
    ),
    "actor-learner": (
        case("actor-learner", batch=2, staleness_budget=1, tables={"learner": {"work_time": 2.0}}),
        6,
    ),
    "actor-learner-discarding": (
        case(
            "actor-learner",
            batch=1,
            staleness_budget=2,
            discard_older_than=1,
            tables={"learner": {"work_time": 2.0}},
        ),
        7,
    ),
    "tree": (
        case("tree", (2, 3, 5, 2), {"tree": {"leaves": 2, "leaf_k": 2, "root_k": 2, "forward": 1.0}}),
        4,
    ),
    "tree-at-once": (case("tree", (2, 3, 5, 2), {"tree": {"leaves": 2, "leaf_k": 2, "root_k": 1}}), 6),
    "groups": (
        case("asynchronous", (2, 3, 5, 2), {"groups": {"count": 2, "batch": "replicated", "all_reduce": 1.0}}),
        10,
    ),
    "outage": (case("asynchronous", tables={"outage": [{"worker": "B", "from": 1.0, "until": 4.0}]}), 8),
    "population": (
        {
            "schema": 1,
            "pool": [
                {
                    "name": "job",
                    "concurrency": 3,
                    "population": [
                        {"name": "fast", "clients": 2, "work_time": 2.0},
                        {"name": "middle", "clients": 2, "work_time": 3.0},
                        {"name": "slow", "clients": 2, "work_time": 5.0, "stays": STAYS},
                    ],
                }
            ],
            "protocol": {"kind": "k-batch-async", "k": 2},
        },
        5,
    ),
    "pipeline": (case("pipeline", (2, 2, 2), stages=3), 7),
}


def drawn(name: str) -> Timeline:
    """The timeline of one drawing."""
    tables, updates = DRAWINGS[name]
    return timeline(Scenario.from_dict(tables, name=name), updates=updates, seed=0)


def draw_all(*_: object) -> None:
    """Write a text and an SVG for every drawing."""
    GENERATED.mkdir(exist_ok=True)
    for name, (tables, updates) in DRAWINGS.items():
        if name == "pipeline":  # a schedule: no engine runs it
            schedule = Pipeline.of(Scenario.from_dict(tables, name=name)).schedule(updates)
            text, figure = draw_schedule(schedule, width=WIDTH), plots.schedule(schedule)
        else:
            shown = drawn(name)
            text, figure = draw(shown, width=WIDTH), plots.timeline(shown)
        (GENERATED / f"{name}.txt").write_text(text, encoding="utf-8")
        figure.savefig(GENERATED / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    draw_all()
