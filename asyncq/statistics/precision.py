"""Running until the intervals are narrow enough: sequential stopping, with a cap on the number of updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from asyncq.estimate import Estimate
from asyncq.statistics.collect.accumulate import Accumulator, Collected
from asyncq.statistics.intervals import ratio_of_batches, variance_of_batches
from asyncq.statistics.steady_state import warm_up

__all__ = ["PrecisionRule", "watched"]

GROWTH = 1.25  # of the run between two looks: few looks keep the coverage of the last one
FEWEST_CYCLES = 50  # of every worker, before the first look


def watched(collected: Collected, unit: str) -> dict[str, Estimate]:
    """The estimates whose relative half-widths the precision is about. The mean staleness is not among them: the
    conservation law knows it beforehand."""
    b, smallest = collected.batches, collected.cycle
    variance = variance_of_batches(b.rows, b.staleness, b.squares, unit=f"{unit} squared", smallest=smallest)
    found = {
        "throughput": ratio_of_batches(b.updates, b.seconds, unit=f"{unit} per second", smallest=smallest),
        "variance of staleness": variance,
    }
    if b.visits.any():
        found["waiting"] = ratio_of_batches(b.waited, b.visits, unit="seconds", smallest=smallest)
    return found


@dataclass
class PrecisionRule:
    """Stop once every watched estimate has a relative half-width (95 %) of at most ``goal``.

    ``now`` is the widest at the last look: infinite before there is an interval. What is constant
    has none to narrow."""

    goal: float
    unit: str
    warmup: int | None  # rows that are left out already; None: they are looked for
    now: float = field(default=float("inf"))
    _next: int = field(default=0)

    def reached(self, accumulators: Sequence[Accumulator]) -> bool:
        """Look, if it is time to: at every shard of a server, of which the worst counts."""
        rows = min(accumulator.rows for accumulator in accumulators)
        if rows < max(self._next, FEWEST_CYCLES * accumulators[0].workers):
            return False
        self._next = int(GROWTH * rows)
        widths = [self._widest(accumulator) for accumulator in accumulators]
        if None in widths:
            return False
        self.now = max(width for width in widths if width is not None)
        return self.now <= self.goal

    def _widest(self, accumulator: Accumulator) -> float | None:
        """The widest relative half-width; None before the run has settled."""
        cut = 0
        if self.warmup is None:
            found = warm_up(accumulator)
            cut = found.rows
            if found.enough is not None:
                return None
        seen = watched(accumulator.collected(cut), self.unit).values()
        return max((one.half_width / abs(one.mean) for one in seen if one.mean), default=0.0)
