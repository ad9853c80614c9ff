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
from asyncq.theory.recommendation.learning_rate_limit import first_look
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


def test_a_learning_rate_out_of_range_has_no_ceiling():
    assert predict(scenario(optimizer={"momentum": 0.9, "learning_rate": 1e-308})).recommendation is None


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


def test_the_report_says_so_in_two_lines():
    text = report.render(simulate(scenario(optimizer=TODAY), updates=3000, seed=1))
    assert "ceiling      at momentum 0.9: learning rate 0.000674 (mean square, exact); today's 0.1 diverges" in text
    assert "at 0.025: 0.0145" in text
    assert "asyncq recommend" in text
    assert len(text.splitlines()) <= 24
