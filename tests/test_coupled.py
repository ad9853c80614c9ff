"""Noise that falls with the loss couples the modes: thresholds, rates, floors and times against dense matrices over all
modes, brute-force ensembles and closed forms. docs/theory/networks.md."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from asyncq.staleness import StalenessLaw
from asyncq.theory.descent.coupled import floor, losses, rate, threshold, time_to_target
from asyncq.theory.descent.problem import TrainingProblem
from asyncq.theory.stability import exponential_workers
from asyncq.theory.stability import noise_floor as one_floor
from asyncq.theory.stability import rate as one_rate
from asyncq.theory.stability import threshold as one_threshold

SMALL = TrainingProblem((1.0, 0.15), (0.6, 1.7), (0.02, 0.05), (0.4, 0.6), 1.5)
SHORT = StalenessLaw.from_pmf([0.2, 0.5, 0.0, 0.3])
POWERS = tuple((np.arange(1, 31.0) ** -1.2).tolist())


# -- dense matrices over all modes: the oracle, which knows no generating function and no mode apart ------------------


def companion(problem, alpha, mu, read, size):
    """The update of (w, v, then ``size`` - 2 more places) of every mode when the gradient is read at place ``read``;
    the places after v are filled by the caller."""
    blocks = []
    for h in problem.curvatures:
        a = np.zeros((size, size))
        a[0, 0] += 1 + mu
        a[0, 1] -= mu
        a[0, read] -= alpha * h
        a[1, 0] = 1.0
        blocks.append(a)
    return blocks


def joined(blocks):
    size = blocks[0].shape[0]
    out = np.zeros((len(blocks) * size,) * 2)
    for j, block in enumerate(blocks):
        out[j * size : (j + 1) * size, j * size : (j + 1) * size] = block
    return out


def dense(problem, alpha, cases, size):
    """(matrix of E[X X'], constant part): ``cases`` are (probability, blocks, place that is read, places that get the
    new weights)."""
    d = len(problem.curvatures)
    n = d * size
    matrix, constant = np.zeros((n * n, n * n)), np.zeros(n * n)
    for chance, blocks, read, fresh in cases:
        matrix += chance * np.kron(joined(blocks), joined(blocks))
        for j in range(d):
            new = np.zeros(n)
            new[[j * size + place for place in fresh]] = 1.0
            into = chance * alpha**2 / problem.batch_size * np.kron(new, new)
            constant += into * problem.constant_noise[j]
            for i, h in enumerate(problem.curvatures):
                place = i * size + read
                matrix[:, place * n + place] += into * problem.noise[j] * h
    return matrix, constant


def dense_law(problem, alpha, mu, law):
    """Independent staleness: places are w_t, w_(t-1), ..."""
    size = max(law.pmf.size, 2)
    cases = []
    for read, chance in enumerate(law.pmf):
        blocks = companion(problem, alpha, mu, read, size)
        for block in blocks:
            for place in range(2, size):
                block[place, place - 1] = 1.0
        cases.append((chance, blocks, read, [0]))
    return (*dense(problem, alpha, cases, size), size)


def dense_workers(problem, alpha, mu, shares):
    """Exponential workers: places are w, v and the version of each worker."""
    size = 2 + len(shares)
    cases = []
    for worker, chance in enumerate(shares):
        blocks = companion(problem, alpha, mu, 2 + worker, size)
        for block in blocks:
            for other in range(len(shares)):
                block[2 + other] = block[0] if other == worker else np.eye(size)[2 + other]
        cases.append((chance, blocks, 2 + worker, [0, 2 + worker]))
    return (*dense(problem, alpha, cases, size), size)


def dense_losses(problem, matrix, constant, size, updates):
    d = len(problem.curvatures)
    w = np.repeat(np.sqrt(2 * np.array(problem.start) / problem.curvatures), size)
    state, out = np.kron(w, w), []
    places = [(j * size) * (d * size) + j * size for j in range(d)]
    for _ in range(updates + 1):
        out.append(0.5 * np.dot(problem.curvatures, state[places]))
        state = matrix @ state + constant
    settled = np.linalg.solve(np.eye(matrix.shape[0]) - matrix, constant)
    return np.array(out), 0.5 * np.dot(problem.curvatures, settled[places])


def radius(matrix):
    return float(np.abs(np.linalg.eigvals(matrix)).max())


CASES = {
    "law": (SHORT, lambda p, a, mu: dense_law(p, a, mu, SHORT)),
    "equal workers": (exponential_workers(3), lambda p, a, mu: dense_workers(p, a, mu, [1 / 3] * 3)),
    "unequal workers": (
        exponential_workers([4.0, 1.0, 1.0]), lambda p, a, mu: dense_workers(p, a, mu, [2 / 3, 1 / 6, 1 / 6])),
    "all different": (
        exponential_workers([5.0, 2.0, 1.0]), lambda p, a, mu: dense_workers(p, a, mu, [5 / 8, 2 / 8, 1 / 8])),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mu", [-0.3, 0.0, 0.6])
def test_agrees_with_dense_matrices_over_all_modes(case, mu):
    staleness, oracle = CASES[case]
    edge = threshold(staleness, SMALL, mu)
    # (near the edge the radius of the dense matrix decides; elsewhere every figure)
    assert radius(oracle(SMALL, edge, mu)[0]) == pytest.approx(1.0, abs=1e-7)
    for part in (0.2, 0.7, 1.15):
        matrix, constant, size = oracle(SMALL, part * edge, mu)
        assert rate(staleness, SMALL, part * edge, mu) == pytest.approx(radius(matrix), abs=1e-7)
        if part < 1:
            curve, settled = dense_losses(SMALL, matrix, constant, size, 300)
            assert floor(staleness, SMALL, part * edge, mu) == pytest.approx(settled, rel=1e-8)
            assert losses(staleness, SMALL, part * edge, mu, updates=300) == pytest.approx(curve, rel=1e-7)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mu", [0.0, 0.8])
def test_time_to_target_is_that_of_the_dense_curve(case, mu):
    staleness, oracle = CASES[case]
    problem = replace(SMALL, constant_noise=(0.002, 0.005))
    edge = threshold(staleness, problem, mu)
    rates = edge * np.array([0.02, 0.2, 0.6, 0.9, 1.1])
    found = time_to_target(staleness, problem, rates, mu, target=0.1)
    for alpha, when in zip(rates, found, strict=True):
        matrix, constant, size = oracle(problem, alpha, mu)
        curve, settled = dense_losses(problem, matrix, constant, size, 6000)
        if alpha > edge or settled > 0.1:
            assert np.isinf(when)
            continue
        last = int(np.flatnonzero(curve > 0.1)[-1])
        assert last <= when <= last + 1


# -- the figures of docs/theory/networks.md ---------------------------------------------------------------------------


@pytest.mark.parametrize(("mu", "edge"), [(-0.4, 0.5055), (0.0, 0.3664), (0.5, 0.1697), (0.9, 0.0218)])
def test_thirty_modes_of_a_power_law_spectrum(mu, edge):
    problem = TrainingProblem(POWERS, POWERS, (0.0,) * 30, (1 / 30,) * 30, 2.0)
    law = StalenessLaw.geometric(workers=8)
    assert threshold(law, problem, mu) == pytest.approx(edge, abs=5e-5)
    assert rate(law, problem, 0.999 * threshold(law, problem, mu), mu) < 1
    assert rate(law, problem, 1.001 * threshold(law, problem, mu), mu) > 1


# -- ensembles: the model as it is stated, with nothing derived --------------------------------------------------------


def ensemble(problem, alpha, mu, updates, replicas, reads):
    """Losses (updates + 1, replicas): gradients at the version that ``reads`` picks from the past, with Gaussian noise
    of the variance that the loss there makes."""
    rng = np.random.default_rng(7)
    h, s = np.array(problem.curvatures)[:, None], np.array(problem.noise)[:, None]
    s0 = np.array(problem.constant_noise)[:, None]
    first = np.sqrt(2 * np.array(problem.start)[:, None] / h) * np.ones(replicas)
    past, out = [first, first], [0.5 * (h * first**2).sum(axis=0)]
    columns = np.arange(replicas)
    for t in range(updates):
        ages = reads(rng, t)
        stack = np.stack(past[1:])
        seen = stack[np.maximum(t - ages, 0), :, columns].T
        loss = 0.5 * (h * seen**2).sum(axis=0)
        noise = np.sqrt((2 * loss * s + s0) / problem.batch_size) * rng.standard_normal(seen.shape)
        past.append(past[-1] + mu * (past[-1] - past[-2]) - alpha * (h * seen + noise))
        out.append(0.5 * (h * past[-1] ** 2).sum(axis=0))
    return np.array(out)


FOUR = TrainingProblem.of(
    2.0,
    proportional_noise=9.0,
    noise_at_sharpness=1.5,
    constant_noise=0.5,
    batch_size=4,
    curvatures=(2.0, 0.7, 0.2, 0.05),
)
REPLICAS = 6000


@pytest.mark.parametrize("mu", [-0.4, 0.0, 0.7])
@pytest.mark.parametrize("kind", ["independent", "workers"])
def test_ensembles_follow_the_predicted_loss(kind, mu):
    """At most 5 standard errors off at 12 times: false alarm about 1e-5 (the mean of 6,000 losses is nearly normal, at
    0.45 of the edge)."""
    if kind == "independent":
        law = StalenessLaw.negative_binomial(4.0, 6.0)
        staleness = law
        cumulative = np.cumsum(law.pmf)

        def reads(rng, t):
            return np.searchsorted(cumulative, rng.random(REPLICAS))

    else:
        staleness = exponential_workers(5)
        held = np.zeros((REPLICAS, 5), dtype=int)

        def reads(rng, t):
            chosen = rng.integers(5, size=REPLICAS)
            rows = np.arange(REPLICAS)
            ages = t - held[rows, chosen]
            held[rows, chosen] = t + 1
            return ages

    alpha = 0.45 * threshold(staleness, FOUR, mu)
    paths = ensemble(FOUR, alpha, mu, 120, REPLICAS, reads)
    predicted = losses(staleness, FOUR, alpha, mu, updates=120)
    for t in range(10, 121, 10):
        error = paths[t].std() / np.sqrt(REPLICAS)
        assert abs(paths[t].mean() - predicted[t]) < 5 * error


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mu", [-0.5, 0.0, 0.5, 0.9])
def test_a_single_mode_is_that_of_section_6(mu):
    """(10.4): V_h = s_1 h_1 / b."""
    law, h, s, b = StalenessLaw.negative_binomial(5.0, 3.0), 0.7, 2.0, 8.0
    problem = TrainingProblem((h,), (s,), (0.3,), (1.0,), b)
    relative = s / (b * h)
    edge = threshold(law, problem, mu)
    assert edge * h == pytest.approx(one_threshold(law, momentum=mu, curvature_variance=relative), rel=1e-8)
    step = 0.6 * edge
    assert rate(law, problem, step, mu) == pytest.approx(
        one_rate(law, step * h, momentum=mu, curvature_variance=relative), rel=1e-8
    )
    pool = exponential_workers(6)
    assert threshold(pool, problem, mu) * h == pytest.approx(pool.threshold(mu, curvature_variance=relative), rel=1e-8)
    step = 0.6 * threshold(pool, problem, mu)
    assert rate(pool, problem, step, mu) == pytest.approx(
        pool.rate(step * h, mu, curvature_variance=relative), rel=1e-9
    )
    level = pool.noise_floor(step * h, mu, 0.3 / b, curvature=h, curvature_variance=relative)
    assert floor(pool, problem, step, mu) == pytest.approx(0.5 * h * level, rel=1e-9)
    quiet = replace(problem, noise=(0.0,))
    assert floor(law, quiet, step, mu) == pytest.approx(
        0.5 * h * one_floor(law, step * h, momentum=mu, noise=0.3 / b, curvature=h), rel=1e-8
    )
    assert threshold(law, quiet, mu) * h == pytest.approx(one_threshold(law, momentum=mu), rel=1e-8)


@pytest.mark.parametrize("mu", [-0.4, 0.0, 0.9])
@pytest.mark.parametrize(
    "law", [StalenessLaw.constant(0), StalenessLaw.constant(5), StalenessLaw.geometric(workers=16)]
)
def test_where_every_mode_is_soft_workers_are_free(law, mu):
    """(10.2): alpha / (1 - mu) = 2 b / R2, whatever the staleness: to first order in the softness."""
    problem = TrainingProblem((2e-4, 1e-4), (1.0, 3.0), (0.0, 0.0), (0.5, 0.5), 2.0)
    edge = threshold(law, problem, mu) / (1 - mu)
    assert edge == pytest.approx(problem.noise_edge, rel=0.01)
    assert threshold(law, replace(problem, batch_size=4.0), mu) == pytest.approx(2 * edge * (1 - mu), rel=0.02)


def test_equal_speeds_given_as_rates_and_as_classes_are_the_same():
    """Two classes of almost equal workers against the seven moments of equal ones."""
    nearly = exponential_workers([1.0, 1.0, 1.0 + 1e-9, 1.0 + 1e-9])
    assert len(nearly.counts) == 2
    for mu in (0.0, 0.7):
        assert threshold(nearly, SMALL, mu) == pytest.approx(threshold(exponential_workers(4), SMALL, mu), rel=1e-6)


def test_one_worker_is_the_same_by_every_road():
    for mu in (-0.3, 0.0, 0.9):
        b = 1 + mu
        edge = threshold(StalenessLaw.constant(0), FOUR, mu)
        h, s = np.array(FOUR.curvatures), np.array(FOUR.noise)
        closed = (s * edge * b / (FOUR.batch_size * (1 - mu) * (2 * b - edge * h))).sum()
        assert closed == pytest.approx(1.0, rel=1e-7)
        assert threshold(exponential_workers(1), FOUR, mu) == pytest.approx(edge, rel=1e-7)
        when = time_to_target(StalenessLaw.constant(0), FOUR, 0.2 * edge, mu, target=0.5)
        assert time_to_target(exponential_workers(1), FOUR, 0.2 * edge, mu, target=0.5) == pytest.approx(when, rel=1e-6)


def test_contributors_divide_the_noise():
    """K of K workers are one with K times the batch."""
    many = threshold(exponential_workers(4, contributors=4), FOUR, 0.5)
    assert many == pytest.approx(threshold(exponential_workers(1), replace(FOUR, batch_size=16.0), 0.5), rel=1e-8)
    assert threshold(StalenessLaw.constant(0), FOUR, 0.5, gradients=4) == pytest.approx(many, rel=1e-7)


def test_rates_follow_the_scale_of_the_problem():
    law = StalenessLaw.geometric(workers=4)
    edge = threshold(law, FOUR, 0.5)
    assert threshold(law, FOUR.scaled(3.0), 0.5) == pytest.approx(edge / 3, rel=1e-7)
    when = time_to_target(law, FOUR, 0.3 * edge, 0.5, target=0.5)
    assert time_to_target(law, FOUR.scaled(3.0), 0.1 * edge, 0.5, target=0.5) == pytest.approx(when, rel=1e-6)


def test_a_constant_delay_without_noise_keeps_the_edge_of_the_expectation():
    law, quiet = StalenessLaw.constant(7), TrainingProblem.of(2.0)
    assert threshold(law, quiet) == pytest.approx(np.sin(np.pi / 30), rel=1e-9)
    assert rate(law, quiet, 0.5 * threshold(law, quiet)) < 1
    noisy = TrainingProblem.of(2.0, proportional_noise=1.0, batch_size=64)  # none of it along the sharpness
    assert threshold(law, noisy) == pytest.approx(np.sin(np.pi / 30), rel=1e-6)


@pytest.mark.parametrize("mu", [-0.4, 0.0, 0.5])
def test_many_workers_without_noise(mu):
    """The edge of the expectation is 1,400 times that of the mean square here: the search must go down that far."""
    law = StalenessLaw.geometric(workers=64)
    edge = threshold(law, TrainingProblem.of(2.0), mu)
    assert 2 * edge == pytest.approx(one_threshold(law, momentum=mu), rel=1e-7)


def test_very_soft_modes_under_a_large_momentum_keep_their_digits():
    """Nothing stiff, so that the law and the exact process agree to first order, over two million updates."""
    soft = TrainingProblem.of(1e-4, proportional_noise=1.0)
    law, pool = StalenessLaw.geometric(workers=300), exponential_workers(300)
    rates = 0.01 * soft.noise_edge * np.array([0.1, 0.5, 0.9])
    exact = time_to_target(pool, soft, rates, 0.99, target=0.1)
    assert time_to_target(law, soft, rates, 0.99, target=0.1) == pytest.approx(exact, rel=0.02)


def test_without_noise_along_the_sharpest_mode_the_threshold_is_its_edge():
    """The search for where the loop is 1 then ends at the edge itself, where linear systems are singular: for 4 of
    these sharpnesses to the last bit."""
    edge = (1 + 33**0.5) / 8  # for M workers (1 + sqrt(1 + 8 M)) / 2M
    for sharpness in np.arange(2.5, 2.52, 0.0005).tolist():
        problem = TrainingProblem.of(sharpness, proportional_noise=19.47, batch_size=32)
        assert threshold(exponential_workers(4), problem) == pytest.approx(edge / sharpness, rel=1e-8)


def test_what_is_no_problem_is_refused():
    with pytest.raises(ValueError, match="noise_at_sharpness"):
        TrainingProblem.of(1.0, proportional_noise=1.0, noise_at_sharpness=2.0)
    with pytest.raises(ValueError, match="fall"):
        TrainingProblem((1.0, 2.0), (0.0, 0.0), (0.0, 0.0), (1.0, 1.0))
    with pytest.raises(ValueError, match="target"):
        time_to_target(SHORT, SMALL, 0.1, target=2.0)
    with pytest.raises(ValueError, match="speeds"):
        threshold(exponential_workers(np.arange(1.0, 12.0)), SMALL)
