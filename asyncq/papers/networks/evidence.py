"""Measurements and edges of the development problems as JSON: `python -m asyncq.papers.networks.evidence OUT [NAME]`.

For each problem: checkpoints of a one-worker run, what is measured there, and the largest stable rates from the
checkpoint at the target. Problems that are kept back are refused.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from asyncq.errors import ScenarioError
from asyncq.papers.networks.edges import checkpoints, edge
from asyncq.papers.networks.problems import DEVELOPMENT, Problem
from asyncq.papers.networks.runs import chance_loss, gradient_of
from asyncq.training import Measurement, measure_run

__all__ = ["HELD", "LEVELS", "SETTINGS", "edges", "main", "measured"]

LEVELS = (3.0, 2.0, 1.5, 1.0, 0.7)  # of the target
HELD = 1.5  # of the target: what the loss may not rise above, from weights at the target
SETTINGS = ((1, "exponential"), (4, "exponential"), (4, "gamma"), (8, "exponential"), (8, "gamma"),
            (16, "exponential"), (16, "gamma"))  # fmt: skip


def measured(problem: Problem, *, rate: float, count: int = 64, seed: int = 1) -> tuple[Measurement, dict[float, Any]]:
    """The measurement at `LEVELS` times the target of a one-worker run at ``rate``, from ``count`` batches of at least
    32 samples, and the weights by level. Levels above .8 of the loss of a constant prediction are left out."""
    levels = [level for level in LEVELS if level * problem.target < 0.8 * chance_loss(problem)]
    found = checkpoints(problem, [level * problem.target for level in levels], rate=rate, seed=seed)
    weights = dict(zip(levels, found, strict=False))
    generator, size = np.random.default_rng((seed, 4)), max(32, problem.batch)
    samples = problem.samples.inputs.shape[0]
    batches = [generator.integers(0, samples, size) for _ in range(count)]
    run = measure_run(gradient_of(problem), weights.values(), batches, batch_size=size)
    return Measurement(run.checkpoints, problem.batch), weights


def edges(
    problem: Problem, start: Any, settings: Any = SETTINGS, momenta: Any = (0.0, 0.5, 0.9), **options: Any
) -> list[dict[str, Any]]:
    """The largest rate that holds the loss below `HELD` times the target from ``start``, for each setting and momentum;
    None where none was found."""
    rows, guess = [], problem.batch / 30
    for workers, work in settings:
        for momentum in momenta:
            found = edge(problem, momentum, guess=guess * (1 - momentum), level=HELD * problem.target, start=start,
                         workers=workers, work=work, **options)  # fmt: skip
            known = np.isfinite(found)
            guess = found / (1 - momentum) if known else guess
            rows.append({"workers": workers, "work": work, "momentum": momentum, "edge": found if known else None})
    return rows


def main(arguments: list[str]) -> None:
    """Write OUT/evidence-NAME.json for each name (all development problems)."""
    out, names = Path(arguments[0]), arguments[1:] or [*DEVELOPMENT]
    for name in names:
        if name not in DEVELOPMENT:
            raise ScenarioError(f"evidence: {name!r} is no development problem; give one of {', '.join(DEVELOPMENT)}")
        problem = DEVELOPMENT[name]
        measurement, weights = measured(problem, rate=problem.batch / 60)
        if 1.0 not in weights:
            raise ScenarioError(f"evidence: {name} did not reach its target; give it more updates")
        found = {
            "problem": name,
            "target": problem.target,
            "measurement": measurement.to_dict(problem.target),
            "edges": edges(problem, weights[1.0], updates=800, seeds=(11, 12), steps=5),
        }
        (out / f"evidence-{name}.json").write_text(json.dumps(found, allow_nan=False, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
