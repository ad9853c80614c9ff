"""Replay against theory, against a plain loop, and against itself."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from asyncq import Run, Scenario, StalenessLaw, simulate
from asyncq.engines.rows import Chunk
from asyncq.sgd.objectives import LeastSquares, LogisticRegression, NoisyQuadratic, OwnObjective, StreamingPCA, affairs
from asyncq.sgd.plain import descend
from asyncq.sgd.replay import Controller, replay
from asyncq.sgd.schedule import schedule_of
from asyncq.theory.compensation import server_filter, step_schedule
from asyncq.theory.descent.exponential import exponential_workers
from asyncq.theory.stability import noise_floor, threshold


@cache
def traced(kind: str = "asynchronous", updates: int = 100_000, seed: int = 1, **keys: object) -> Run:
    protocol = {"kind": kind, **keys}
    pool = {"name": "gpu", "workers": 8, "work_time": {"law": "exponential", "mean": 1.0}}
    run = {"updates": updates, "seed": seed, "warmup": "none"}
    scenario = Scenario.from_dict({"schema": 1, "pool": [pool], "protocol": protocol, "run": run})
    return simulate(scenario, trace=True, engine="compiled")


def data(n: int = 60, d: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    x = generator.standard_normal((n, d))
    return x, x @ np.arange(1.0, d + 1) + 0.5 * generator.standard_normal(n)


# -- against theory ---------------------------------------------------------------------------------------------------


def scores(values: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Standard errors between the mean over the first axis and what is expected."""
    return (values.mean(axis=0) - expected) / (values.std(axis=0, ddof=1) / np.sqrt(values.shape[0]))


def test_the_mean_is_theorem_5_and_the_second_moment_the_exact_recursion():
    """Eight exponential workers, 2,000 windows, 4 standard errors at each of 200 steps: a false alarm in at most 5 % of
    seeds by Bonferroni over modes, moments and steps, in fact fewer, because neighbouring steps go together (none in
    20 seeds, the largest 3.9). With noise throughout: without, late squares are the work of a few windows out of
    thousands, and no sample of them is normal."""
    step, noise, h = 0.1, 0.1, np.array([1.0, 0.3])
    curve = replay(
        NoisyQuadratic(h, noise), traced(updates=400_000), step=step, updates=200, points=range(201),
        keep_positions=True, seed=4,
    )  # fmt: skip
    w = curve.positions[0, 0]
    assert w.shape == (2000, 201, 2)
    for mode, c in enumerate(step * h):
        mean = [1.0, 1.0 - c]  # the first gradient is of the start, whoever pushes it
        while len(mean) < 201:
            mean.append(mean[-1] + (7 / 8) * (mean[-1] - mean[-2]) - c / 8 * mean[-1])
        square = exponential_workers(8).moments(c, updates=200, noise=noise, curvature=float(h[mode]))
        assert np.abs(scores(w[:, 1:, mode], np.array(mean)[1:])).max() < 4
        assert np.abs(scores(w[:, 1:, mode] ** 2, square[1:])).max() < 4


def test_the_noise_floor_of_a_law_is_that_of_section_6():
    """Independent uniform staleness with momentum, additive and curvature noise; 4 standard errors over 100 runs."""
    law = StalenessLaw.uniform(0, 4)
    objective = NoisyQuadratic([1.0], 0.5, 0.3)
    curve = replay(
        objective, law, step=0.1, momentum=0.4, updates=3000, replications=100, points=range(500, 3001, 5),
        keep_positions=True, seed=5,
    )  # fmt: skip
    mean = np.square(curve.positions[0, 0, :, :, 0]).mean(axis=1)
    floor = noise_floor(law, 0.1, momentum=0.4, noise=0.5, curvature_variance=0.3)
    assert abs(scores(mean, np.array(floor))) < 4


def test_the_average_of_k_gradients_is_that_of_the_exact_recursion():
    pool = exponential_workers(8, contributors=4)
    run = traced("k-async", updates=60_000, k=4)
    objective = NoisyQuadratic([1.0], 0.1)
    curve = replay(objective, run, step=0.4, updates=100, points=range(101), keep_positions=True, seed=6)
    square = pool.moments(0.4, updates=100, noise=0.1)
    assert np.abs(scores(curve.positions[0, 0, :, 1:, 0] ** 2, square[1:])).max() < 4


@pytest.mark.parametrize("variant", ["heavy-ball", "dampened", "shifted"])
@pytest.mark.parametrize("delay", [0, 1, 7])
def test_constant_staleness_diverges_just_above_its_threshold(variant, delay):
    law, mu = StalenessLaw.constant(delay), 0.5
    edge = threshold(law, momentum=mu, variant=variant, criterion="expectation")
    curve = replay(
        NoisyQuadratic([1.0]), law, step=np.array([0.97, 1.03]) * edge, momentum=mu, variant=variant, updates=20_000,
        seed=1,
    )  # fmt: skip
    assert curve.diverged_at[0, 0, 0] == -1
    assert curve.loss[0, 0, 0, -1] < 1e-6
    assert 0 < curve.diverged_at[1, 0, 0] < 20_000
    assert np.isinf(curve.loss[1, 0, 0, -1])


def test_the_slope_of_giladi_figure_2_is_2_over_pi():
    """1 / (largest stable step) of full-gradient logistic regression around its optimum, against a constant delay."""
    whole = affairs(batch=None)
    part = LogisticRegression(whole.features[::25], whole.answers[::25], None, 1e-3)
    objective = LogisticRegression(part.features, part.answers, None, 1e-3, start=part.optimum + 1e-3)
    delays, largest = np.array([4, 8, 16, 32]), []
    for delay in delays:
        steps = np.geomspace(0.8, 1.25, 24) * 2 * np.sin(np.pi / (4 * delay + 2)) / objective.sharpness
        law = StalenessLaw.constant(int(delay))
        curve = replay(objective, law, step=steps, updates=150 * int(delay), seed=1, points=4)
        stable = curve.loss[:, 0, 0, -1] < curve.loss[:, 0, 0, 2]
        largest.append(steps[np.flatnonzero(stable)[-1]])
    slope, _ = np.polyfit(delays, 1.0 / np.array(largest), 1)
    assert abs(slope / objective.sharpness * np.pi / 2 - 1) < 0.08


# -- against a plain loop ---------------------------------------------------------------------------------------------

OBJECTIVES = {
    "quadratic": NoisyQuadratic([1.0, 0.5, 0.1], [0.1, 0.2, 0.0], 0.2),
    "least squares": LeastSquares(*data(), batch=2, ridge=0.1),
    "logistic": LogisticRegression(data()[0], data()[1] > 0, batch=1, ridge=0.1),
    "all samples": LogisticRegression(data()[0], data()[1] > 0, batch=None, ridge=0.01),
    "streaming PCA": StreamingPCA([4.0, 3.0, 1.0]),
}


@pytest.mark.parametrize("variant", ["heavy-ball", "dampened", "shifted"])
@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("source", ["law", "trace", "k-batch-async"])
def test_compiled_and_plain_agree(name, variant, source):
    objective, updates, mu, alpha = OBJECTIVES[name], 60, 0.4, 0.004 if name == "streaming PCA" else 0.05
    sources = {
        "law": StalenessLaw.geometric(workers=4),
        "trace": traced(updates=2000),
        "k-batch-async": traced("k-batch-async", updates=2000, k=3),
    }
    back = server_filter(StalenessLaw.geometric(workers=3), 0.3, 0.01) if variant == "heavy-ball" else None
    curve = replay(
        objective, sources[source], step=[0.001, alpha], momentum=[0.0, mu], variant=variant, compensate=back,
        updates=updates, replications=2, points=range(updates + 1), keep_positions=True, seed=9,
    )  # fmt: skip
    reads, noise = (np.random.Generator(np.random.SFC64(s)) for s in np.random.SeedSequence(9, spawn_key=(1,)).spawn(2))
    schedule = schedule_of(sources[source]).draw(updates, 1, reads)
    draws = objective.draw(noise, updates, schedule.read.size)
    row, update = iter(range(schedule.read.size)), np.repeat(np.arange(updates), np.diff(schedule.first))

    def gradient(u, i):
        value = objective.gradient(u, draws, i)
        if draws.additive.size:  # one draw for an update, of the variance of its average, given to its first row
            rows = slice(schedule.first[update[i]], schedule.first[update[i] + 1])
            share = np.sqrt(np.square(schedule.weight[rows]).sum()) / schedule.weight[i]
            value = value + (share * draws.additive[update[i]] if i == rows.start else 0.0)
        return value

    path, ended = descend(
        gradient, row.__next__, objective.start, schedule, step=alpha if variant == "heavy-ball" else alpha * (1 - mu),
        momentum=mu, back=back.implicit if back else 0.0, shifted=variant == "shifted",
    )  # fmt: skip
    assert ended == -1
    np.testing.assert_allclose(curve.positions[1, 1, 1], path, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(curve.loss[1, 1, 1], objective.loss(path), rtol=1e-8, atol=1e-12)


def test_your_own_gradient_is_replayed_like_the_compiled_ones():
    x, y = data()
    own = OwnObjective(lambda w, i: (x[i] @ w - y[i]) * x[i], np.zeros(4), lambda draw: draw.integers(60, size=1)[0])
    theirs = LeastSquares(x, y)
    arguments = {"step": [0.01, 0.02], "momentum": 0.3, "updates": 50, "seed": 2, "keep_positions": True}
    a = replay(own, traced(updates=2000), replications=1, **arguments)
    b = replay(theirs, traced(updates=2000), replications=1, **arguments)
    np.testing.assert_allclose(a.positions, b.positions, rtol=1e-9)


def test_steps_by_staleness_restore_the_target_momentum_in_the_mean():
    """alpha(tau) = alpha' mu*^tau / q_tau: the mean is that of heavy ball with mu* (docs/theory/momentum.md)."""
    law, target, step = StalenessLaw.geometric(workers=3, tail=1e-9), 0.5, 0.05
    curve = replay(
        NoisyQuadratic([1.0]), law, step=step, compensate=step_schedule(law, target), updates=60, replications=4000,
        points=range(61), keep_positions=True, seed=8,
    )  # fmt: skip
    w = curve.positions[0, 0, :, :, 0]
    expected = [1.0, 1.0 - step / (1 - target)]  # before the start the gradient was that of the start
    while len(expected) < 61:
        expected.append(expected[-1] + target * (expected[-1] - expected[-2]) - step * expected[-1])
    # the law ends: what a staleness from beyond it would weigh is below 1e-9 of mass and 2^-50 of momentum
    assert np.abs(scores(w[:, 2:], np.array(expected)[2:])).max() < 4.5


# -- divergence, recording, reproducibility ---------------------------------------------------------------------------


def test_the_update_that_diverges_is_named():
    law = StalenessLaw.constant(0)
    curve = replay(NoisyQuadratic([1.0]), law, step=[3.0, 0.5], updates=100, points=range(101), seed=1)
    assert curve.diverged_at[:, 0, 0].tolist() == [20, -1]  # 4^20 is the first power of 4 above 10^12
    assert np.isfinite(curve.loss[0, 0, 0, :20]).all()
    assert np.isinf(curve.loss[0, 0, 0, 20:]).all()
    assert curve.updates_to(1e-6)[:, 0].tolist() == [np.inf, 10]
    assert curve.to_dict()["loss"][0][0][-1] is None


def test_configurations_replications_blocks_and_threads_do_not_disturb_each_other(monkeypatch):
    law, objective = StalenessLaw.geometric(workers=4), NoisyQuadratic([1.0, 0.2], 0.1)
    whole = replay(objective, law, step=[0.1, 0.2, 5.0], momentum=[0.0, 0.3], updates=100, replications=3, seed=7)
    alone = replay(objective, law, step=0.2, momentum=0.3, updates=100, replications=2, seed=7, threads=1)
    np.testing.assert_array_equal(alone.loss[0, 0], whole.loss[1, 1, :2])
    monkeypatch.setattr("asyncq.sgd.replay.DRAWN", 14)  # seven updates to a block
    again = replay(objective, law, step=[0.1, 0.2, 5.0], momentum=[0.0, 0.3], updates=100, replications=3, seed=7)
    np.testing.assert_array_equal(again.loss, whole.loss)
    np.testing.assert_array_equal(again.diverged_at, whole.diverged_at)


def test_only_versions_still_to_be_read_are_kept():
    from asyncq.sgd.kernels import slots

    schedule = schedule_of(traced()).draw(50_000, 0, np.random.default_rng(0))
    assert schedule.read.size == 50_000
    keep, row, count = slots(schedule.first, schedule.read)
    assert count <= 9  # one for each worker, and the one being read
    held = np.full(count, -1)
    for t in range(50_000):
        if keep[t] >= 0:
            held[keep[t]] = t
        assert held[row[t]] == schedule.read[t]


def test_the_clock_of_a_trace_is_that_of_the_simulation():
    run = traced(updates=2000)
    curve = replay(NoisyQuadratic([1.0]), run, step=0.1, updates=1000, points=[0, 1, 1000])
    np.testing.assert_allclose(curve.seconds[0], [0.0, run.trace.time[0], run.trace.time[999]])
    np.testing.assert_allclose(curve.seconds[1], np.append(0.0, run.trace.time[[1000, 1999]] - run.trace.time[999]))


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_the_controller_leaves_the_target_in_total(workers):
    """Total momentum 0.9 with geometric staleness needs explicit 0.9 - mu_S (Theorem 5). The controller does not see
    the law; the tolerance is not statistical: one step size of fifteen modes, and an average of 100 updates."""
    curve = replay(
        NoisyQuadratic(np.geomspace(0.01, 0.1, 15)), StalenessLaw.geometric(workers=workers), step=0.05,
        controller=Controller(0.9), updates=20_000, replications=2, points=1, seed=3,
    )  # fmt: skip
    assert np.abs(curve.final_momentum - (0.9 - 1 + 1 / workers)).max() < 0.02


# -- weights ----------------------------------------------------------------------------------------------------------


def test_downweighted_gradients_count_for_less():
    run = traced("bounded", updates=500, maximum_staleness=6, policy="downweight")
    schedule = schedule_of(run)
    late = run.trace.staleness > 6
    np.testing.assert_allclose(schedule.weight[late], (1.0 + run.trace.staleness[late]) ** -0.5)
    assert np.all(schedule.weight[~late] == 1.0)
    assert late.any()
    with pytest.raises(ValueError, match="pass the run"):
        schedule_of(run.trace)


# -- optima -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["quadratic", "least squares", "logistic", "all samples"])
def test_at_the_optimum_the_loss_is_zero_and_flat(name):
    objective = OBJECTIVES[name]
    optimum = objective.optimum
    assert abs(float(objective.loss(optimum))) < 1e-12
    for direction in np.eye(optimum.size):
        up, down = (float(objective.loss(optimum + s * 1e-4 * direction)) for s in (1, -1))
        assert up > 0
        assert down > 0
        assert abs(up - down) < 1e-9


# -- what cannot be run -----------------------------------------------------------------------------------------------

LAW, MODES = StalenessLaw.constant(1), NoisyQuadratic([1.0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"step": 0.0}, "step must be positive"),
        ({"step": float("nan")}, "step must be a finite number"),
        ({"step": []}, "step must be a finite number"),
        ({"step": 0.1, "momentum": 1.0}, "momentum must lie strictly"),
        ({"step": 0.1, "variant": "nesterov"}, "variant must be one of heavy-ball"),
        ({"step": 0.1, "updates": None}, "how many updates"),
        ({"step": 0.1, "updates": 0}, "updates must be a whole number"),
        ({"step": 0.1, "replications": 0}, "replications must be a whole number"),
        ({"step": 0.1, "points": 0}, "points must be 1 or more"),
        ({"step": 0.1, "points": [11]}, "points must be numbers of updates from 0 to 10"),
        ({"step": 0.1, "gradients": 0}, "gradients must be 1 or more"),
        ({"step": 0.1, "variant": "shifted", "controller": Controller(0.5)}, "controller goes with the plain"),
    ],
)
def test_wrong_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        replay(MODES, LAW, **{"updates": 10, **arguments})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: NoisyQuadratic([]), "spectrum must be"),
        (lambda: NoisyQuadratic([1.0, -1.0]), "spectrum must be"),
        (lambda: NoisyQuadratic([1.0], -1.0), "noise must be"),
        (lambda: NoisyQuadratic([1.0], 0.0, float("inf")), "curvature_variance must be"),
        (lambda: NoisyQuadratic([1.0], start=[1.0, 2.0]), "start must be"),
        (lambda: LeastSquares(np.ones((2, 2)), np.ones(3)), "answers must be"),
        (lambda: LeastSquares(np.ones((2, 2)), np.ones(2), batch=0), "batch must be"),
        (lambda: LeastSquares(np.ones((2, 2)), np.ones(2), ridge=-1), "ridge must be"),
        (lambda: LogisticRegression(np.ones((3, 1)), [0.0, 1.0, 2.0]), "answers must be 0 and 1"),
        (lambda: LogisticRegression([[1.0], [-1.0]], [1.0, 0.0]).optimum, "separable"),
        (lambda: StreamingPCA([1.0, 1.0]), "eigenvalues must be"),
        (lambda: OwnObjective(lambda w, s: w, []), "start must be"),
        (lambda: replay(OwnObjective(lambda w, s: 1.0, [1.0, 2.0]), LAW, step=0.1, updates=2), "the shape of w"),
        (lambda: Controller(1.0), "need target"),
        (lambda: schedule_of(traced(), gradients=2), "leave gradients out"),
        (lambda: replay(MODES, traced(), step=0.1, updates=10**7), "simulate more"),
    ],
)
def test_wrong_objectives_and_traces_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_trace_with_a_hole_is_refused():
    trace = traced(updates=100).trace
    with pytest.raises(ValueError, match="update 5 has no row"):
        schedule_of(trace.pick(np.delete(np.arange(100), 5)))
    nothing = Chunk(*(column[:0] if column is not None else None for column in trace))
    with pytest.raises(ValueError, match="no applied gradient"):
        schedule_of(nothing)
