"""[AbM] I. Mitliagkas, C. Zhang, S. Hadjis, C. Re. Asynchrony begets Momentum. Allerton 2016."""

from __future__ import annotations

import numpy as np

from asyncq.papers.claim import Comparison, Findings, Panel, PaperClaim, Progress, line
from asyncq.scenario import Scenario
from asyncq.staleness import StalenessLaw
from asyncq.theory.momentum import expected_update

__all__ = ["CLAIMS"]

PAPER = "[AbM]"
TARGET = 0.8
REPLICATIONS, UPDATES = 16, 10_000
FIVE_ERRORS = 5 / 2.1314  # half-widths of a 95 % interval (Student's t, 15 degrees of freedom)


def exponential_pool(workers: int) -> Scenario:
    """Assumption 4 of the paper: independent exponential work, equal workers, no server."""
    pool = {"name": "pool", "workers": workers, "work_time": {"law": "exponential", "mean": 0.1}}
    return Scenario.from_dict({"schema": 1, "pool": [pool]}, name=f"{workers} exponential workers")


def figure_2(seed: int, progress: Progress) -> Findings:
    """Figure 2: the leading momentum of simulated staleness, c_1 = q_1/q_0, against 1 - 1/M."""
    from asyncq.results.replications import replicate
    from asyncq.statistics.intervals import mean_of_independent

    workers = np.array([2, 3, 4, 5, 6, 8, 12, 16])
    seen = []
    for number, m in enumerate(workers.tolist()):
        runs = replicate(
            exponential_pool(m), replications=REPLICATIONS, engine="simpy", seed=seed + 1000 * number, updates=UPDATES
        ).runs
        ratios = [float(run.staleness.pmf[1] / run.staleness.pmf[0]) for run in runs]
        seen.append(mean_of_independent(ratios, unit="momentum"))
        progress((number + 1) / workers.size)
    means = np.array([estimate.mean for estimate in seen])
    bounds = np.array([estimate.ci95 for estimate in seen]).T
    law = np.array([expected_update(StalenessLaw.geometric(workers=int(m))).implicit for m in range(1, 17)])
    useful = [m for m in range(1, 100) if expected_update(StalenessLaw.geometric(workers=m)).implicit <= TARGET + 1e-12]
    comparisons = [
        Comparison(
            "workers beyond which the implicit momentum exceeds 0.8",
            5,
            max(useful),
            0,
            "",
        )
    ]
    for m, estimate in zip(workers.tolist(), seen, strict=True):
        if m in (2, 5, 16) and estimate.ci95 is not None:
            half = 0.5 * (estimate.ci95[1] - estimate.ci95[0])
            comparisons.append(
                Comparison(
                    f"implicit momentum of {m} workers, simulated",
                    1 - 1 / m,
                    estimate.mean,
                    half * FIVE_ERRORS,
                    f"five standard errors over {REPLICATIONS} replications: false alarm 0.02 %",
                    interval=estimate.ci95,
                )
            )
    axis = np.arange(1, 17)
    left = np.maximum(TARGET - law, 0.0)
    panel = Panel(
        "Total momentum with an optimum of 0.8",
        "workers (compute groups)",
        "momentum",
        (
            line("explicit, to be set: 0.8 - implicit", axis, left, look="area", group=2),
            line("implicit, 1 - 1/M by the exact law", axis, law, "theory", group=0),
            line("implicit, simulated (95 %)", workers, means, look="points", low=bounds[0], high=bounds[1], group=0),
        ),
        across=((TARGET, "optimum of one worker, 0.8"),),
        upright=((5.0, "the paper's limit: 5"),),
        ylim=(0, 1),
        xlim=(1, 16),
    )
    return Findings(
        tuple(comparisons),
        (panel,),
        ("With more than 5 workers the rule asks for a negative explicit momentum; see mitliagkas-negative.",),
    )


CLAIMS = (
    PaperClaim(
        "mitliagkas-fig2",
        PAPER,
        "Figure 2",
        "Asynchrony gives a momentum of 1 - 1/M; with an optimum of 0.8 it is too much beyond 5 workers.",
        "Exponential workers simulated, the momentum read off the first two cells of their staleness.",
        figure_2,
    ),
)
