"""The expected update, the momentum-or-delay test and the compensators against simulation and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncq.staleness import StalenessLaw
from asyncq.theory import compensation, momentum


class TestTheoremTwo:
    def test_coefficients(self):
        law = StalenessLaw.from_pmf([0.5, 0.3, 0.2])
        fresh, past = momentum.gradient_coefficients(law)
        assert fresh == pytest.approx(0.5)
        assert past == pytest.approx([0.2, 0.1, 0.2])

    @pytest.mark.parametrize(
        "law", [StalenessLaw.from_pmf([0.5, 0.3, 0.2]), StalenessLaw.poisson(2)], ids=["short", "poisson"]
    )
    def test_both_forms_reproduce_the_expected_path(self, law):
        """E w on a quadratic by direct convolution with q; Theorem 2 and the autoregression must follow it."""
        q, alpha = law.pmf / law.pmf.sum(), 0.1
        w = np.ones(60)
        for t in range(59):
            lags = np.arange(min(q.size, t + 1))
            w[t + 1] = w[t] - alpha * (q[lags] @ w[t - lags])
        fresh, past = momentum.gradient_coefficients(law)
        c = momentum.autoregression(law, 60)
        steps = np.diff(w)
        for t in range(1, 59):
            lags = np.arange(min(past.size, t))
            theorem = steps[t - 1] - alpha * fresh * w[t] + alpha * (past[lags] @ w[t - 1 - lags])
            assert steps[t] == pytest.approx(theorem, abs=1e-13)
            assert steps[t] == pytest.approx(c[:t] @ steps[t - 1 :: -1][:t] - alpha * fresh * w[t], abs=1e-9)

    def test_theorem_three_geometric(self):
        c = momentum.autoregression(StalenessLaw.geometric(workers=8), 200)
        assert c[0] == pytest.approx(7 / 8, rel=1e-12)
        assert np.abs(c[1:]).max() < 1e-12


class TestAutoregression:
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.floats(0.5, 3))
    def test_times_q_is_one(self, cells, head):
        q = np.array([head * (1 + sum(cells)), *cells])
        law = StalenessLaw.from_pmf(q / q.sum())
        c = momentum.autoregression(law, 100)
        product = np.convolve(np.append(1.0, -c), law.pmf)[:101]
        assert product[0] == pytest.approx(law.pmf[0])
        assert np.abs(product[1:]).max() < 1e-12

    def test_newton_joins_the_recursion(self):
        law = StalenessLaw.negative_binomial(400, 0.5)
        long = momentum.autoregression(law, 9000)
        assert momentum._reciprocal(law.pmf / law.pmf.sum(), 9001)[0] == pytest.approx(1 / law.pmf[0], rel=1e-9)
        product = np.convolve(np.append(1.0, -long), law.pmf[:9001])[:9001]
        assert np.abs(product[1:]).max() < 1e-13
        tail = np.arange(4000, 9000)  # negative binomial: 1/Q is a binomial series, known term by term
        from scipy.special import gammaln

        ratio, r = 400 / 400.5, 0.5
        exact = r * np.exp(gammaln(tail - r) - gammaln(1 - r) - gammaln(tail + 1) + tail * np.log(ratio))
        assert long[tail - 1] == pytest.approx(exact, rel=1e-6)

    def test_sum_is_one_less_fresh_for_a_momentum(self):
        law = StalenessLaw.mixture([StalenessLaw.geometric(workers=3), StalenessLaw.geometric(workers=10)], [1, 2])
        assert momentum.autoregression(law, 2000).sum() == pytest.approx(1 - law.pmf[0], rel=1e-9)

    def test_no_fresh_gradient_is_refused(self):
        with pytest.raises(ValueError, match="q_0 = 0"):
            momentum.autoregression(StalenessLaw.constant(2))


class TestMomentumOrDelay:
    @pytest.mark.parametrize(
        ("law", "kind"),
        [
            (StalenessLaw.constant(0), "none"),
            (StalenessLaw.geometric(workers=5), "standard momentum"),
            (StalenessLaw.negative_binomial(5, 0.5), "momentum"),
            (
                StalenessLaw.mixture([StalenessLaw.geometric(workers=2), StalenessLaw.geometric(workers=40)], [1, 1]),
                "momentum",
            ),
            (StalenessLaw.negative_binomial(5, 2), "delay"),
            (StalenessLaw.poisson(7), "delay"),
            (StalenessLaw.constant(3), "delay"),
            (StalenessLaw.uniform(0, 5), "delay"),
        ],
        ids=lambda value: value if isinstance(value, str) else value.name,
    )
    def test_known_laws(self, law, kind):
        assert momentum.expected_update(law).kind == kind

    def test_poisson_seven_has_leading_coefficient_seven(self):
        assert momentum.expected_update(StalenessLaw.poisson(7)).leading == pytest.approx(7)

    def test_measured_geometric_stays_a_momentum(self):
        """1 % joint false alarms by design; 40 samples, at most 4 alarms: P(5 or more) is below 1e-4 at 1 %."""
        rng, wrong = np.random.default_rng(2), 0
        for _ in range(40):
            counts = np.bincount(rng.geometric(1 / 6, size=20_000) - 1)
            law = StalenessLaw.from_pmf(counts / counts.sum())
            wrong += momentum.expected_update(law, samples=20_000).kind == "delay"
        assert wrong <= 4

    def test_measured_poisson_is_still_called_a_delay(self):
        counts = np.bincount(np.random.default_rng(3).poisson(3, size=20_000))
        law = StalenessLaw.from_pmf(counts / counts.sum())
        assert momentum.expected_update(law, samples=20_000).kind == "delay"

    def test_first_order_is_the_same_for_every_law_of_one_mean(self):
        found = [
            momentum.implicit_momentum(law)["first_order"]
            for law in (StalenessLaw.constant(7), StalenessLaw.geometric(workers=8), StalenessLaw.poisson(7))
        ]
        assert found == pytest.approx([7 / 8] * 3, rel=1e-9)

    def test_to_dict_is_plain(self):
        import json

        json.dumps(momentum.expected_update(StalenessLaw.poisson(2)).to_dict())


class TestCompensation:
    def test_additive_rule_leaves_mu_mu_s_at_the_second_lag(self):
        rule = compensation.additive_rule(StalenessLaw.geometric(workers=8), 0.5)
        assert rule.momentum == pytest.approx(0.5 - 7 / 8)
        assert rule.lags[:2] == pytest.approx([0.5, 0.375 * 7 / 8])
        assert rule.residual == pytest.approx(0.375 * 7 / 8)

    def test_step_schedule(self):
        law = StalenessLaw.geometric(workers=8)
        schedule = compensation.step_schedule(law, 0.9)  # 0.81 < 7/8: finite
        assert schedule.noise_price == pytest.approx(0.1**2 / (0.125 * (1 - 0.81 / 0.875)), rel=1e-7)
        assert (law.pmf * schedule.factors)[:5] == pytest.approx(0.9 ** np.arange(5))
        assert compensation.step_schedule(law, 0.95).noise_price == np.inf  # 0.9025 > 7/8
        clipped = compensation.step_schedule(law, 0.95, largest=20.0)
        assert clipped.clipped
        assert clipped.residual > 0
        with pytest.raises(ValueError, match="never occurs"):
            compensation.step_schedule(StalenessLaw.constant(3), 0.5)

    def test_server_filter_floor_against_closed_form_and_lifted_recursion(self):
        workers, target, step = 4, 0.5, 0.05
        law, mu_s = StalenessLaw.geometric(workers=workers), 0.75
        found = compensation.server_filter(law, target, step)
        closed = (1 + 2 * mu_s * step / ((1 + target) * (1 - mu_s) ** 2)) / (1 - found.g)
        assert found.floor_factor == pytest.approx(closed, rel=1e-9)
        assert found.gradient_variance == pytest.approx((1 + mu_s**2) / (1 - mu_s) ** 2)
        assert found.exact
        # second moments of (w_t .. w_{t-L}, v, G_{t-1}) with independent staleness, lifted
        cut = StalenessLaw.geometric(workers=2, tail=1e-5).pmf
        law, mu_s = StalenessLaw.from_pmf(cut / cut.sum()), 0.5
        size = law.pmf.size + 2
        total, drive = np.zeros((size**2, size**2)), np.zeros(size)
        drive[-1] = 1.0
        drive[-2] = -step / (1 - mu_s)
        drive[0] = drive[-2]
        for lag, q in enumerate(law.pmf):
            a = np.zeros((size, size))
            a[-1, lag] = 1.0  # G = w_{t - lag}
            a[-2, -2], a[-2, lag], a[-2, -1] = target, -step / (1 - mu_s), step * mu_s / (1 - mu_s)
            a[0] = a[-2]
            a[0, 0] += 1.0
            a[1:-2, : size - 3] = np.eye(size - 3)
            total += q * np.kron(a, a)
        level = np.linalg.solve(np.eye(size**2) - total, np.kron(drive, drive))[0]
        alone = step**2 * (1 + target) / (step * (1 - target) * (2 * (1 + target) - step))
        assert compensation.server_filter(law, target, step, implicit=mu_s).floor_factor == pytest.approx(
            level / alone, rel=1e-8
        )

    def test_largest_useful_workers(self):
        assert momentum.largest_useful_workers(0.8) == pytest.approx(5)
        with pytest.raises(ValueError, match="target"):
            momentum.largest_useful_workers(1.0)


def test_closed_loop_estimator_finds_the_implicit_momentum():
    """40 coordinates started far away, geometric staleness of 4 workers: 3/4 within 0.06, five times the spread of
    0.012 seen over 20 seeds."""
    rng, alpha, updates = np.random.default_rng(8), 0.05, 400
    h = np.geomspace(0.05, 1.0, 400)
    w, g = np.zeros((updates + 1, h.size)), np.zeros((updates + 1, h.size))
    w[0] = rng.normal(size=h.size) * 10
    for t in range(updates):
        g[t] = h * w[t]
        lag = np.minimum(rng.geometric(0.25, size=h.size) - 1, t)
        w[t + 1] = w[t] - alpha * g[t - lag, np.arange(h.size)]
    g[updates] = h * w[updates]
    assert momentum.measured_momentum(w, g, alpha) == pytest.approx(0.75, abs=0.06)
