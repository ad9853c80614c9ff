"""Claim: eight exponential workers have geometric staleness ([AbM] Theorem 5; docs/theory/renewal.md (R.2))."""

from __future__ import annotations

import numpy as np
import pytest
from cases import scenario

from asyncq import simulate

pytestmark = pytest.mark.verification
UPDATES, WORKERS, SEEDS = 500_000, 8, range(20)


@pytest.fixture(scope="module")
def runs():
    case = scenario(workers=WORKERS, optimizer={"momentum": 0.9})
    return [simulate(case, updates=UPDATES, seed=seed, trace=True) for seed in SEEDS]


class TestEightExponentialWorkers:
    def test_staleness_plus_one_sums_to_the_last_commits(self, runs):
        for run in runs:
            last = np.zeros(WORKERS, dtype=np.int64)
            np.maximum.at(last, run.trace.worker, np.arange(1, UPDATES + 1))
            assert int((run.trace.staleness + 1).sum()) == int(last.sum())

    def test_every_cell_is_geometric(self, runs):
        """20 runs of about 56 cells at 4.5 standard errors: false alarm 0.8 %."""
        for run in runs:
            rows = run.gradients["committed"]
            cells = np.arange(400)
            expected = rows * 0.125 * 0.875**cells
            alone = int((expected >= 50).sum())
            share = np.append(expected[:alone], rows - expected[:alone].sum()) / rows
            seen = np.zeros(400)
            seen[: run.staleness.pmf.size] = run.staleness.pmf * rows
            seen = np.append(seen[:alone], rows - seen[:alone].sum())
            assert np.all(np.abs(seen - rows * share) < 4.5 * np.sqrt(rows * share * (1 - share)))

    def test_the_verdict_is_accepted(self, runs):
        """Each run is rejected with probability 5 %; more than 4 of 20: false alarm 0.3 %."""
        assert sum(run.fit.verdict == "accepted" for run in runs) >= 16

    def test_the_momentum_line(self, runs):
        for run in runs:
            assert run.momentum.implicit == pytest.approx(0.875, abs=1e-4)
            assert run.momentum.explicit == pytest.approx(0.025, abs=1e-4)
