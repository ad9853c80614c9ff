"""Estimates with confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan

from asyncq.jsonable import record

__all__ = ["Estimate"]


@dataclass(frozen=True)
class Estimate:
    """An exact result, or an estimate with its 95 % confidence interval.

    ``ci95`` is None for an exact result, and for an estimate from too few data for an interval. ``mean`` is nan without
    data (null in JSON).

    ``float`` is the mean, and ``f"{estimate:.3g}"`` formats it; ``str`` has the interval and the unit as well.
    """

    mean: float
    ci95: tuple[float, float] | None
    unit: str
    exact: bool = False

    @property
    def half_width(self) -> float:
        """Half the length of the interval, in the unit of the mean: 0 if exact, infinite without an interval."""
        if self.ci95 is None:
            return 0.0 if self.exact else float("inf")
        return 0.5 * (self.ci95[1] - self.ci95[0])

    def __float__(self) -> float:
        return self.mean

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        return "none" if isnan(self.mean) else format(self.mean, spec)

    def __str__(self) -> str:
        interval = "" if self.ci95 is None else f" [{self.ci95[0]:.4g}, {self.ci95[1]:.4g}]"
        return "none" if isnan(self.mean) else f"{self.mean:.4g}{interval} {self.unit}"

    def scaled(self, factor: float, unit: str) -> Estimate:
        """Estimate of the quantity multiplied by ``factor``."""
        ci95 = None if self.ci95 is None else (factor * self.ci95[0], factor * self.ci95[1])
        return Estimate(factor * self.mean, ci95, unit, self.exact)

    def to_dict(self) -> dict[str, object]:
        """As in the JSON report."""
        return record(self)
