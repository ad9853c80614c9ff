"""The recommendation against Polyak's optimum, fine grids and its own promises."""

from __future__ import annotations

import json

import numpy as np
import pytest

from asyncq.staleness import StalenessLaw
from asyncq.theory.descent.exponential import exponential_workers
from asyncq.theory.recommendation.minimax import ExactDecay, LawDecay, polyak, worst
from asyncq.theory.recommendation.recommendation import recommend


def fine_grid_best(pool, condition, centre, *, momenta=61, cells=40):
    """The smallest -1/log(worst contraction) on a global and a local grid of (momentum, step): plain enumeration."""
    decay, best = ExactDecay(pool), np.inf
    for mu in np.concatenate([np.linspace(-0.97, 0.97, momenta), centre + np.linspace(-0.03, 0.03, 31)]):
        if abs(mu) >= 1:
            continue
        ratio = condition ** (1 / cells)
        steps = decay.threshold(float(mu)) * 0.9999 * ratio ** -np.arange(2.5 * cells)
        rates = decay.rates(steps, float(mu))
        low = np.lib.stride_tricks.sliding_window_view(rates, cells + 1).max(axis=1).min()
        best = min(best, -1 / np.log(low)) if low < 1 else best
    return best


def compare_with_fine_grid(workers, condition):
    found = recommend(exponential_workers(workers), condition_number=condition, sharpness=1.0)
    ours = -1 / np.log(found.best.contraction)
    assert ours <= 1.001 * fine_grid_best(exponential_workers(workers), condition, found.best.momentum)
    step = found.best.learning_rate
    assert worst(
        ExactDecay(exponential_workers(workers)), step, found.best.momentum, condition, modes=200
    ) == pytest.approx(found.best.contraction, rel=1e-3)
    return found


class TestGlobalOptimum:
    @pytest.mark.parametrize(("workers", "condition"), [(2, 20), (8, 5), (32, 100)])
    def test_no_point_of_a_fine_grid_is_better(self, workers, condition):
        compare_with_fine_grid(workers, condition)

    def test_one_worker_is_polyak(self):
        for condition in (5, 20, 100):
            found = recommend(exponential_workers(1), condition_number=condition, sharpness=2.0)
            root = (np.sqrt(condition) - 1) / (np.sqrt(condition) + 1)
            assert found.best.momentum == pytest.approx(root**2)
            assert found.best.learning_rate == pytest.approx(4 / (np.sqrt(2.0) + np.sqrt(2.0 / condition)) ** 2)
            assert found.best.contraction == pytest.approx(root**2)
            assert found.best.updates == pytest.approx(1.0)
            numeric = ExactDecay(exponential_workers(1)).best_step(root**2, condition)
            assert numeric[1] == pytest.approx(root**2, rel=5e-3)  # a square-root kink, found by search

    def test_momentum_falls_with_workers_and_turns_negative(self):
        found = [
            recommend(exponential_workers(m), condition_number=20, sharpness=1.0).best.momentum
            for m in (1, 2, 4, 8, 16)
        ]
        assert found == sorted(found, reverse=True)
        assert found[-1] < 0 < found[0]


class TestWhatItSays:
    def test_the_fields_keep_their_promises(self):
        found = recommend(exponential_workers(8), momentum=0.9, learning_rate=0.001, sharpness=1.0)
        assert found.exact
        assert "exact" in found.criterion
        assert found.today.condition_number == pytest.approx(((1 + 0.9**0.5) / (1 - 0.9**0.5)) ** 2)
        by_momentum = {row.momentum: row for row in found.ceiling}
        assert by_momentum[0.0].learning_rate == pytest.approx(exponential_workers(8).threshold(0.0))
        assert by_momentum[0.0].expectation == pytest.approx(30)
        assert all(row.learning_rate <= row.expectation * (1 + 1e-9) for row in found.ceiling)
        assert found.kept.learning_rate == 0.001
        assert found.kept.updates >= found.best.updates * 0.999
        assert found.nonnegative.updates >= found.best.updates * 0.999
        assert all(rule.cost >= 0.999 for rule in (*found.additive, *found.rules))
        assert any("almost-sure" in note for note in found.notes)
        assert any("Adam" in note and "Nesterov" in note for note in found.notes)
        json.dumps(found.to_dict())

    def test_dampening_only_rescales_the_learning_rate(self):
        plain = recommend(exponential_workers(4), condition_number=20, sharpness=1.0)
        damped = recommend(exponential_workers(4), condition_number=20, sharpness=1.0, dampened=True)
        assert damped.best.momentum == pytest.approx(plain.best.momentum)
        assert damped.best.learning_rate * (1 - damped.best.momentum) == pytest.approx(plain.best.learning_rate)

    def test_today_is_reconstructed(self):
        mu, step = polyak(20.0)
        found = recommend(exponential_workers(2), momentum=mu, learning_rate=step / 7.0)
        assert found.today.condition_number == pytest.approx(20.0)
        assert found.today.sharpness == pytest.approx(7.0)
        assert len(found.today.inferred) == 2

    def test_a_law_is_labelled_a_model_and_a_mixed_pool_keeps_a_reserve(self):
        law = StalenessLaw.geometric(workers=2, tail=1e-9)
        found = recommend(law, condition_number=5, sharpness=1.0, heterogeneous=True, momenta=(0.0,))
        assert not found.exact
        assert "model" in found.criterion
        assert found.reserve == 0.5
        assert found.best.margin >= 2 * (1 - 1e-9)
        assert any("replaying" in note for note in found.notes)

    def test_unequal_exponential_workers_are_exact(self):
        found = recommend(exponential_workers([3, 1]), condition_number=5, sharpness=1.0)
        assert found.exact
        assert found.best.contraction < 1
        assert found.best.margin > 1

    @pytest.mark.parametrize(
        ("kwargs", "words"),
        [
            ({"momentum": 0.0, "learning_rate": 0.1}, "condition_number"),
            ({"momentum": 0.9}, "learning_rate"),
            ({"condition_number": 0.5, "sharpness": 1.0}, "condition_number"),
            ({"momentum": 1.5, "learning_rate": 0.1}, "between -1 and 1"),
            ({"momentum": 0.5, "learning_rate": 9.0, "sharpness": 1.0}, "unstable on one worker"),
            ({"momentum": 0.9, "learning_rate": -1.0}, "learning_rate"),
            ({"momentum": 0.9, "learning_rate": 0.1, "reserve": 1.0}, "reserve"),
        ],
    )
    def test_refusals_name_what_to_add(self, kwargs, words):
        with pytest.raises(ValueError, match=words):
            recommend(exponential_workers(4), **kwargs)


def test_both_models_agree_where_both_are_exact():
    """One worker has no staleness: the law of one cell and the recursion describe the same thing."""
    by_law = LawDecay(StalenessLaw.constant(0)).best_step(0.3, 5.0)
    exact = ExactDecay(exponential_workers(1)).best_step(0.3, 5.0)
    assert by_law[1] == pytest.approx(exact[1], rel=1e-3)  # the valley is flat: the step need not agree


def test_the_law_model_finds_the_window_that_direct_search_finds():
    law = StalenessLaw.geometric(workers=3, tail=1e-9)
    decay = LawDecay(law)
    step, rho = decay.best_step(0.1, 10.0)
    assert worst(decay, step, 0.1, 10.0, modes=9) == pytest.approx(rho, rel=1e-3)
    for other in (0.9, 0.97, 1.03, 1.1):
        assert worst(decay, other * step, 0.1, 10.0, modes=3) > rho * (1 - 1e-5)


POOLS = [exponential_workers(8), exponential_workers([3, 1]), exponential_workers(1)]


class TestEndsOfTheRange:
    @pytest.mark.parametrize(
        ("problem", "key"),
        [
            ({"condition_number": 1.0000000000000002, "sharpness": 1.0}, "condition_number"),
            ({"condition_number": 1e13, "sharpness": 1.0}, "condition_number"),
            ({"momentum": 1e-320, "learning_rate": 0.1}, "momentum"),
            ({"momentum": 0.9999999999999999, "learning_rate": 0.1}, "momentum"),
            ({"momentum": 0.9, "learning_rate": 1e-308}, "learning_rate"),
            ({"momentum": 0.9, "learning_rate": 1e308}, "learning_rate"),
        ],
    )
    def test_what_no_number_can_hold_is_refused_in_one_line(self, problem, key):
        for pool in POOLS:
            with pytest.raises(ValueError, match=key):
                recommend(pool, momenta=(), **problem)

    def test_curvatures_that_are_nearly_alike_are_judged_as_alike(self):
        """The best contraction at one curvature, by enumeration of the eigenvalues."""
        pool = exponential_workers(8)
        found = recommend(pool, condition_number=1.0001, sharpness=1.0, momenta=())
        steps = np.geomspace(1e-3, 0.8, 400)
        best = min(pool.rates(steps, float(mu)).min() for mu in np.linspace(-0.9, 0.5, 141))
        assert found.best.contraction <= best * (1 + 1e-3)
        assert found.best.contraction >= best * (1 - 1e-2)
