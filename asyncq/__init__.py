"""asyncq: a queueing-theory simulator and planner for asynchronous SGD.

The names below are loaded when they are first used, so that ``import asyncq`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncq.errors import AsyncqError, DeadlockError, NoExactLaw, ScenarioError, TooShortError
    from asyncq.planner import Plan, plan
    from asyncq.results.advice import recommend, step_sizes
    from asyncq.results.replications import Replications, replicate
    from asyncq.results.run import Run, simulate
    from asyncq.scenario import Scenario
    from asyncq.staleness import StalenessLaw
    from asyncq.theory.descent.exponential import exponential_workers
    from asyncq.theory.prediction import predict
    from asyncq.theory.queueing.exact import staleness_law

__version__ = "0.1.0"

_HOMES = {
    "AsyncqError": "errors",
    "DeadlockError": "errors",
    "NoExactLaw": "errors",
    "Plan": "planner",
    "Replications": "results.replications",
    "Run": "results.run",
    "Scenario": "scenario",
    "ScenarioError": "errors",
    "StalenessLaw": "staleness",
    "TooShortError": "errors",
    "exponential_workers": "theory.descent.exponential",
    "plan": "planner",
    "predict": "theory.prediction",
    "recommend": "results.advice",
    "replicate": "results.replications",
    "simulate": "results.run",
    "staleness_law": "theory.queueing.exact",
    "step_sizes": "results.advice",
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
