"""Every error that asyncq raises on purpose.

::

    AsyncqError
    ├── ScenarioError      the input is at fault: file, key, value, rule, remedy; the command line exits with 2
    ├── DeadlockError      a simulation in which nothing can happen any more
    ├── TooShortError      an estimator that refuses; carries its estimate
    └── NoExactLaw         there is no exact staleness law for this scenario; says which neighbour has one
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["AsyncqError", "DeadlockError", "NoExactLaw", "ScenarioError", "TooShortError"]


class AsyncqError(Exception):
    """The root of the tree: catch this to catch everything asyncq raises on purpose."""


class ScenarioError(AsyncqError):
    """Bad input. ``problems`` holds one line per mistake, each with file, key, value, rule and remedy."""

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class DeadlockError(AsyncqError):
    """Nothing is scheduled and the target is not reached; the message names what every worker waits for."""


class TooShortError(AsyncqError):
    """A run too short for the estimate asked of it; ``estimate`` is what it would have been."""

    def __init__(self, message: str, estimate: Any = None) -> None:
        super().__init__(message)
        self.estimate = estimate


class NoExactLaw(AsyncqError):
    """No exact staleness law is known; ``nearest`` describes the nearest scenario that has one."""

    def __init__(self, reason: str, nearest: str = "") -> None:
        super().__init__(f"{reason}; nearest scenario with an exact law: {nearest}" if nearest else reason)
        self.reason = reason
        self.nearest = nearest
