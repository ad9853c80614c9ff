"""Streaming PCA: limits, phases and the harmless delay against oracles of their own."""

from __future__ import annotations

import numpy as np
import pytest

from asyncq import StalenessLaw
from asyncq.sgd.objectives import StreamingPCA
from asyncq.sgd.replay import replay
from asyncq.sgd.streaming_pca import (
    FIGURE_1,
    HarmlessRule,
    delay_bound,
    delay_grid,
    diffusion,
    harmless_delay,
    ode,
    phases,
    simulated_harmless_delays,
    stationary_variance,
)

SIGMA = [4.0, 3.0, 2.0, 1.0]


def test_the_ode_solves_equation_7():
    """dH/dt = (Lambda H - H'Lambda H H) / (1 - mu) by central differences."""
    start, t, small = np.sqrt([0.1, 0.4, 0.3, 0.2]), 0.7, 1e-5
    before, now, after = ode(SIGMA, start, [t - small, t, t + small], momentum=0.6)
    drift = (np.array(SIGMA) * now - (np.array(SIGMA) @ now**2) * now) / 0.4
    np.testing.assert_allclose((after - before) / (2 * small), drift, rtol=1e-7)
    assert ode(SIGMA, start, 100.0)[0] == pytest.approx([1, 0, 0, 0], abs=1e-12)
    np.testing.assert_allclose(ode(SIGMA, start, 0.0)[0], start)


def test_the_diffusion_has_the_variances_of_theorem_5_and_leaves_saddles():
    np.testing.assert_allclose(diffusion(SIGMA, momentum=0.7).stationary_variance, [0, 20, 20 / 3, 20 / 9])
    saddle = diffusion(SIGMA, momentum=0.5, near=1)
    np.testing.assert_allclose(saddle.drift, [2, 0, -2, -4])
    np.testing.assert_allclose(saddle.noise**2, np.array([12, 0, 6, 3]) / 0.25)
    assert np.isinf(saddle.stationary_variance[0])
    for step in (1e-5, 1e-6):
        close = stationary_variance(SIGMA, step, momentum=0.7, delay=5)
        gap = close / np.array([1, 20, 20 / 3, 20 / 9]) - 1
        assert np.abs(gap[1:]).max() < 100 * step  # of the order eta (tau + 1 / (1 - mu)) times the gap


def test_corrected_phases_do_what_they_say_and_the_printed_ones_half_of_it():
    eta, mu, delta, epsilon = 2e-5, 0.7, np.sqrt(0.2), 0.05
    right = phases(SIGMA, eta, momentum=mu, delta=delta, epsilon=epsilon, nu=0.1)
    paper = phases(SIGMA, eta, momentum=mu, delta=delta, epsilon=epsilon, nu=0.1, form="paper")
    # T1: U_1 is normal; its variance at T1 leaves 10 % within delta
    near = diffusion(SIGMA, momentum=mu, near=1)
    variance = eta * near.noise[0] ** 2 * np.expm1(2 * near.drift[0] * right.escape) / (2 * near.drift[0])
    draws = np.random.default_rng(1).standard_normal(400_000) * np.sqrt(variance)
    assert abs((np.abs(draws) >= delta).mean() - 0.9) < 5 * np.sqrt(0.09 / 400_000)
    assert paper.escape == right.escape
    # T2: the ODE with two coordinates
    start = [delta, np.sqrt(1 - delta**2), 0, 0]
    assert ode(SIGMA, start, right.traverse, momentum=mu)[0, 0] ** 2 == pytest.approx(1 - delta**2)
    assert ode(SIGMA, start, paper.traverse, momentum=mu)[0, 0] ** 2 == pytest.approx(0.5)
    # T3: Markov's inequality needs a mean of epsilon / 4
    phi = 4.0 * (3 + 2 + 1)
    for form, quarter in ((right, epsilon / 4), (paper, epsilon)):
        decayed = delta**2 * np.exp(-2 * form.converge / (1 - mu))
        assert decayed + (quarter / epsilon) * 2 * eta * phi / (1 - mu) == pytest.approx(quarter)
    assert right.iterations(eta, 10)[1] == pytest.approx(right.traverse / eta / 10)
    assert right.iterations(eta, 0)[1] == pytest.approx(right.traverse / eta)


def test_delay_bounds_scale_as_the_theorems_say():
    a = delay_bound(SIGMA, 1e-4, momentum=0.5, gamma=0.25, theorem=5, bound=1.0)
    assert a == pytest.approx(0.25 / (5 * 1e-4**0.25))
    b = delay_bound(SIGMA, 1e-4, gamma=0.5, theorem=3)
    assert b == pytest.approx(1 / (4 * 1e-2))


def largest_root(delay: int, step: float, momentum: float) -> float:
    polynomial = np.zeros(max(delay + 2, 3))
    polynomial[:3] += 1.0, -1.0 - momentum, momentum
    polynomial[delay + 1] += step
    return float(np.abs(np.roots(polynomial)).max())


def test_the_predicted_harmless_delays_are_those_of_the_characteristic_polynomial():
    """By companion matrix; the figures are those of docs/theory/streaming-pca.md."""
    assert FIGURE_1.eigenvalues == tuple(SIGMA)
    found = [harmless_delay(SIGMA, FIGURE_1.eta, momentum=mu, criterion="expectation") for mu in FIGURE_1.momenta]
    assert found == [115, 74, 53, 32, 13]
    for delay, mu in zip(found, FIGURE_1.momenta, strict=True):
        assert largest_root(delay, 8 * FIGURE_1.eta, mu) < 1 < largest_root(delay + 1, 8 * FIGURE_1.eta, mu)
    square = [harmless_delay(SIGMA, FIGURE_1.eta, momentum=mu) for mu in FIGURE_1.momenta]
    assert square == [113, 72, 51, 30, 12]
    assert harmless_delay(SIGMA, 1.0) == -1


def test_the_grid_has_steps_of_ten_percent_or_of_one():
    grid = delay_grid()
    assert grid[0] == 0
    assert np.all((np.diff(grid) == 1) | (np.diff(grid) <= 0.1 * grid[:-1]))


def test_a_delay_far_beyond_the_prediction_harms_and_one_far_below_does_not():
    rule = HarmlessRule(runs=8, updates=20_000)
    found, errors = simulated_harmless_delays(rule=rule, grid=[0, 6, 60], seed=2)
    assert found[-1] == 6
    assert errors.shape == (3, 5)
    assert errors[2, -1] > 2 * errors[0, -1]


def test_the_path_leaves_the_saddle_for_the_optimum():
    curve = replay(
        StreamingPCA(SIGMA), StalenessLaw.constant(10), step=1e-3, momentum=0.5, updates=20_000, replications=4, seed=1
    )
    assert np.all(curve.loss[0, 0, :, 0] == 2.0)
    assert np.all(curve.loss[0, 0, :, -1] < 0.2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ode(SIGMA, [1, 1, 0, 0], 1.0), "length 1"),
        (lambda: ode(SIGMA, [1, 0, 0, 0], 1.0, momentum=-0.1), "momentum must lie in"),
        (lambda: ode([4, 4, 1], [1, 0, 0], 1.0), "eigenvalues must be"),
        (lambda: diffusion(SIGMA, near=4), "near must be from 0 to 3"),
        (lambda: phases(SIGMA, 1e-2, delta=0.3, epsilon=0.01), "the noise exceeds it; take eta <"),
        (lambda: phases(SIGMA, 1e-4, delta=1.3, epsilon=0.01), "need 0 < delta < 1"),
        (lambda: phases(SIGMA, 1e-4, delta=0.3, epsilon=0.1, form="printed"), "form must be"),
        (lambda: delay_bound(SIGMA, 1e-4, gamma=0.6, theorem=5), "need 0 < gamma <= 0.5"),
        (lambda: delay_bound(SIGMA, 1e-4, gamma=0.5, theorem=4), "theorem must be 3 or 5"),
    ],
)
def test_wrong_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
