"""Numbers, times and estimates as people read them: every report, message and sentence writes them alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from asyncq.estimate import Estimate

__all__ = ["Unit", "estimate", "interval", "number", "printable", "seconds", "unit_of"]

LARGEST, SMALLEST = 1e9, 1e-4  # beyond them numbers are written with an exponent


class Unit(NamedTuple):
    """A unit of time: its length in seconds, its symbol (as scenario files spell it) and its name."""

    size: float
    symbol: str
    name: str


UNITS = (
    Unit(86400.0, "d", "days"),
    Unit(3600.0, "h", "hours"),
    Unit(60.0, "min", "minutes"),
    Unit(1.0, "s", "seconds"),
    Unit(1e-3, "ms", "milliseconds"),
    Unit(1e-6, "us", "microseconds"),
    Unit(1e-9, "ns", "nanoseconds"),
)


def unit_of(duration: float) -> Unit:
    """The largest unit of which a ``duration`` (seconds) has two, or of a second and below one; seconds for 0."""
    if not duration > 0 or math.isinf(duration):
        return UNITS[3]
    return next((unit for unit in UNITS if duration >= (2.0 if unit.size > 1 else 1.0) * unit.size), UNITS[-1])


def seconds(duration: float, digits: int = 4) -> str:
    """A ``duration`` in seconds with its unit: 2.315 d, 55 min, 41.7 s, 12.5 ms."""
    unit = unit_of(duration)
    return f"{number(duration / unit.size, digits)} {unit.symbol}"


def number(value: float, digits: int = 4) -> str:
    """A number with so many significant ``digits`` and commas between thousands: 0.01234, 7.5, 123,500, 1.2e-07.

    "unknown" for nan and "infinite" for infinity: no report shows either.
    """
    if math.isnan(value):
        return "unknown"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    size = abs(value)
    if size >= LARGEST or (size and size < SMALLEST):
        return f"{value:.{digits}g}"
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10**digits else f"{rounded:,.{max(digits, 6)}g}"


def interval(ci95: tuple[float, float] | None, digits: int = 4) -> str:
    """An interval in brackets after a blank; nothing where there is none."""
    return "" if ci95 is None else f" [{number(ci95[0], digits)}, {number(ci95[1], digits)}]"


def estimate(value: Estimate, digits: int = 4) -> str:
    """The mean with its 95 % interval; "none" where there was nothing to estimate it from."""
    return "none" if math.isnan(value.mean) else number(value.mean, digits) + interval(value.ci95, digits)


def printable(text: str, *, lines: bool = False) -> str:
    """The text with control characters, changes of direction and ends of lines escaped, as in ``\\x1b``; the last are
    kept if it has several ``lines``."""
    if text.isprintable():
        return text
    keep = "\n" if lines else ""
    return "".join(c if c.isprintable() or c == keep else c.encode("unicode_escape").decode("ascii") for c in text)
