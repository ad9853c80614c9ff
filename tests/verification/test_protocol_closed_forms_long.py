"""Claim: long runs of larger pools keep to the closed forms of docs/theory/conservation.md, renewal.md and
closed_network.md.

Chance: 1e-6 for each figure (``test_protocol_closed_forms.py``), about 300 figures: false alarm below 1e-3.
"""

from __future__ import annotations

import numpy as np
import pytest
import test_protocol_closed_forms as quick
from cases import LAWS, scenario
from test_protocol_closed_forms import close, committed, fresh_share, harmonic, order_statistic, ratio, served_law
from textbook import from_interval

from asyncq import simulate

pytestmark = pytest.mark.verification
GRADIENTS, WORKERS = 500_000, 16


def run_of(law="exponential", *, per_update=1, **tables):
    return simulate(scenario(LAWS[law], workers=WORKERS, **tables), updates=GRADIENTS // per_update, seed=7, trace=True)


class TestStalenessOfSixteenExponentialWorkers:
    @pytest.mark.parametrize("k", [2, 5, 12])
    def test_is_geometric_under_k_async(self, k):
        q = k / WORKERS
        quick.assert_law(run_of(protocol={"kind": "k-async", "k": k}, per_update=k), q * (1 - q) ** np.arange(300))

    @pytest.mark.parametrize("k", [2, 5, 40])
    def test_is_a_geometric_tail_behind_a_fresh_start_under_k_batch_async(self, k):
        u, j = 1 - 1 / WORKERS, np.arange(1, 400)
        rest = u ** ((j - 1) * k + 1) * (1 - u**k) ** 2 / (k * (1 - u))
        pmf = np.append(1 - u * (1 - u**k) / (k * (1 - u)), rest)
        quick.assert_law(run_of(protocol={"kind": "k-batch-async", "k": k}, per_update=k), pmf)

    @pytest.mark.parametrize(("seats", "mean"), [(1, 0.05), (1, 0.1), (2, 0.1), (4, 0.4)])
    def test_behind_a_server_is_that_of_the_closed_network(self, seats, mean):
        server = {"service_time": {"law": "exponential", "mean": mean}, "seats": seats}
        quick.assert_law(run_of(server=server), served_law(WORKERS, 1 / mean, seats))


class TestSixteenWorkersOfAnyLaw:
    @pytest.mark.parametrize("law", quick.CONTINUOUS)
    @pytest.mark.parametrize("k", [3, 10])
    def test_keep_the_mean_staleness(self, law, k):
        assert close(ratio(committed(run_of(law, protocol={"kind": "k-async", "k": k}, per_update=k))), WORKERS / k - 1)
        batches = run_of(law, protocol={"kind": "k-batch-async", "k": k}, per_update=k)
        assert close(ratio(committed(batches)), (WORKERS - 1) / k)

    @pytest.mark.parametrize("law", quick.WORK)
    def test_keep_the_pace_of_the_slowest_of_the_first_k(self, law):
        for k in (4, 12, 16):
            run = run_of(law, protocol={"kind": "k-sync", "k": k}, per_update=k)
            assert close(from_interval(run.throughput), 1 / order_statistic(quick.WORK[law], k, WORKERS))

    @pytest.mark.parametrize("law", quick.WORK)
    def test_are_as_often_fresh_as_renewals_allow(self, law):
        assert close(ratio(committed(run_of(law)) == 0), fresh_share(quick.WORK[law], WORKERS))


class TestWaitingAndWaste:
    @pytest.mark.parametrize("k", [4, 12, 16])
    def test_of_exponential_k_sync(self, k):
        """The run is 30,000 rounds or more: relative standard errors of about 0.5 %, held to 3 %."""
        spent = run_of(protocol={"kind": "k-sync", "k": k}, per_update=k).machine_time
        exact = 1 - k / (WORKERS * harmonic(WORKERS - k + 1, WORKERS))
        assert spent.blocked / sum(spent) == pytest.approx(exact, rel=0.03)
        assert spent.cancelled / sum(spent) == pytest.approx(1 - k / WORKERS, rel=1e-9)
