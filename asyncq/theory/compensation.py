"""Compensation of implicit momentum: ways to hold the total momentum at its target, with their residuals and costs.

Source: docs/theory/momentum.md, section "Compensators" (the two exact ones are not in the papers).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncq.jsonable import record
from asyncq.staleness import StalenessLaw
from asyncq.theory.momentum import expected_update

__all__ = ["AdditiveRule", "ServerFilter", "StepSchedule", "additive_rule", "server_filter", "step_schedule"]

Real = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AdditiveRule:
    """Additive rule of the papers: explicit ``momentum`` mu = mu* - mu_S. ``lags``: total momentum at lags 1, 2, ...;
    ``residual``: the part beyond lag 1 (mu mu_S for the geometric law)."""

    target: float
    implicit: float
    momentum: float
    lags: Real
    residual: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with the first 64 lags."""
        return record(self, lags=self.lags[:64])


@dataclass(frozen=True, eq=False)
class StepSchedule:
    """Step size by staleness, alpha(tau) = alpha' mu*^tau / q_tau, exact in expectation. ``factors``:
    alpha(tau)/alpha'. ``noise_price``: E[alpha^2] over that of a constant step of equal mean (infinite for the
    geometric law unless mu*^2 < mu_S). ``residual``: share of the momentum weight lost beyond the support or by
    clipping."""

    target: float
    factors: Real
    noise_price: float
    residual: float
    clipped: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with the first 1024 factors."""
        return record(self, factors=self.factors[:1024])


@dataclass(frozen=True)
class ServerFilter:
    """Filter at the server: d_t = (G_t - mu_S G_{t-1}) / (1 - mu_S), v_t = mu* v_{t-1} - alpha' d_t.

    ``gradient_variance``: variance of d_t over that of G_t. ``floor_factor``: noise floor over that of one worker with
    mu* and alpha' (infinite if ``g`` >= 1: not mean-square stable). ``exact``: whether the law is geometric, so that
    the residual is 0."""

    target: float
    implicit: float
    step: float
    gradient_variance: float
    g: float
    floor_factor: float
    exact: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return record(self)


def _check_target(target: float) -> None:
    if not 0 <= target < 1:
        raise ValueError(f"the target momentum must lie in [0, 1) (got {target!r})")


def additive_rule(law: StalenessLaw, target: float) -> AdditiveRule:
    """Additive rule mu = mu* - mu_S, possibly negative: it matches the first lag and leaves the others."""
    _check_target(target)
    update = expected_update(law)
    mu = target - update.implicit
    lags = np.zeros(0)
    residual = float("nan")
    if update.leading is not None and update.kind != "delay":
        c = np.append(update.leading, update.remainder)
        lags = c - mu * np.append(-1.0, c[:-1])
        residual = float(np.abs(lags[1:]).sum())
    return AdditiveRule(target, update.implicit, mu, lags, residual)


def step_schedule(law: StalenessLaw, target: float, *, largest: float | None = None) -> StepSchedule:
    """Step schedule alpha(tau)/alpha' = mu*^tau / q_tau, clipped at ``largest`` (then inexact by the residual).

    Raises ``ValueError`` if q_tau = 0 inside the support: no step size can weigh a staleness that never occurs.
    """
    _check_target(target)
    pmf = law.pmf / law.pmf.sum()
    pmf = pmf[: int(np.flatnonzero(pmf)[-1]) + 1]
    if np.any(pmf <= 0):
        never = int(np.argmin(pmf))
        raise ValueError(f"{law.name}: q_{never} = 0: staleness {never} never occurs, so no step size can weigh it")
    wanted = target ** np.arange(pmf.size)
    factors = wanted / pmf
    clipped = False
    if largest is not None:
        clipped, factors = bool(np.any(factors > largest)), np.minimum(factors, largest)
    given = pmf * factors
    whole = 1.0 / (1.0 - target)
    squares = pmf * factors**2
    diverges = not clipped and law.truncation > 0 and squares[-1] > 1e-6 * squares.sum()
    price = float("inf") if diverges else float(squares.sum() / given.sum() ** 2)
    return StepSchedule(target, factors, price, float((whole - given.sum()) / whole), clipped)


def server_filter(law: StalenessLaw, target: float, step: float, *, implicit: float | None = None) -> ServerFilter:
    """Server filter and its price at alpha' h = ``step``, for any law (exact in expectation for the geometric law).

    g = (alpha' h)^2 mean[(1 - abs(Q)^2) abs(F)^2 / abs(P)^2], F = (1 - mu_S x)/(1 - mu_S),
    P = (1 - x)(1 - mu* x) + alpha' h x Q F. For the geometric law Q F = 1 and the floor factor is
    (1 + 2 mu_S alpha' h / ((1 + mu*)(1 - mu_S)^2)) / (1 - g). Raises ``ValueError`` for a step that is not stable.
    """
    _check_target(target)
    update = expected_update(law)
    mu_s = update.implicit if implicit is None else float(implicit)
    if not 0 <= mu_s < 1:
        raise ValueError(f"the implicit momentum must lie in [0, 1) (got {mu_s!r})")
    if not 0 < step < 2 * (1 + target):
        edge = 2 * (1 + target)
        raise ValueError(f"the step alpha' h must lie in (0, {edge:g}), stable for one worker (got {step!r})")
    points, last = 1 << max(12, int(8 * law.pmf.size).bit_length()), (np.inf, np.inf)
    while True:
        q = law.generating_function(points) / law.pmf.sum()
        x = np.exp(-2j * np.pi * np.arange(q.size) / points)
        f = (1 - mu_s * x) / (1 - mu_s)
        density = 1.0 / np.abs((1 - x) * (1 - target * x) + step * x * q * f) ** 2
        values = step**2 * (1 - np.abs(q) ** 2) * np.abs(f) ** 2 * density, np.abs(f) ** 2 * density
        found = tuple(float((2 * v.sum() - v[0] - v[-1]) / points) for v in values)
        if abs(found[0] - last[0]) <= 1e-10 * found[0] + 1e-15 and abs(found[1] - last[1]) <= 1e-10 * found[1]:
            break
        if points >= 1 << 23:
            raise ValueError(f"the filtered update is too close to instability at alpha' h = {step:g} to be resolved")
        last, points = (found[0], found[1]), 2 * points
    g, floor = found
    b = 1 + target
    alone = b / (step * (1 - target) * (2 * b - step))  # mean 1/abs(P)^2 of one worker with mu* and alpha'
    return ServerFilter(
        target,
        mu_s,
        step,
        (1 + mu_s**2) / (1 - mu_s) ** 2,
        g,
        floor / alone / (1 - g) if g < 1 else float("inf"),
        update.kind in ("none", "standard momentum") and abs(mu_s - update.implicit) < 1e-12,
    )
