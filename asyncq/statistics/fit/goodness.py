"""Goodness of fit of a law: a p-value from cell counts, and the size of the misfit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asyncq.statistics.collect.accumulate import Collected
from asyncq.statistics.dependence import stride
from asyncq.statistics.intervals import FEWEST_BATCHES

__all__ = ["LEVEL", "PRACTICAL", "GoodnessOfFit", "StalenessFit", "fit_geometric", "misfit", "pearson", "verdict_of"]

LEVEL = 0.05
PRACTICAL = 0.01  # total variation below which a rejected law is as good as right
REPLICATES = 399
CELLS = 20  # equally likely, and more in the tail
FEWEST_EXPECTED = 5.0
FEWEST_ROWS = 100

Floats = NDArray[np.float64]
Pmf = Callable[[Floats, int], Floats]  # the probabilities of 0 .. size - 1 under given parameters


@dataclass(frozen=True)
class GoodnessOfFit:
    """Pearson's statistic on thinned rows with its p-value, and the size of the misfit on all rows.

    ``statistic`` and ``p_value`` are None when there are too few rows to test anything; ``statistic`` alone is None
    for a law under which the data are impossible. The distances (0 to 1, 95 % intervals) are measured on one half of
    the run where the other half shows the largest difference, so that chance alone makes no distance.
    """

    statistic: float | None
    p_value: float | None
    total_variation: float
    cells: int
    rows: int
    stride: int
    total_variation_ci95: tuple[float, float] | None = None
    kolmogorov: float = 0.0
    kolmogorov_ci95: tuple[float, float] | None = None


@dataclass(frozen=True)
class StalenessFit:
    """The geometric law with the likelihood's maximum, and whether the data are compatible with it.

    ``p`` = 1/(1 + mean): the conservation law fixes it, so it carries no evidence; only ``gof`` does
    (docs/theory/conservation.md (2.11)). ``verdict`` is "accepted", "practically geometric" (rejected, but for a
    negligible total variation), "rejected", or "untested" when the run is too short to tell.
    """

    family: str
    p: float
    gof: GoodnessOfFit
    verdict: str

    @property
    def is_geometric(self) -> bool:
        """Whether the geometric law may be relied on."""
        return self.verdict in ("accepted", "practically geometric")


def fit_geometric(collected: Collected, *, practical: float = PRACTICAL) -> StalenessFit:
    """Fit the geometric law on {0, 1, ...} and judge it at the 5 % level on thinned rows."""
    counts = collected.histogram
    mean = float(np.arange(counts.size) @ counts) / max(1, int(counts.sum()))
    p = 1.0 / (1.0 + mean)
    gof = goodness(collected, geometric_pmf, np.array([p]))
    return StalenessFit("geometric", p, gof, verdict_of(gof, "geometric", practical=practical))


def verdict_of(gof: GoodnessOfFit, family: str, *, practical: float = PRACTICAL) -> str:
    """The verdict by the test and the size of the misfit."""
    if gof.p_value is None:
        return "untested"
    if gof.p_value >= LEVEL:
        return "accepted"
    return f"practically {family}" if gof.total_variation < practical else "rejected"


def geometric_pmf(parameters: Floats, size: int) -> Floats:
    """P(staleness = 0, 1, ...) = p (1 - p)^l."""
    p = float(np.clip(parameters[0], 1e-12, 1.0))
    if p == 1.0:
        return np.append(1.0, np.zeros(size - 1))
    return np.asarray(p * np.exp(np.arange(size) * np.log1p(-p)))


def goodness(collected: Collected, pmf: Pmf, parameters: Floats, *, j: int | None = None) -> GoodnessOfFit:
    """Test and effect size of a law with estimated ``parameters`` on every 2^j-th row."""
    j = stride(collected) if j is None else j
    sample = collected.thinned(j)
    statistic, p_value, cells = pearson(sample, pmf, parameters)
    variation, variation_ci95, kolmogorov, kolmogorov_ci95 = misfit(collected, pmf, parameters)
    return GoodnessOfFit(
        statistic=statistic,
        p_value=p_value,
        total_variation=variation,
        cells=cells,
        rows=int(sample.sum()),
        stride=1 << j,
        total_variation_ci95=variation_ci95,
        kolmogorov=kolmogorov,
        kolmogorov_ci95=kolmogorov_ci95,
    )


def pearson(
    counts: NDArray[np.int64], pmf: Pmf, parameters: Floats, *, replicates: int = REPLICATES
) -> tuple[float | None, float | None, int]:
    """Pearson's statistic for a law whose parameters are fitted to the cells, its p-value, and the number of cells.

    Cells are about equally likely under the law. The p-value is that of a multinomial bootstrap of the cell counts, in
    which refitting is the projection that it is to first order; beyond the largest replicate it is chi-square's.
    """
    from scipy.special import chdtrc

    rows = int(counts.sum())
    model = pmf(parameters, max(counts.size, 2))
    if np.any(counts[model[: counts.size] <= 0]):
        return None, 0.0, 1
    if rows and counts[0] == rows and model[0] > 1 - 1e-9:  # always fresh, as the law says
        return 0.0, 1.0, 1
    if rows < FEWEST_ROWS:
        return None, None, 1
    reach = max(counts.size, 2)
    while rows * (1 - model.sum()) > 0.5 * FEWEST_EXPECTED and reach < 1 << 20:  # the law reaches beyond the data
        reach *= 2
        model = pmf(parameters, reach)
    starts = _cells(model, rows)
    if starts.size < 2:  # the law leaves one cell only: nothing contradicts it but other values
        same = counts[np.argmax(model)] == rows if counts.size > np.argmax(model) else False
        return (0.0, 1.0, 1) if same else (None, None, 1)
    seen: Floats = np.add.reduceat(np.append(counts, np.zeros(reach - counts.size)), starts).astype(np.float64)

    def shares(at: Floats) -> Floats:
        cells = np.add.reduceat(pmf(at, reach), starts)
        cells[-1] += 1 - cells.sum()
        return np.maximum(cells, 1e-300)

    def gap(share: Floats) -> Floats:
        return np.asarray((seen - rows * share) / np.sqrt(rows * share))

    at, share = parameters.astype(np.float64), shares(parameters)
    value = gap(share)
    for _ in range(8 if at.size else 0):  # scoring steps towards the parameters that fit the cells best
        slopes = _slopes(shares, at) / np.sqrt(share)
        step = np.linalg.lstsq(slopes.T, value / rows**0.5, rcond=1e-10)[0]
        for halved in (1.0, 0.5, 0.1):
            try:
                there = shares(at + halved * step)
            except (ValueError, FloatingPointError):
                continue
            if np.all(np.isfinite(there)) and (better := gap(there)) @ better < value @ value:
                gain = float(value @ value - better @ better)
                at, share, value = at + halved * step, there, better
                break
        else:
            break
        if gain < 1e-4:
            break
    statistic = float(value @ value)
    slopes = _slopes(shares, at) / np.sqrt(share)
    left, singular, _ = np.linalg.svd(slopes.T, full_matrices=False)
    basis = left[:, singular > 1e-8 * max(1.0, float(singular.max(initial=0.0)))]
    freedom = starts.size - 1 - basis.shape[1]
    if freedom < 1:
        return None, None, starts.size
    rng = np.random.default_rng([int(count) for count in seen])
    cells = rng.multinomial(rows, share / share.sum(), size=replicates)
    drawn = (cells - rows * share) / np.sqrt(rows * share)
    drawn -= drawn @ basis @ basis.T
    larger = int((np.einsum("ij,ij->i", drawn, drawn) >= statistic).sum())
    p_value = (1 + larger) / (1 + replicates)
    if not larger:
        p_value = min(p_value, float(chdtrc(freedom, statistic)))
    return statistic, p_value, starts.size


def _cells(model: Floats, rows: int) -> NDArray[np.int64]:
    """The first values of cells that are about equally likely, smaller towards the upper tail."""
    reached = np.cumsum(model)
    wanted = np.arange(1, CELLS) / CELLS
    rest = 1 / CELLS
    while rows * (rest := rest / 2) >= 2 * FEWEST_EXPECTED:
        wanted = np.append(wanted, 1 - rest)
    ends = np.unique(np.searchsorted(reached, wanted * min(1.0, reached[-1] + 1e-12) - 1e-12)) + 1
    starts = [0]
    for end in ends.tolist():  # each cell is expected often enough, and so is what is left
        before = reached[starts[-1] - 1] if starts[-1] else 0.0
        enough = rows * (reached[end - 1] - before) >= FEWEST_EXPECTED
        if end < model.size and enough and rows * (1 - reached[end - 1]) >= FEWEST_EXPECTED:
            starts.append(end)
    return np.array(starts)


def _slopes(shares: Callable[[Floats], Floats], at: Floats) -> Floats:
    """Derivatives of the cells' shares by each parameter, shape (parameters, cells)."""
    found = []
    for i in range(at.size):
        step = np.zeros(at.size)
        step[i] = 1e-5 * max(abs(at[i]), 1e-3)
        found.append((shares(at + step) - shares(at - step)) / (2 * step[i]))
    return np.array(found) if found else np.zeros((0, shares(at).size))


Interval = tuple[float, float] | None


def misfit(collected: Collected, pmf: Pmf, parameters: Floats) -> tuple[float, Interval, float, Interval]:
    """Total variation and Kolmogorov distance between the rows and a law, each with its 95 % interval.

    Where the law is below the data, and at which value the distribution functions are farthest apart, is found on the
    even parts of the run and measured on the odd ones, and the other way round: the mean of the two is free of the
    distance that chance alone makes. Of a run too short for that, the plain distances, without intervals."""
    counts = collected.histogram
    model = pmf(parameters, counts.size)
    parts = collected.parts
    if len(parts) < FEWEST_BATCHES:
        gap = counts / max(1, counts.sum()) - model
        plain = 0.5 * float(np.abs(gap).sum() + max(0.0, 1 - model.sum()))
        return plain, None, float(np.abs(np.cumsum(gap)).max()), None
    width = min(parts.shape[1], counts.size)
    # the last column is whatever is larger
    shares = np.zeros((len(parts), width + 1))
    shares[:, :width] = parts[:, :width] / collected.part_rows
    shares[:, width] = np.maximum(0.0, 1 - shares[:, :width].sum(axis=1))
    law = np.append(model[:width], max(0.0, 1 - float(model[:width].sum())))
    found: list[list[float]] = []
    for chosen, measured in ((shares[0::2], shares[1::2]), (shares[1::2], shares[0::2])):
        gap = chosen.mean(axis=0) - law
        above = gap > 0
        steps = np.cumsum(gap)
        at = int(np.argmax(np.abs(steps)))
        sign = 1.0 if steps[at] >= 0 else -1.0
        variation = np.einsum("ij,j->i", measured, above.astype(float)) - law[above].sum()
        kolmogorov = sign * (measured[:, : at + 1].sum(axis=1) - law[: at + 1].sum())
        n = len(measured)
        found.append([
            float(variation.mean()), float(variation.var(ddof=1)) / n,
            float(kolmogorov.mean()), float(kolmogorov.var(ddof=1)) / n,
        ])  # fmt: skip
    (v, v_error, k, k_error), (w, w_error, h, h_error) = found
    return (*_distance(v, w, v_error + w_error), *_distance(k, h, k_error + h_error))


def _distance(one: float, other: float, variances: float) -> tuple[float, tuple[float, float]]:
    value, half = 0.5 * (one + other), 0.5 * 1.96 * variances**0.5
    return max(0.0, value), (max(0.0, value - half), max(0.0, value) + half)
