"""Families of laws on 0, 1, 2, ... and their maximum-likelihood estimators from a histogram."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncq.statistics.fit.goodness import geometric_pmf

__all__ = ["FAMILIES", "Family"]

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Family:
    """A parametric law: ``pmf(parameters, size)`` are P(0) .. P(size - 1), ``estimate(counts)`` the parameters at the
    likelihood's maximum, ``free`` how many of them were fitted (all, but for families on a range of whole numbers)."""

    name: str
    parameters: tuple[str, ...]
    pmf: Callable[[Floats, int], Floats]
    estimate: Callable[[Counts], Floats]
    smooth: bool = True  # in its parameters, which then have standard errors


def _mean(counts: Counts) -> float:
    return float(np.arange(counts.size) @ counts) / float(counts.sum())


def _variance(counts: Counts) -> float:
    return float((np.arange(counts.size) - _mean(counts)) ** 2 @ counts) / float(counts.sum())


def _log_likelihood(counts: Counts, pmf: Floats) -> float:
    seen = counts > 0
    with np.errstate(divide="ignore"):
        return float(counts[seen] @ np.log(pmf[: counts.size][seen]))


def _climb(counts: Counts, pmf: Callable[[Floats, int], Floats], starts: list[Floats]) -> Floats:
    """The best maximum of the Nelder-Mead method from ``starts``."""
    from scipy import optimize

    minimize: Any = optimize.minimize

    def cost(at: Floats) -> float:
        with np.errstate(all="ignore"):
            value = -_log_likelihood(counts, pmf(at, counts.size))
        return value / counts.sum() if np.isfinite(value) else 1e6

    options = {"xatol": 1e-6, "fatol": 1e-11, "maxiter": 600, "maxfev": 1200}
    found = [minimize(cost, start, method="Nelder-Mead", options=options) for start in starts]
    return np.asarray(min(found, key=lambda result: float(result.fun)).x, dtype=np.float64)


# -- one family after the other ---------------------------------------------------------------------------------------


def _geometric(counts: Counts) -> Floats:
    return np.array([1.0 / (1.0 + _mean(counts))])


def _inflated_pmf(at: Floats, size: int) -> Floats:
    pmf = (1 - at[0]) * geometric_pmf(at[1:], size)
    pmf[0] += at[0]
    return np.asarray(pmf)


def _inflated(counts: Counts) -> Floats:
    rows, stale = float(counts.sum()), float(counts[1:].sum())
    if not stale:
        return np.array([0.0, 1.0])
    p = stale / float(np.arange(counts.size) @ counts)  # the positive part is geometric on 1, 2, ...
    extra = (counts[0] / rows - p) / (1 - p) if p < 1 else 0.0
    return np.array([extra, p]) if extra > 0 else np.append(0.0, _geometric(counts))


def _poisson_pmf(at: Floats, size: int) -> Floats:
    from scipy.special import gammaln, xlogy

    values = np.arange(size)
    return np.asarray(np.exp(xlogy(values, max(float(at[0]), 1e-300)) - at[0] - gammaln(values + 1)))


def _negative_binomial_pmf(at: Floats, size: int) -> Floats:
    """Mean m and dispersion a: variance m + a m^2, so that a = 1 is the geometric law and a = 0 the Poisson."""
    from scipy.special import gammaln

    mean, dispersion = float(at[0]), float(at[1])
    if mean <= 0:
        return np.append(1.0, np.zeros(size - 1))
    if dispersion < 1e-7:
        return _poisson_pmf(at[:1], size)
    r, values = 1 / dispersion, np.arange(size)
    log = gammaln(values + r) - gammaln(r) - gammaln(values + 1)
    log += values * np.log(mean * dispersion / (1 + mean * dispersion)) - r * np.log1p(mean * dispersion)
    return np.asarray(np.exp(log))


def _negative_binomial(counts: Counts) -> Floats:
    mean, variance = _mean(counts), _variance(counts)
    if mean == 0:
        return np.array([0.0, 1.0])
    first = max((variance - mean) / mean**2, 1e-3)
    # at the maximum the mean is the sample's
    best = _climb(
        counts, lambda at, size: _negative_binomial_pmf(np.array([mean, np.exp(at[0])]), size), [np.log([first])]
    )
    return np.array([mean, float(np.exp(best[0]))])


def _conway_pmf(at: Floats, size: int) -> Floats:
    """Proportional to (m^l / l!)^nu: nu = 1 is the Poisson law, m is about the mode; in terms of log m, log nu."""
    from scipy.special import gammaln, logsumexp

    nu = float(np.exp(at[1]))
    values = np.arange(4 * size + 200)
    log = nu * (values * at[0] - gammaln(values + 1))
    return np.asarray(np.exp(log[:size] - logsumexp(log)))


def _conway(counts: Counts) -> Floats:
    mean, variance = _mean(counts), _variance(counts)
    nu = float(np.clip(mean / max(variance, 1e-3), 0.02, 1e3))
    mode = max(mean + (nu - 1) / (2 * nu), 0.1)
    starts = [np.log([mode, nu]), np.log([max(mean, 0.1), 1.0])]
    return _climb(counts, _conway_pmf, starts)


def _weibull_pmf(at: Floats, size: int) -> Floats:
    """P(staleness >= l) = exp(-(l / scale)^shape): shape 1 is the geometric law; in terms of log scale, log shape."""
    with np.errstate(over="ignore"):
        survival = np.exp(-((np.arange(size + 1) / np.exp(at[0])) ** np.exp(at[1])))
    return np.asarray(survival[:-1] - survival[1:])


def _weibull(counts: Counts) -> Floats:
    mean, sd = _mean(counts), _variance(counts) ** 0.5
    shape = float(np.clip((mean + 0.5) / max(sd, 1e-2), 0.2, 80.0))
    starts = [np.log([max(mean + 0.5, 0.3), shape]), np.log([max(mean + 0.5, 0.3), 1.0])]
    return _climb(counts, _weibull_pmf, starts)


def _mixture_pmf(at: Floats, size: int) -> Floats:
    return np.asarray(at[0] * geometric_pmf(at[1:2], size) + (1 - at[0]) * geometric_pmf(at[2:3], size))


def _mixture(counts: Counts) -> Floats:
    """Expectation-maximisation; the first of the two is the fresher one."""
    values, rows, mean = np.arange(counts.size), float(counts.sum()), _mean(counts)
    best, highest = np.array([0.5, 1 / (1 + mean), 1 / (1 + mean)]), -np.inf
    for ratio in (3.0, 20.0):
        at = np.array([0.7, 1 / (1 + mean / ratio), 1 / (1 + mean * ratio**0.5)])
        before = -np.inf
        for step in range(2000):
            one, two = at[0] * geometric_pmf(at[1:2], counts.size), (1 - at[0]) * geometric_pmf(at[2:3], counts.size)
            both = np.maximum(one + two, 1e-300)
            if step % 20 == 0:
                now = float(counts @ np.log(both))
                if now - before < 1e-6 * max(1.0, rows * 1e-4):
                    break
                before = now
            belongs = counts * (one / both)
            first = float(belongs.sum())
            total = float(values @ belongs)
            second, rest = rows - first, rows * mean - total
            if min(first, second) < 1e-9 * rows:
                break
            at = np.array([first / rows, first / (first + total), second / (second + rest)])
        level = _log_likelihood(counts, _mixture_pmf(at, counts.size))
        if level > highest:
            best, highest = at, level
    return best if best[1] >= best[2] else np.array([1 - best[0], best[2], best[1]])


def _uniform_pmf(at: Floats, size: int) -> Floats:
    values = np.arange(size)
    return np.asarray(((values >= at[0]) & (values <= at[1])) / (at[1] - at[0] + 1.0))


def _uniform(counts: Counts) -> Floats:
    seen = np.flatnonzero(counts)
    return np.array([float(seen[0]), float(seen[-1])])


def _constant_pmf(at: Floats, size: int) -> Floats:
    return np.asarray(np.arange(size) == at[0], dtype=np.float64)


def _constant(counts: Counts) -> Floats:
    return np.array([float(np.argmax(counts))])


_ALL = (
    Family("geometric", ("p",), geometric_pmf, _geometric),
    Family("zero-inflated geometric", ("extra", "p"), _inflated_pmf, _inflated),
    Family("negative binomial", ("mean", "dispersion"), _negative_binomial_pmf, _negative_binomial),
    Family("poisson", ("mean",), _poisson_pmf, lambda counts: np.array([_mean(counts)])),
    Family("conway-maxwell-poisson", ("log_mode", "log_nu"), _conway_pmf, _conway),
    Family("discrete weibull", ("log_scale", "log_shape"), _weibull_pmf, _weibull),
    Family("mixture of two geometrics", ("share", "p_fresh", "p_stale"), _mixture_pmf, _mixture),
    Family("uniform", ("low", "high"), _uniform_pmf, _uniform, smooth=False),
    Family("constant", ("value",), _constant_pmf, _constant, smooth=False),
)
FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}
