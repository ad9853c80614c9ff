"""Families of laws fitted to the staleness by maximum likelihood and ranked, each with its verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asyncq.errors import TooShortError
from asyncq.estimate import Estimate
from asyncq.statistics.collect.accumulate import Collected
from asyncq.statistics.dependence import stride
from asyncq.statistics.fit.families import FAMILIES, Family
from asyncq.statistics.fit.goodness import PRACTICAL, GoodnessOfFit, goodness, verdict_of
from asyncq.statistics.intervals import FEWEST_BATCHES

__all__ = ["Fitted", "dispersion", "rank"]

FEWEST_ROWS = 100
MOST_ROWS = 20_000  # for statsmodels

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A family at the likelihood's maximum. ``standard_errors`` take the dependence of rows into account (None where
    the likelihood is not smooth or the run too short). ``aic`` and ``bic`` are infinite where data are impossible."""

    family: str
    parameters: dict[str, float]
    standard_errors: dict[str, float] | None
    log_likelihood: float
    aic: float
    bic: float
    gof: GoodnessOfFit
    verdict: str

    def pmf(self, size: int) -> Floats:
        """P(0) .. P(size - 1)."""
        return FAMILIES[self.family].pmf(np.array(list(self.parameters.values())), size)


def rank(
    collected: Collected, *, families: Iterable[str] | None = None, practical: float = PRACTICAL
) -> tuple[Fitted, ...]:
    """Fit ``families`` (all of :data:`FAMILIES` unless given) to the staleness of a run, the best first, by BIC.

    The likelihood is that of independent rows: for dependent rows it still ranks laws by their distance from the pooled
    histogram, but differences of a few units mean nothing."""
    counts = collected.histogram
    if collected.rows < FEWEST_ROWS:
        raise TooShortError(f"{collected.rows} rows are too few to rank laws; simulate at least {FEWEST_ROWS}")
    j = stride(collected)
    names = list(FAMILIES if families is None else families)
    return tuple(sorted((_fit(FAMILIES[name], collected, counts, j, practical) for name in names), key=_place))


def _place(fitted: Fitted) -> tuple[float, int]:
    return fitted.bic, len(fitted.parameters)


def _fit(family: Family, collected: Collected, counts: NDArray[np.int64], j: int, practical: float) -> Fitted:
    at = family.estimate(counts)
    with np.errstate(all="ignore"):
        model = family.pmf(at, counts.size)
        seen = counts > 0
        level = float(counts[seen] @ np.log(model[seen]))
    if np.isnan(level):
        level = -np.inf
    errors = _standard_errors(family, at, collected, counts) if family.smooth and np.isfinite(level) else None
    if family.smooth:
        gof = goodness(collected, family.pmf, at, j=j)
    else:  # nothing to refit: the parameters are whole numbers
        gof = goodness(collected, lambda _, size: family.pmf(at, size), np.zeros(0), j=j)
    penalty = len(family.parameters)
    return Fitted(
        family=family.name,
        parameters=dict(zip(family.parameters, at.tolist(), strict=True)),
        standard_errors=None if errors is None else dict(zip(family.parameters, errors.tolist(), strict=True)),
        log_likelihood=level,
        aic=2 * penalty - 2 * level,
        bic=penalty * float(np.log(counts.sum())) - 2 * level,
        gof=gof,
        verdict=verdict_of(gof, family.name, practical=practical),
    )


def _standard_errors(family: Family, at: Floats, collected: Collected, counts: NDArray[np.int64]) -> Floats | None:
    """Sandwich estimate: the information, and the variance of the score over consecutive parts of the run."""
    parts = collected.parts
    if len(parts) < FEWEST_BATCHES:
        return None
    size = counts.size
    slopes = []
    with np.errstate(all="ignore"):
        for i in range(at.size):
            step = np.zeros(at.size)
            step[i] = 1e-5 * max(abs(at[i]), 1e-2)
            slopes.append((np.log(family.pmf(at + step, size)) - np.log(family.pmf(at - step, size))) / (2 * step[i]))
    score = np.where(counts > 0, np.array(slopes), 0.0)
    if not np.all(np.isfinite(score)):
        return None
    rows = float(counts.sum())
    information = (score * counts) @ score.T / rows
    width = min(size, parts.shape[1])
    sums = parts[:, :width] @ score[:, :width].T / collected.part_rows
    outside = np.atleast_2d(np.cov(sums.T)) * collected.part_rows
    try:
        inside = np.linalg.inv(information)
    except np.linalg.LinAlgError:
        return None
    variances = np.diag(inside @ outside @ inside) / rows
    return np.asarray(np.sqrt(variances)) if np.all(variances >= 0) and np.all(np.isfinite(variances)) else None


def dispersion(collected: Collected) -> Estimate:
    """The dispersion of a negative binomial law, with its 95 % interval: 1 is the geometric law, 0 the Poisson.

    statsmodels' intercept-only fit, on thinned rows, at most 20,000 of them. Raises ``TooShortError`` for fewer than
    100; the interval is on the scale of the dispersion and None where the fit has none."""
    import warnings

    j = stride(collected)
    while int(collected.thinned(j).sum()) > MOST_ROWS:
        j += 1
    counts = collected.thinned(j)
    rows = int(counts.sum())
    if rows < FEWEST_ROWS:
        raise TooShortError(f"{rows} thinned rows are too few for a dispersion; simulate {FEWEST_ROWS << j} updates")
    values = np.repeat(np.arange(counts.size), counts)
    if values.max() == values.min():
        return Estimate(0.0, None, "squared share of the mean")
    from statsmodels.discrete.discrete_model import NegativeBinomial

    mean = values.mean()
    start = np.array([np.log(mean), max((values.var() - mean) / mean**2, 0.01)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = NegativeBinomial(values, np.ones((rows, 1))).fit(start_params=start, disp=0, maxiter=200)
    alpha = float(fit.params[-1])
    low, high = (float(end) for end in np.asarray(fit.conf_int())[-1])
    return Estimate(alpha, (low, high) if np.isfinite(low + high) else None, "squared share of the mean")
