"""Claims of docs/protocols/actor-learner.md on what a staleness budget buys, on a seed that nobody has looked at.

Chance: throughputs are 7 half-widths of a 95 % interval apart and more; means are held to 0.02, ten standard errors.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncq import Run, Scenario, simulate
from asyncq.theory.queueing.throughput import throughput

pytestmark = pytest.mark.verification
SCENARIO = Path(__file__).parents[2] / "scenarios" / "actor-learner.toml"
BUDGETS = (0, 1, 2, 4, 8)


def runs(discard: bool) -> dict[int, Run]:
    tables = Scenario.from_toml(SCENARIO).to_dict()
    if not discard:
        del tables["protocol"]["discard_older_than"]
    scenarios = {
        budget: Scenario.from_dict(tables, overrides=[f"protocol.staleness_budget={budget}"]) for budget in BUDGETS
    }
    return {budget: simulate(case, updates=20_000, seed=77, engine="compiled") for budget, case in scenarios.items()}


@pytest.fixture(scope="module")
def keeping() -> dict[int, Run]:
    return runs(discard=False)


@pytest.fixture(scope="module")
def dropping() -> dict[int, Run]:
    return runs(discard=True)


class TestABudgetBuysThroughputUntilNobodyWaits:
    def test_on_policy_it_is_the_barrier_of_theory(self, keeping: dict[int, Run]) -> None:
        exact = throughput(keeping[0].scenario).mean
        assert keeping[0].throughput.mean == pytest.approx(exact, rel=0.02)
        assert keeping[0].learner.blocked == pytest.approx(0.89, abs=0.01)

    def test_one_is_worth_five_times_and_two_eight_times(self, keeping: dict[int, Run]) -> None:
        rates = {budget: run.throughput.mean / keeping[0].throughput.mean for budget, run in keeping.items()}
        assert rates[1] == pytest.approx(5.3, abs=0.3)
        assert rates[2] == pytest.approx(8.1, abs=0.4)

    def test_from_four_on_generators_never_wait(self, keeping: dict[int, Run]) -> None:
        for budget in (4, 8):
            assert keeping[budget].throughput.mean == pytest.approx(32 / 60 / 16, rel=0.01)
            assert keeping[budget].learner.blocked < 0.005


class TestTheBudgetBoundsTheMeanAndNotTheSample:
    def test_up_to_two_the_mean_is_the_budget(self, keeping: dict[int, Run]) -> None:
        for budget in (0, 1, 2):
            assert keeping[budget].staleness.mean == pytest.approx(budget, abs=0.02)

    def test_the_stalest_samples_are_far_above_it(self, keeping: dict[int, Run]) -> None:
        for budget in BUDGETS[1:]:
            assert keeping[budget].staleness.quantiles["99%"] > budget
            assert keeping[budget].staleness.maximum > 25


class TestDroppingCutsTheTailAndCostsGeneratorsTime:
    def test_nothing_older_is_learnt_from(self, dropping: dict[int, Run]) -> None:
        assert max(run.staleness.maximum for run in dropping.values()) <= 8

    def test_what_is_dropped_are_the_long_ones(self, dropping: dict[int, Run]) -> None:
        learner = dropping[2].learner
        assert learner.wasted_samples == pytest.approx(0.02, abs=0.002)
        assert learner.wasted_time == pytest.approx(1 / 8, abs=0.02)
