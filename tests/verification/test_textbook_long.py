"""Claim: every protocol is its textbook SimPy program, on long runs and larger pools (see ``test_textbook.py``).

Chance: 1e-6 for each figure, as in the quick version; about 1500 figures: false alarm below 2e-3.
"""

from __future__ import annotations

import pytest
import textbook
from test_textbook import CASES, LAWS, Case, differing, group_pairs, pairs_of

pytestmark = pytest.mark.verification
GRADIENTS = 100_000
TWELVE = {"means": (0.5,) * 4 + (1.0,) * 6 + (3.0,) * 2}
LARGE = [
    Case("asynchronous", textbook.Asynchronous, **TWELVE, service=0.1, seats=2),
    Case("bounded", textbook.Asynchronous, {"maximum_staleness": 15}, {"policy": "reject"}, **TWELVE, service=0.02),
    Case("round-robin", textbook.RoundRobin, **TWELVE),
    Case("stale-synchronous", textbook.StaleSynchronous, {"bound": 0}, **TWELVE),
    Case("stale-synchronous", textbook.StaleSynchronous, {"bound": 4}, **TWELVE, service=0.05),
    Case("k-async", textbook.KAsynchronous, {"k": 7}, **TWELVE, service=0.2, seats=3),
    Case("k-batch-async", textbook.BatchAsynchronous, {"k": 5}, **TWELVE, service=0.05),
    Case("k-sync", textbook.KSynchronous, {"k": 8}, **TWELVE, service=0.1, seats=2),
    Case("k-batch-sync", textbook.BatchSynchronous, {"k": 20}, **TWELVE, service=0.04),
]


class TestEveryProtocolIsItsTextbookProgram:
    @pytest.mark.parametrize("law", LAWS)
    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_on_few_workers(self, case, law):
        assert differing(pairs_of(case, law, gradients=GRADIENTS, seed=21)) == {}

    @pytest.mark.parametrize("law", LAWS)
    @pytest.mark.parametrize("case", LARGE, ids=str)
    def test_on_twelve_workers_of_three_speeds(self, case, law):
        assert differing(pairs_of(case, law, gradients=GRADIENTS // 2, seed=22)) == {}

    @pytest.mark.parametrize("batch", ["split", "replicated"])
    @pytest.mark.parametrize("law", LAWS)
    def test_in_groups(self, law, batch):
        assert differing(group_pairs(law, batch, gradients=GRADIENTS, seed=23)) == {}
