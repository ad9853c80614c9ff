"""The ceiling that every report names: that of the exact process or of the law, for the problem that today's setting
fits."""

from __future__ import annotations

import json
import math

import pytest
from cases import scenario

from asyncq import exponential_workers, predict, simulate
from asyncq.staleness import StalenessLaw
from asyncq.text import run as report
from asyncq.theory.descent.coupled import threshold as coupled_threshold
from asyncq.theory.recommendation.learning_rate_limit import first_look
from asyncq.theory.recommendation.worlds import plausible_worlds
from asyncq.theory.stability import threshold

TODAY = {"momentum": 0.9, "learning_rate": 0.1}


def test_the_exact_process_is_taken_where_there_is_one():
    look = predict(scenario(optimizer=TODAY)).learning_rate_limit
    sharpness = (1 + math.sqrt(0.9)) ** 2 / 0.1
    assert look.exact
    assert look.sharpness == pytest.approx(sharpness)
    assert look.ceiling == pytest.approx(exponential_workers(8).threshold(0.9) / sharpness)
    assert look.ceiling_at_zero == pytest.approx(exponential_workers(8).threshold(0.0) / sharpness)
    assert look.explicit == pytest.approx(0.025)
    assert look.ceiling_at_explicit == pytest.approx(exponential_workers(8).threshold(look.explicit) / sharpness)
    assert not look.is_stable
    run = simulate(scenario(optimizer=TODAY), updates=3000, seed=1)
    assert run.learning_rate_limit.ceiling == look.ceiling
    assert json.loads(json.dumps(run.to_dict()))["recommendation"]["ceiling"] == look.ceiling


def test_a_learning_rate_at_the_end_of_its_range_has_no_ceiling():
    """Its curvature would be out of range."""
    assert predict(scenario(optimizer={"momentum": 0.9, "learning_rate": 1e-12})).learning_rate_limit is None


def test_one_worker_is_stable_as_it_is():
    look = predict(scenario(workers=1, optimizer=TODAY)).learning_rate_limit
    assert look.is_stable
    assert look.ceiling == pytest.approx(2 * 1.9 / look.sharpness)


def test_a_law_otherwise():
    case = scenario({"law": "gamma", "mean": 1.0, "cv": 0.5}, workers=3, optimizer=TODAY)
    run = simulate(case, updates=3000, seed=1)
    assert not run.learning_rate_limit.exact
    edge = threshold(run.staleness.law, momentum=0.9)
    assert run.learning_rate_limit.ceiling == pytest.approx(edge / run.learning_rate_limit.sharpness)
    assert first_look(scenario(1.0, optimizer=TODAY), StalenessLaw.constant(7)).exact


def test_where_nothing_can_be_said():
    assert predict(scenario()).learning_rate_limit is None
    assert predict(scenario(optimizer={"momentum": 0.9})).learning_rate_limit is None
    assert predict(scenario(optimizer={"momentum": 0.0, "learning_rate": 0.1})).learning_rate_limit is None
    gamma = {"law": "gamma", "mean": 1.0, "cv": 0.5}
    assert predict(scenario(gamma, workers=200, optimizer=TODAY)).learning_rate_limit is None  # too long a law
    late = first_look(scenario(1.0, optimizer={"momentum": 0.01, "learning_rate": 0.1}), StalenessLaw.constant(400))
    assert late.explicit < -0.98
    assert late.ceiling < late.ceiling_at_zero * 1.02


def test_the_ratios_span_the_networks_that_fit():
    """From the worlds of docs/theory/networks.md 10.5, whose ends are nearly all noise and none."""
    pool = exponential_workers(8)
    look = predict(scenario(optimizer=TODAY)).learning_rate_limit
    for mu, ratios in ((0.9, look.ratios), (0.0, look.ratios_at_zero)):
        edges = [coupled_threshold(pool, world.problem, mu) / 0.1 for world in plausible_worlds(0.9, 0.1)]
        assert ratios == pytest.approx((min(edges), max(edges)), rel=1e-9)
    assert look.survives is None
    assert predict(scenario(workers=1, optimizer=TODAY)).learning_rate_limit.survives


def test_a_measured_network_leaves_no_range():
    problem = {"sharpness": 0.8, "batch_size": 8, "proportional_noise": 35, "noise_at_sharpness": 3}
    look = predict(scenario(optimizer=TODAY, problem=problem)).learning_rate_limit
    assert look.measured
    assert look.ratios[0] == look.ratios[1]


def test_the_report_names_no_rate_that_rests_on_a_guess():
    text = report.render(simulate(scenario(optimizer=TODAY), updates=3000, seed=1))
    assert "today        momentum 0.9, learning rate 0.1 may diverge here: that depends on the network" in text
    assert "times that rate; what to set: " in text
    assert "what to set: asyncq recommend" in text
    assert len(text.splitlines()) <= 24
    other = report.render(simulate(scenario(optimizer={**TODAY, "learning_rate": 0.0173}), updates=3000, seed=1))
    assert other == text.replace("learning rate 0.1 ", "learning rate 0.0173 ")
