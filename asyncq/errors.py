"""Every error that asyncq raises on purpose, and the warning of an old name.

::

    AsyncqError
    ├── InputError         the input is at fault: file, key, value, rule, remedy; the command line exits with 2
    │   └── ScenarioError  a scenario is
    ├── DeadlockError      a simulation in which nothing can happen any more
    ├── TooShortError      an estimator that refuses; carries its estimate
    └── NoExactLaw         there is no exact staleness law for this scenario; says which neighbour has one
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from warnings import warn

from asyncq.formats import printable

__all__ = [
    "MOST_TOLD",
    "AsyncqError",
    "DeadlockError",
    "InputError",
    "NoExactLaw",
    "ScenarioError",
    "TooShortError",
    "old_attributes",
    "old_name",
    "old_names",
]

T = TypeVar("T")
MOST_TOLD = 100  # mistakes in one error


class AsyncqError(Exception):
    """The root of the tree: catch this to catch everything asyncq raises on purpose."""


class InputError(AsyncqError, ValueError):
    """Bad input. ``problems`` holds one line per mistake, each with origin, key, value, rule and remedy, its control
    characters escaped. At most ``MOST_TOLD`` are told; a last line counts those left out, among them ``more``."""

    def __init__(self, problems: Sequence[str] | str, *, more: int = 0) -> None:
        lines = [problems] if isinstance(problems, str) else [*problems]
        more += max(len(lines) - MOST_TOLD, 0)
        last = [f"{more:,} more mistakes are not told; correct these first"] if more else []
        self.problems: tuple[str, ...] = (*map(printable, lines[:MOST_TOLD]), *last)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._restored, (self.problems,)

    @classmethod
    def _restored(cls, problems: tuple[str, ...]) -> InputError:
        error = cls(())
        error.problems, error.args = problems, ("\n".join(problems),)
        return error


class ScenarioError(InputError):
    """A scenario that is wrong, or does not go with what is asked of it."""


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


def old_name(old: str, new: str) -> None:
    """Warn the caller's caller that ``old`` is now ``new``."""
    warn(f"{old} is now {new}; the old name goes in the next release", DeprecationWarning, stacklevel=3)


def old_attributes(**new: str) -> Callable[[type[T]], type[T]]:
    """Decorate a class whose attributes were renamed, as ``old="new"``, or became methods, as ``old="new()"``."""

    def decorated(cls: type[T]) -> type[T]:
        for old, name in new.items():
            setattr(cls, old, _alias(cls.__name__, old, name))
        return cls

    return decorated


def _alias(cls: str, old: str, new: str) -> property:
    def value(self: Any) -> Any:
        old_name(f"{cls}.{old}", f"{cls}.{new}")
        found = getattr(self, new.removesuffix("()"))
        return found() if new.endswith("()") else found

    return property(value, doc=f"The old name of :attr:`{new}`.")


def old_names(module: dict[str, Any], **new: str) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a module (its ``globals()``) whose names were changed, as ``old="new"``."""

    def value(name: str) -> Any:
        if name not in new:
            raise AttributeError(f"module {module['__name__']!r} has no attribute {name!r}")
        old_name(f"{module['__name__']}.{name}", new[name])
        return module[new[name]]

    return value
