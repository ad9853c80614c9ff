"""asyncq: a queueing-theory simulator and planner for asynchronous SGD.

The names below are loaded when they are first used, so that ``import asyncq`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncq.advice import recommend, step_sizes
    from asyncq.errors import AsyncqError, DeadlockError, NoExactLaw, ScenarioError, TooShortError
    from asyncq.planner import Plan, plan
    from asyncq.replications import Replications, replicate
    from asyncq.run import Run, simulate
    from asyncq.scenario import Scenario
    from asyncq.staleness import StalenessLaw
    from asyncq.theory.exact import staleness_law
    from asyncq.theory.exponential import exponential_workers
    from asyncq.theory.prediction import predict

__version__ = "0.1.0"

_HOMES = {
    "AsyncqError": "errors",
    "DeadlockError": "errors",
    "NoExactLaw": "errors",
    "Plan": "planner",
    "Replications": "replications",
    "Run": "run",
    "Scenario": "scenario",
    "ScenarioError": "errors",
    "StalenessLaw": "staleness",
    "TooShortError": "errors",
    "exponential_workers": "theory.exponential",
    "plan": "planner",
    "predict": "theory.prediction",
    "recommend": "advice",
    "replicate": "replications",
    "simulate": "run",
    "staleness_law": "theory.exact",
    "step_sizes": "advice",
}

__all__ = [
    "AsyncqError",
    "DeadlockError",
    "NoExactLaw",
    "Plan",
    "Replications",
    "Run",
    "Scenario",
    "ScenarioError",
    "StalenessLaw",
    "TooShortError",
    "exponential_workers",
    "plan",
    "predict",
    "recommend",
    "replicate",
    "simulate",
    "staleness_law",
    "step_sizes",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"asyncq.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'asyncq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
