"""The long suite: the same claims at the sizes the acceptance asks for."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))

from test_exponential_workers import compare, compare_with_trace
from test_recommendation import compare_with_fine_grid
from test_stability import VARIANTS, check_safe, companion_radius, compare_with_lifted

from asyncq.staleness import StalenessLaw
from asyncq.theory import stability

pytestmark = pytest.mark.verification


class TestTenThousandRandomLawsGetNoUnsafeThreshold:
    @settings(max_examples=10_000, deadline=None, derandomize=True, database=None)
    @given(
        st.lists(st.floats(0, 1), min_size=1, max_size=14).filter(lambda cells: sum(cells) > 1e-3),
        st.floats(-0.99, 0.99),
        st.sampled_from(VARIANTS),
    )
    def test_companion_eigenvalues(self, cells, momentum, variant):
        check_safe(cells, momentum, variant)


class TestTwoHundredRandomLawsAgreeWithTheLiftedRecursion:
    def test_threshold_rate_floor(self):
        compare_with_lifted(seed=2, laws=200, longest=12)


class TestEveryConstantStalenessToSixty:
    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("momentum", [-0.9, -0.5, 0.1, 0.5, 0.9])
    def test_companion(self, variant, momentum):
        for tau in range(61):
            law = StalenessLaw.constant(tau)
            edge = stability.threshold(law, momentum=momentum, variant=variant, criterion="expectation")
            assert companion_radius(law.pmf, edge * (1 - 1e-8), momentum, variant) < 1.0
            assert companion_radius(law.pmf, edge * (1 + 1e-8), momentum, variant) > 1.0


class TestTheRecursionIsTheTrueProcess:
    @pytest.mark.parametrize("momentum", [-0.3, 0.0, 0.5])
    @pytest.mark.parametrize("rates", [2, 4, 8, 16, [3, 1, 1, 0.2]], ids=str)
    def test_forty_thousand_runs(self, rates, momentum):
        compare(rates, 1, momentum, runs=40_000, seed=21)


class TestTheRecursionIsTheSimulatedProcess:
    @pytest.mark.parametrize("momentum", [-0.3, 0.0, 0.5])
    @pytest.mark.parametrize("rates", [2, 4, 8, 16, [3, 1, 1, 0.2]], ids=str)
    def test_windows_of_a_trace(self, rates, momentum):
        compare_with_trace(rates, momentum, windows=40_000, seed=31)


class TestRecommendationsAreGlobalOptima:
    @pytest.mark.parametrize("condition", [5, 20, 100])
    def test_over_all_pool_sizes(self, condition):
        found = [compare_with_fine_grid(m, condition) for m in (1, 2, 4, 8, 16, 32)]
        momenta = np.array([item.best.momentum for item in found])
        assert np.all(np.diff(momenta) < 0)
        assert momenta[-1] < 0
