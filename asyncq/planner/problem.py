"""The training problem of a ``[plan]`` table: curvatures, gradient noise and a target."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from asyncq.errors import ScenarioError
from asyncq.jsonable import record
from asyncq.scenario import Scenario
from asyncq.scenario.plan import HUGE, TINY
from asyncq.theory.descent.time_to_target import Quadratic
from asyncq.theory.recommendation.minimax import polyak

__all__ = ["Problem"]

MODES = 6


@dataclass(frozen=True, eq=False)
class Problem:
    """The quadratic on which every candidate is tuned, and the sources of its figures.

    ``quadratic`` has the noise of a gradient on a whole batch. ``momentum`` is the optimum of one worker without noise.
    ``batch`` is in samples (None: unknown, samples are counted in batches). ``unit``: the unit of learning rates.
    ``inferred``: values taken from ``[optimizer]``.
    """

    quadratic: Quadratic
    condition_number: float
    gradient_noise: float
    loss_reduction: float
    momentum: float
    batch: float | None
    unit: str
    inferred: tuple[str, ...]
    is_guess: bool  # the sharpness was not measured: learning rates mean something as ratios only

    @classmethod
    def of(cls, scenario: Scenario) -> Problem:
        """Problem of a scenario's ``[plan]`` and ``[optimizer]``. Raises ``ScenarioError`` if it is undetermined."""
        plan, today = scenario.plan, scenario.optimizer
        assert plan is not None
        momentum = None if today is None else today.momentum
        rate = None if today is None else today.learning_rate
        inferred: list[str] = []
        kappa, sharpness, curvatures, batch = plan.condition_number, plan.sharpness, plan.curvatures, plan.batch_size
        if (known := scenario.problem) is not None:
            kappa, sharpness = kappa or known.condition_number, sharpness or known.sharpness
            curvatures, batch = known.curvatures, batch or known.batch_size
            inferred.append("gradient noise that does not fall with the loss: plans do not use [problem]'s noise yet")
        if curvatures is not None:
            modes = np.array(sorted(curvatures))
            kappa, sharpness = float(modes[-1] / modes[0]), float(modes[-1])
        guessed = sharpness is None
        if kappa is None:
            if momentum is None or momentum <= 0:
                where = scenario.source or scenario.name
                raise ScenarioError(
                    f"{where}: plan.condition_number is missing; give it, or optimizer.momentum above 0 as tuned today"
                )
            kappa = _implied(momentum, str(scenario.source or scenario.name))
            inferred.append(f"condition number {kappa:.4g}, from momentum {momentum:g}, as if tuned without noise")
        target = polyak(kappa)[0]
        if sharpness is None and rate is not None:
            mu = target if momentum is None or momentum <= 0 else momentum
            sharpness = (1.0 + mu**0.5) ** 2 / rate
            inferred.append(f"sharpness {sharpness:.4g}, from learning rate {rate:g}, as if tuned without noise")
        if sharpness is not None and not TINY <= sharpness <= HUGE:
            raise ScenarioError(
                f"{scenario.source or scenario.name}: optimizer.learning_rate must make a sharpness from {TINY:g} to "
                f"{HUGE:g} (got {rate!r}, hence {sharpness:.3g}); give the learning rate of today, or plan.sharpness"
            )
        unit = "learning rate"
        if sharpness is None:
            sharpness, unit = 1.0, "learning rate times sharpness"
        if curvatures is None:
            modes = np.geomspace(sharpness / kappa, sharpness, MODES)
        return cls(
            quadratic=_quadratic(modes, plan.noise, plan.target.loss_reduction),
            condition_number=kappa,
            gradient_noise=plan.noise,
            loss_reduction=plan.target.loss_reduction,
            momentum=target,
            batch=batch,
            unit=unit,
            inferred=tuple(inferred),
            is_guess=guessed,
        )

    def with_(self, *, noise: float = 1.0, condition: float = 1.0, reduction: float = 1.0) -> Problem:
        """Copy with gradient noise and condition number multiplied by factors, and loss reduction raised to the
        power ``reduction``."""
        h = self.quadratic.curvature
        stretch = 0.0 if self.condition_number == 1 else -np.log(condition) / np.log(self.condition_number)
        modes = h * (h.max() / h) ** stretch
        target = self.loss_reduction**reduction
        quadratic = _quadratic(modes, self.gradient_noise * noise, target)
        kappa = self.condition_number * condition if h.size > 1 else 1.0
        return replace(
            self, quadratic=quadratic, condition_number=kappa, gradient_noise=self.gradient_noise * noise,
            momentum=polyak(kappa)[0], loss_reduction=target,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON report."""
        q = self.quadratic
        return record({
            "curvatures": q.curvature,
            "condition_number": self.condition_number,
            "gradient_noise": self.gradient_noise,
            "loss_reduction": self.loss_reduction,
            "best_momentum_of_one_worker_without_noise": self.momentum,
            "batch_size": self.batch,
            "learning_rate_unit": self.unit,
            "inferred": self.inferred,
        })  # fmt: skip


def _implied(momentum: float, where: str) -> float:
    """Condition number for which ``momentum`` is optimal with one worker and no noise."""
    root = momentum**0.5
    kappa = ((1.0 + root) / (1.0 - root)) ** 2 if root < 1.0 else math.inf
    if not kappa <= HUGE:
        raise ScenarioError(
            f"{where}: optimizer.momentum must imply a condition number of at most {HUGE:g} (got {momentum!r}); "
            "give plan.condition_number"
        )
    return kappa


def _quadratic(modes: np.ndarray[Any, np.dtype[np.float64]], noise: float, reduction: float) -> Quadratic:
    """Quadratic with equal initial loss in all modes, so that all curvatures matter to the target. The noise is equal
    in all modes; its total is ``noise`` times the squared length of the initial gradient."""
    start = np.sqrt(2.0 / (modes.size * modes))
    squared = float((modes**2 * start**2).sum())
    return Quadratic(modes, start, np.full(modes.size, noise * squared / modes.size), 1.0 / reduction)
