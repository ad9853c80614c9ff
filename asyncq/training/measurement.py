"""Measurements at checkpoints of a run, and the table ``[problem]`` that follows from them.

The noise of a network falls with its loss. Near a target it is described by two numbers: the trace of the covariance
of one sample's gradient is 2 R2 (loss - floor) + constant, where R2 is the proportional noise. Source:
docs/theory/networks.md (10.0).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asyncq.estimate import Estimate
from asyncq.statistics.intervals import mean_of_independent
from asyncq.training.curvature import Gradient, Product, hessian_product, top_curvature
from asyncq.training.ratios import mean_ratio

__all__ = ["NEAR", "Checkpoint", "Measurement", "fit_noise", "measure_checkpoint", "measure_run"]

Real = NDArray[np.float64]

NEAR = 3.0  # checkpoints with a loss above the floor within this factor of the target's enter the fit of the noise
_PER_SAMPLE = "trace of one sample's gradient covariance"


@dataclass(frozen=True)
class Checkpoint:
    """What was measured at one set of weights, or over a stretch of a run. ``noise``: trace of the covariance of one
    sample's gradient; ``ratio``: that over twice the loss above the floor; ``along``: the noise along the top
    curvature over the same. ``sharpness`` (the largest Hessian eigenvalue) and ``along`` are None where not
    measured."""

    loss: Estimate
    noise: Estimate
    ratio: Estimate
    sharpness: Estimate | None = None
    along: Estimate | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        parts = {"loss": self.loss, "noise": self.noise, "ratio": self.ratio, "sharpness": self.sharpness,
                 "along": self.along}  # fmt: skip
        return {name: None if part is None else part.to_dict() for name, part in parts.items()}


@dataclass(frozen=True)
class Measurement:
    """The measurements of a run: ``checkpoints`` in order, the ``batch_size`` of its updates and the ``floor`` of its
    loss (0 where the loss can vanish)."""

    checkpoints: tuple[Checkpoint, ...]
    batch_size: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not self.checkpoints:
            raise ValueError("a measurement needs at least one checkpoint")

    def nearest(self, target: float | None = None) -> Checkpoint:
        """The checkpoint whose loss is nearest ``target``, by ratio; the last one without a target."""
        if target is None:
            return self.checkpoints[-1]
        return min(self.checkpoints, key=lambda point: abs(np.log(point.loss.mean / target)))

    def problem(self, target: float | None = None) -> dict[str, Estimate | int]:
        """The keys of the table ``[problem]``, for a run that is to reach the loss ``target`` (the last loss measured).

        Sharpness, the noise along it and R2 are those of the checkpoint nearest the target. Where the loss can vanish
        (``floor`` 0) the noise vanishes with it: the constant noise is 0. Above another floor the two parts of the
        noise are fitted to the checkpoints whose loss above the floor is within a factor ``NEAR`` of that at the target
        (`fit_noise`). A fit with the floor 0 would mistake for constant noise that R2 rises while the loss falls. What
        was not measured is left out.
        """
        here = self.nearest(target)
        proportional, constant = here.ratio, Estimate(0.0, None, _PER_SAMPLE, exact=True)
        if self.floor > 0:
            goal = (here.loss.mean if target is None else target) - self.floor
            near = [p for p in self.checkpoints if goal / NEAR <= p.loss.mean - self.floor <= goal * NEAR]
            proportional, constant = fit_noise(near or [here], self.floor)
        table: dict[str, Estimate | int] = {"batch_size": self.batch_size}
        if here.sharpness is not None:
            table["sharpness"] = here.sharpness
        table |= {"proportional_noise": proportional, "constant_noise": constant}
        if here.along is not None:
            along = here.along.scaled(proportional.mean / here.ratio.mean, "R2")
            if along.mean <= proportional.mean:  # above it: too few batches to tell; left out, the theory searches
                table["noise_at_sharpness"] = along
        return table

    def to_toml(self, target: float | None = None) -> str:
        """The table ``[problem]`` of a scenario file, 95 % intervals in comments."""
        lines = ["[problem]"]
        for key, value in self.problem(target).items():
            if isinstance(value, int):
                lines.append(f"{key} = {value}")
                continue
            ci95 = value.ci95
            note = "" if ci95 is None else f"  # 95 %: {ci95[0]:.3g} to {ci95[1]:.3g}"
            lines.append(f"{key} = {value.mean:.4g}{note}")
        return "\n".join(lines) + "\n"

    def to_dict(self, target: float | None = None) -> dict[str, Any]:
        """As JSON has it: the checkpoints and the table ``problem``."""
        table = self.problem(target)
        return {
            "batch_size": self.batch_size,
            "floor": self.floor,
            "checkpoints": [point.to_dict() for point in self.checkpoints],
            "problem": {key: value if isinstance(value, int) else value.to_dict() for key, value in table.items()},
        }


def fit_noise(checkpoints: Sequence[Checkpoint], floor: float = 0.0) -> tuple[Estimate, Estimate]:
    """(proportional noise, constant noise): noise = 2 R2 (loss - floor) + constant, both at least 0, by weighted least
    squares over checkpoints. A single checkpoint cannot tell the two apart: all its noise counts as proportional.

    Intervals: 95 % of 400 fits to noises drawn again within their errors, which are widened where the points do not lie
    on a line.
    """
    if len(checkpoints) == 1:
        return checkpoints[0].ratio, Estimate(0.0, None, _PER_SAMPLE)
    losses = np.array([point.loss.mean - floor for point in checkpoints])
    noises = np.array([point.noise.mean for point in checkpoints])
    halves = np.array([point.noise.half_width for point in checkpoints])
    known = np.isfinite(halves) & (halves > 0)
    errors = np.where(known, halves / 1.96, np.max(halves[known], initial=0.0) / 1.96) if known.any() else 0.1 * noises
    columns = np.column_stack([2 * losses, np.ones(losses.size)])
    fitted = _not_negative(columns, noises, errors)
    misfit = float((((noises - columns @ fitted) / errors) ** 2).sum()) / max(1, losses.size - 2)
    errors = errors * np.sqrt(max(1.0, misfit))
    generator = np.random.default_rng(0)
    again = np.array([
        _not_negative(columns, noises + errors * generator.standard_normal(errors.size), errors) for _ in range(400)
    ])  # fmt: skip
    low, high = np.quantile(again, [0.025, 0.975], axis=0)
    slope, constant = float(fitted[0]), float(fitted[1])
    return (
        Estimate(slope, (min(float(low[0]), slope), max(float(high[0]), slope)), "R2"),
        Estimate(constant, (min(float(low[1]), constant), max(float(high[1]), constant)), _PER_SAMPLE),
    )


def _not_negative(columns: Real, values: Real, errors: Real) -> Real:
    """Weighted least squares with two coefficients, neither below 0."""
    a, y = columns / errors[:, None], values / errors
    best, *_ = np.linalg.lstsq(a, y, rcond=None)
    if best.min() >= 0:
        return np.asarray(best)
    alone = [np.array([max(0.0, a[:, 0] @ y / (a[:, 0] @ a[:, 0])), 0.0]),
             np.array([0.0, max(0.0, a[:, 1] @ y / (a[:, 1] @ a[:, 1]))])]  # fmt: skip
    return min(alone, key=lambda c: float(((y - a @ c) ** 2).sum()))


def measure_checkpoint(
    gradient: Gradient,
    weights: ArrayLike,
    batches: Sequence[Any],
    *,
    batch_size: int,
    floor: float = 0.0,
    curvature: bool = True,
    product: Any = None,
    seed: int = 0,
) -> Checkpoint:
    """Measure loss, noise and curvature at ``weights`` (d,).

    ``gradient(weights, batch)`` returns (mean loss, mean gradient (d,)) over one of the ``batches``: at least 8, drawn
    independently, each of ``batch_size`` samples. ``product(weights, batch)`` returns a function for products with the
    Hessian (by default central differences of the gradient).

    Noise: half the squared distance of the gradients of two batches, times the batch size, is an unbiased estimate of
    the trace; batches are taken in pairs, so that only two gradients are held, and intervals come from the pairs.
    Sharpness: Lanczos on the mean Hessian of all batches; the interval is that of the mean of the batches' Rayleigh
    quotients along the eigenvector. It does not hold the bias that few samples give to a largest eigenvalue.
    Cost: a gradient a batch, and with ``curvature`` 20 to 60 products a batch.
    Raises ``ValueError`` for fewer than 8 batches and where the loss is not above the floor.
    """
    point = np.asarray(weights, np.float64)
    if len(batches) < 8:
        raise ValueError(f"batches must be 8 or more (got {len(batches)})")
    vector: Real | None = None
    sharpness: Estimate | None = None
    if curvature:
        make = product or (lambda at, batch: hessian_product(gradient, at, batch))
        products: list[Product] = [make(point, batch) for batch in batches]

        def mean_product(direction: Real) -> Real:
            return np.asarray(sum(one(direction) for one in products) / len(products))

        _, vector = top_curvature(mean_product, point.size, seed=seed)
        sharpness = mean_of_independent([float(vector @ one(vector)) for one in products], unit="curvature")
    losses, traces, along = [], [], []
    for first, second in _pairs(batches):
        loss_a, a = gradient(point, first)
        loss_b, b = gradient(point, second)
        gap = np.asarray(a, np.float64) - np.asarray(b, np.float64)
        losses.append(0.5 * (loss_a + loss_b))
        traces.append(0.5 * batch_size * float(gap @ gap))
        if vector is not None:
            along.append(0.5 * batch_size * float(vector @ gap) ** 2)
    above = 2 * (np.array(losses) - floor)
    if above.mean() <= 0:
        raise ValueError(f"the loss must be above its floor (got {np.mean(losses):.4g} and floor {floor:.4g})")
    return Checkpoint(
        mean_of_independent(losses, unit="loss"),
        mean_ratio(traces, np.ones(len(traces)), unit=_PER_SAMPLE),
        mean_ratio(traces, above, unit="R2"),
        sharpness,
        mean_ratio(along, above, unit="R2") if along else None,
    )


def _pairs(batches: Sequence[Any]) -> list[tuple[Any, Any]]:
    """The batches in pairs that share none; an odd last one is left out."""
    return [pair for number, pair in enumerate(pairwise(batches)) if number % 2 == 0]


def measure_run(
    gradient: Gradient,
    checkpoints: Iterable[ArrayLike],
    batches: Sequence[Any],
    *,
    batch_size: int,
    floor: float = 0.0,
    curvature: bool = True,
    product: Any = None,
    seed: int = 0,
) -> Measurement:
    """Measure every one of ``checkpoints``, weights (d,) saved along a run; see `measure_checkpoint`."""
    points = tuple(
        measure_checkpoint(gradient, weights, batches, batch_size=batch_size, floor=floor, curvature=curvature,
                           product=product, seed=seed)
        for weights in checkpoints
    )  # fmt: skip
    return Measurement(points, batch_size, floor)
