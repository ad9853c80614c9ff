"""Problems opened once: what asyncq advises, the rules of thumb, and what each costs in real training, as JSON.

`python -m asyncq.papers.networks.opened OUT [NAME ...]` writes OUT/NAME.json for each name (all problems that are kept
back). Every number that the advice needs comes from one-worker runs; rules and the best grid point are then trained
again on fresh seeds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from asyncq.errors import ScenarioError
from asyncq.papers.networks.edges import edge
from asyncq.papers.networks.evidence import HELD, measured
from asyncq.papers.networks.grid import search
from asyncq.papers.networks.problems import KEPT_BACK, Problem
from asyncq.papers.networks.rules import RIVALS, Setting, judged, measured_rule
from asyncq.papers.networks.runs import law_of
from asyncq.theory.recommendation.regret import advise
from asyncq.theory.recommendation.worlds import Edge, World, measured_worlds, plausible_worlds
from asyncq.theory.stability import exponential_workers
from asyncq.training import Measurement

__all__ = ["ORDER", "Opened", "main"]

ORDER = ((8, "exponential"), (8, "gamma"), (16, "exponential"), (4, "gamma"), (16, "gamma"), (4, "exponential"))
MOMENTUM = 0.9  # of today
SEEDS, FRESH = (1, 2, 3), (101, 102, 103)
ALONE = 1.5 ** np.arange(-7.0, 9.0)  # of batch / 30: what one worker tries
SHARES = 1.7 ** np.arange(-7.0, 2.0)  # of one worker's best rate / (1 - momentum): what several try


class Opened:
    """One problem: what one worker's runs say (``today``, ``measurement``, two ``edges``), then `setting`."""

    def __init__(self, problem: Problem, *, budget: int = 6000) -> None:
        self.problem, self.budget = problem, budget
        alone = search(problem, momenta=(MOMENTUM,), effective=problem.batch / 30 * ALONE, seeds=SEEDS, budget=budget)
        if not np.isfinite(alone.geometric_mean.min()):
            raise ScenarioError(f"networks: one worker does not reach the target of {problem.name} on every seed")
        self.today: Setting = alone.best[:2]
        self.measurement, self.edges = self._measure()

    def _measure(self) -> tuple[Measurement, list[Edge]]:
        """The measurement, and the largest stable rates of one worker at momenta 0 and 0.9 from the target; from half
        of today's rate / (1 - momentum) where batch / 60 does not reach the target."""
        problem = self.problem
        for rate in (problem.batch / 60, 0.5 * self.today[1] / (1 - self.today[0])):
            measurement, weights = measured(problem, rate=rate, count=48)
            if 1.0 in weights:
                break
        else:
            raise ScenarioError(f"networks: {problem.name} did not reach its target")
        found = {mu: edge(problem, mu, guess=2 * self.today[1] / (1 - self.today[0]) * (1 - mu), start=weights[1.0],
                          level=HELD * problem.target, updates=800, seeds=(11, 12), steps=4)
                 for mu in (0.0, 0.9)}  # fmt: skip
        return measurement, [Edge(mu, rate) for mu, rate in found.items() if np.isfinite(rate)]

    def worlds(self) -> dict[str, tuple[World, ...]]:
        """By how much is known: the measurement, two edges, or today's setting alone."""
        here, (momentum, rate), batch = self.measurement.nearest(self.problem.target), self.today, self.problem.batch
        assert here.sharpness is not None
        assert here.along is not None
        ratio = here.ratio.mean
        return {
            "advice, measured": measured_worlds(
                here.sharpness.mean, ratio, batch_size=batch, noise_at_sharpness=min(here.along.mean, ratio),
                today=self.today),
            "advice, two edges": plausible_worlds(momentum, rate, batch_size=batch, edges=self.edges),
            "advice, nothing measured": plausible_worlds(momentum, rate, batch_size=batch),
        }  # fmt: skip

    def setting(self, workers: int, work: str) -> dict[str, Any]:
        """The grid of one configuration, and every rule on fresh seeds."""
        known = self.today[1] / (1 - self.today[0])
        grid = search(self.problem, workers=workers, work=work, momenta=(0.0, 0.5, 0.9), effective=known * SHARES,
                      seeds=SEEDS, budget=self.budget)  # fmt: skip
        law = exponential_workers(workers) if work == "exponential" else law_of(workers, work)
        rules = {name: rule(*self.today, workers) for name, rule in RIVALS.items()}
        rules["edge of (10.1) at momentum 0"] = measured_rule(self.problem, self.measurement, workers, work)
        for name, worlds in self.worlds().items():
            advised = advise(law, worlds, today=self.today)
            rules[name] = advised.momentum, advised.learning_rate
        found = judged(self.problem, workers, work, grid.best[:2], rules, seeds=FRESH, budget=self.budget)
        return {"workers": workers, "work": work, "grid": grid.to_dict(), "rules": found}

    def to_dict(self) -> dict[str, Any]:
        """What one worker's runs said."""
        return {
            "problem": self.problem.name,
            "today": self.today,
            "measurement": self.measurement.to_dict(self.problem.target),
            "edges": [[found.momentum, found.learning_rate] for found in self.edges],
        }


def main(arguments: list[str]) -> None:
    """Write OUT/NAME.json, renewed after every configuration."""
    names = arguments[1:] or [*KEPT_BACK]
    unknown = [name for name in names if name not in KEPT_BACK]
    if not arguments or unknown:
        raise ScenarioError(f"opened: give a folder, and names of {', '.join(KEPT_BACK)} (all)")
    for name in names:
        opened, rows, failed = Opened(KEPT_BACK[name]), [], []
        for workers, work in ORDER:
            try:
                rows.append(opened.setting(workers, work))
            except ValueError as error:
                failed.append({"workers": workers, "work": work, "why": str(error)})
            found = json.dumps({**opened.to_dict(), "settings": rows, "failed": failed}, allow_nan=False, indent=1)
            (Path(arguments[0]) / f"{name}.json").write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
