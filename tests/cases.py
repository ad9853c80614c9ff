"""Scenarios and laws that several tests use."""

from __future__ import annotations

from typing import Any

from asyncq import Scenario
from asyncq.protocols import ALL_KINDS, KINDS

LAWS: dict[str, dict[str, Any]] = {
    "exponential": {"law": "exponential", "mean": 1.0},
    "deterministic": {"law": "deterministic", "value": 1.0},
    "uniform": {"law": "uniform", "low": 0.5, "high": 1.5},
    "gamma": {"law": "gamma", "mean": 1.0, "cv": 0.5},
    "erlang": {"law": "erlang", "mean": 1.0, "stages": 3},
    "lognormal": {"law": "lognormal", "mean": 1.0, "cv": 0.8},
    "weibull": {"law": "weibull", "mean": 1.0, "cv": 0.7},
    "pareto": {"law": "pareto", "mean": 1.0, "shape": 2.5},
    "infinite-variance": {"law": "pareto", "mean": 1.0, "shape": 1.5},
    "hyperexponential": {"law": "hyperexponential", "mean": 1.0, "cv": 2.0},
    "truncated-normal": {"law": "truncated-normal", "mean": 1.0, "cv": 0.4},
    "empirical": {"law": "empirical", "values": [0.5, 1.0, 1.0, 1.5]},
    "shifted": {"law": "shifted", "minimum": 0.5, "plus": {"law": "exponential", "mean": 0.5}},
    "mixture": {
        "law": "mixture",
        "weights": [0.9, 0.1],
        "laws": [{"law": "deterministic", "value": 0.5}, {"law": "exponential", "mean": 5.5}],
    },
    "maximum": {"law": "maximum", "of": {"law": "exponential", "mean": 0.48}, "count": 4},
    "scaled": {"law": "scaled", "factor": 0.5, "of": {"law": "gamma", "mean": 2.0, "cv": 0.3}},
}


# a kind that has a table of its own needs it: "learner" and the like
TABLES: dict[str, dict[str, Any]] = {
    "learner": {"work_time": LAWS["empirical"]},
    "tree": {"leaves": 1, "leaf_k": 2, "root_k": 2, "forward": LAWS["empirical"]},
}
REQUIRED = {"k": 3, "bound": 1, "maximum_staleness": 4, "batch": 3, "staleness_budget": 2}
WITHOUT_TABLES = [name for name, kind in KINDS.items() if not kind.table]


def tables_of(kind: str) -> dict[str, Any]:
    """The table of a scenario that goes with a kind, if there is one."""
    return {table: TABLES[table]} if (table := ALL_KINDS[kind].table) else {}


def scenario(work: Any = LAWS["exponential"], *, workers: int = 8, pools: Any = None, **tables: Any) -> Scenario:
    """A scenario of one pool named "gpu", or of the pools given; tables such as ``server={...}`` as in a file."""
    pool = pools or [{"name": "gpu", "workers": workers, "work_time": work}]
    return Scenario.from_dict({"schema": 1, "pool": pool, **tables})
