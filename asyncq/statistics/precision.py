"""Sequential stopping: run until the intervals are narrow enough, with a cap on the number of updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from asyncq.estimate import Estimate
from asyncq.statistics.collect.accumulate import Accumulator, Collected
from asyncq.statistics.intervals import ratio_of_batches, variance_of_batches
from asyncq.statistics.steady_state import warm_up

__all__ = ["PrecisionRule", "watched"]

GROWTH = 1.25  # of the run between two looks: with few looks the intervals keep their coverage
FEWEST_CYCLES = 50  # of every worker, before the first look


def watched(collected: Collected, unit: str) -> dict[str, Estimate]:
    """The estimates whose relative half-widths the rule bounds. The mean staleness is not among them: the conservation
    law fixes it."""
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

    ``now`` is the widest at the last look, infinite before there is an interval. A constant has width zero."""

    goal: float
    unit: str
    warmup: int | None  # updates left out already; None: the warm-up is searched for
    now: float = field(default=float("inf"))
    _next: int = field(default=0)

    def reached(self, accumulators: Sequence[Accumulator]) -> bool:
        """Look, if the run has grown enough since the last look; of several shards the widest interval counts."""
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
