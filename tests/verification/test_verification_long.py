"""Claims: asyncq verify passes whatever the seed, and none of its claims passes with an oracle that is slightly off.

False alarm of the first: 0.1 % a seed. The second is deterministic for its seed; the laws are off by 1 % of the
gradients and the throughputs by 1 %, which is 10 standard errors and more.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from asyncq.verification import CLAIMS, Effort, Finding, verify

pytestmark = pytest.mark.verification


class TestTheQuickRunPassesWhateverTheSeed:
    @pytest.mark.parametrize("seed", [11, 12, 13])
    def test_every_claim_holds(self, seed):
        findings = list(verify(quick=True, seed=seed))
        assert [finding.claim.name for finding in findings if not finding.holds] == []


class TestNoClaimPassesWithAWrongOracle:
    @pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
    def test_it_fails(self, claim):
        wrong = replace(claim, oracle=claim.wrong)
        assert not Finding(wrong, wrong.measure(wrong.oracle, Effort(True, 1)), 1e-5).holds
