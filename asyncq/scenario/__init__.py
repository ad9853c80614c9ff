"""What a scenario file may say: its tables, the checks across them, and the mistakes in one.

The tables are loaded on first use: what needs no scenario imports no pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from asyncq.scenario.problem import EdgeTable, ProblemTable
    from asyncq.scenario.scenario import Scenario
    from asyncq.scenario.tables import (
        Client,
        Failure,
        Groups,
        Learner,
        Network,
        Optimizer,
        Outage,
        Pool,
        Protocol,
        RunTable,
        Server,
        Slowdown,
        Slowness,
        Tree,
    )

__all__ = [
    "Client",
    "EdgeTable",
    "Failure",
    "Groups",
    "Learner",
    "Network",
    "Optimizer",
    "Outage",
    "Pool",
    "ProblemTable",
    "Protocol",
    "RunTable",
    "Scenario",
    "Server",
    "Slowdown",
    "Slowness",
    "Tree",
    "as_scenario",
]


def as_scenario(source: Scenario | str | Path) -> Scenario:
    """The scenario itself, or that of the TOML file of such a name; raises ``ScenarioError`` for its mistakes."""
    from asyncq.scenario.scenario import Scenario

    return source if isinstance(source, Scenario) else Scenario.from_toml(source)


def __getattr__(name: str) -> Any:
    if name in __all__:
        from asyncq.scenario import problem, scenario, tables

        return next(getattr(home, name) for home in (tables, scenario, problem) if hasattr(home, name))
    raise AttributeError(f"module 'asyncq.scenario' has no attribute {name!r}")
