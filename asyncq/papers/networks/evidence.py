"""Evidence on the development problems, as JSON: `python -m asyncq.papers.networks.evidence WHAT OUT [NAME ...]`.

``measure``: measurements at checkpoints of a one-worker run, and the largest stable rates from the checkpoint at the
target. ``judge``: grids, and the regret of rules on fresh seeds. Problems kept back are refused.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from asyncq.errors import ScenarioError
from asyncq.papers.networks.edges import checkpoints, edge
from asyncq.papers.networks.grid import search
from asyncq.papers.networks.problems import DEVELOPMENT, Problem
from asyncq.papers.networks.rules import RIVALS, judged, measured_rule
from asyncq.papers.networks.runs import chance_loss, gradient_of
from asyncq.training import Measurement, measure_run

__all__ = ["HELD", "LEVELS", "SETTINGS", "edges", "judge", "main", "measure", "measured"]

LEVELS = (3.0, 2.0, 1.5, 1.0, 0.7)  # times the target
HELD = 1.5  # times the target: level for the loss from weights at the target
SETTINGS = ((1, "exponential"), (4, "exponential"), (4, "gamma"), (8, "exponential"), (8, "gamma"),
            (16, "exponential"), (16, "gamma"))  # fmt: skip


def measured(problem: Problem, *, rate: float, count: int = 64, seed: int = 1) -> tuple[Measurement, dict[float, Any]]:
    """Measurements of a one-worker run at ``rate`` at `LEVELS` times the target, from ``count`` batches of at least 32
    samples, and the weights by level. Levels above 0.8 of the loss of a constant prediction are left out."""
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
    """Largest rate that keeps the loss below `HELD` times the target from ``start``, for each setting and momentum;
    None if none was found."""
    rows, guess = [], problem.batch / 30
    for workers, work in settings:
        for momentum in momenta:
            found = edge(problem, momentum, guess=guess * (1 - momentum), level=HELD * problem.target, start=start,
                         workers=workers, work=work, **options)  # fmt: skip
            known = np.isfinite(found)
            guess = found / (1 - momentum) if known else guess
            rows.append({"workers": workers, "work": work, "momentum": momentum, "edge": found if known else None})
    return rows


def measure(problem: Problem) -> dict[str, Any]:
    """Measurements of a problem, and edges from its checkpoint at the target."""
    measurement, weights = measured(problem, rate=problem.batch / 60)
    if 1.0 not in weights:
        raise ScenarioError(f"evidence: {problem.name} did not reach its target; give it more updates")
    return {
        "problem": problem.name,
        "target": problem.target,
        "measurement": measurement.to_dict(problem.target),
        "edges": edges(problem, weights[1.0], updates=800, seeds=(11, 12), steps=5),
    }


def judge(problem: Problem, *, share: float = 1.0) -> dict[str, Any]:
    """Grid of every setting, and on fresh seeds the regret of the measured rule and of its rivals, which start from the
    best rate of one worker at momentum 0.9."""
    measurement, _ = measured(problem, rate=problem.batch / 60)
    alone = search(problem)
    today = (0.9, float(alone.effective[int(np.argmin(alone.geometric_mean[list(alone.momenta).index(0.9)]))]) * 0.1)
    rows = []
    for workers, work in SETTINGS[1:]:
        grid = search(problem, workers=workers, work=work)
        rules = {name: rule(*today, workers) for name, rule in RIVALS.items()}
        rules["measured"] = measured_rule(problem, measurement, workers, work, share=share)
        found = judged(problem, workers, work, grid.best[:2], rules)
        rows.append({"workers": workers, "work": work, "grid": grid.to_dict(), "rules": found})
    return {"problem": problem.name, "today": today, "one_worker": alone.to_dict(), "settings": rows}


def main(arguments: list[str]) -> None:
    """Write OUT/WHAT-NAME.json for each name (all development problems); WHAT is measure or judge."""
    tasks = {"measure": measure, "judge": judge}
    if len(arguments) < 2 or arguments[0] not in tasks:
        raise ScenarioError("evidence: give measure or judge, a folder, and names of problems (all)")
    what, out, names = arguments[0], Path(arguments[1]), arguments[2:] or [*DEVELOPMENT]
    unknown = [name for name in names if name not in DEVELOPMENT]
    if unknown:
        raise ScenarioError(f"evidence: {unknown[0]!r} is no development problem; give of {', '.join(DEVELOPMENT)}")
    for name in names:
        found = json.dumps(tasks[what](DEVELOPMENT[name]), allow_nan=False, indent=1)
        (out / f"{what}-{name}.json").write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
