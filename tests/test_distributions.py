"""Every law against scipy.stats, against its own samples, and against its own rules."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy import integrate, stats

from asyncq.distributions import (
    LAWS,
    AnyLaw,
    Deterministic,
    Empirical,
    Erlang,
    Exponential,
    Gamma,
    Hyperexponential,
    Law,
    Lognormal,
    Maximum,
    Mixture,
    Pareto,
    Scaled,
    Shifted,
    TruncatedNormal,
    Uniform,
    Weibull,
)
from asyncq.errors import ScenarioError

ANY_LAW = TypeAdapter(AnyLaw)
BOUNDED = 1e-9


class Oracle:
    """A law assembled from scipy.stats: its cdf, mean and sd."""

    def __init__(self, cdf: Any, mean: float, sd: float) -> None:
        self.cdf, self.mean, self.cv = cdf, mean, sd / mean

    @classmethod
    def of(cls, frozen: Any) -> Oracle:
        return cls(frozen.cdf, float(frozen.mean()), float(frozen.std()))


def _truncated_normal(location: float, spread: float) -> tuple[TruncatedNormal, Oracle]:
    frozen = stats.truncnorm(-location / spread, np.inf, loc=location, scale=spread)
    return TruncatedNormal(mean=frozen.mean(), cv=frozen.std() / frozen.mean()), Oracle.of(frozen)


def _lognormal(mean: float, cv: float) -> Any:
    sigma = math.sqrt(math.log(1 + cv**2))
    return stats.lognorm(sigma, scale=mean * math.exp(-(sigma**2) / 2))


def _weibull(shape: float, scale: float) -> tuple[Weibull, Oracle]:
    frozen = stats.weibull_min(shape, scale=scale)
    return Weibull(mean=frozen.mean(), cv=frozen.std() / frozen.mean()), Oracle.of(frozen)


def _mixture(weights: list[float], parts: list[Any]) -> Oracle:
    mean = sum(w * part.mean() for w, part in zip(weights, parts, strict=True))
    second = sum(w * (part.var() + part.mean() ** 2) for w, part in zip(weights, parts, strict=True))
    cdf = lambda x: sum(w * part.cdf(x) for w, part in zip(weights, parts, strict=True))  # noqa: E731
    return Oracle(cdf, mean, math.sqrt(second - mean**2))


def _hyperexponential(mean: float, p: float) -> tuple[Hyperexponential, Oracle]:
    oracle = _mixture([p, 1 - p], [stats.expon(scale=mean / (2 * p)), stats.expon(scale=mean / (2 * (1 - p)))])
    return Hyperexponential(mean=mean, cv=oracle.cv), oracle


def _maximum(frozen: list[Any]) -> Oracle:
    def cdf(x: Any) -> Any:
        return np.prod([part.cdf(x) for part in frozen], axis=0)

    end = max(part.ppf(1 - 1e-14) for part in frozen)
    points = [float(part.ppf(q)) for part in frozen for q in (0.0, 0.5, 0.99)]
    mean = integrate.quad(lambda x: 1 - cdf(x), 0, end, points=points, limit=500, epsabs=1e-12)[0]
    second = integrate.quad(lambda x: 2 * x * (1 - cdf(x)), 0, end, points=points, limit=500, epsabs=1e-12)[0]
    return Oracle(cdf, mean, math.sqrt(second - mean**2))


MEASURED = [0.3, 1.0, 1.0, 2.5, 0.0]
ECDF = stats.ecdf(MEASURED).cdf
PAIRS: dict[str, tuple[Law, Oracle]] = {
    "exponential": (Exponential(mean=0.25), Oracle.of(stats.expon(scale=0.25))),
    "deterministic": (Deterministic(value=2), Oracle.of(stats.rv_discrete(values=([2], [1.0]))())),
    "uniform": (Uniform(low=1, high=3), Oracle.of(stats.uniform(1, 2))),
    "gamma": (Gamma(mean=0.25, cv=0.2), Oracle.of(stats.gamma(25, scale=0.01))),
    "gamma, cv 2": (Gamma(mean=3, cv=2), Oracle.of(stats.gamma(0.25, scale=12))),
    "erlang": (Erlang(mean=2, stages=4), Oracle.of(stats.erlang(4, scale=0.5))),
    "lognormal": (Lognormal(mean=60, cv=1.3), Oracle.of(_lognormal(60, 1.3))),
    "weibull": _weibull(2.5, 0.7),
    "weibull, cv above 1": _weibull(0.6, 2.0),
    "weibull, cv 0.02": _weibull(64.0, 1.0),
    "pareto, shape": (Pareto(mean=2, shape=2.5), Oracle.of(stats.pareto(2.5, scale=1.2))),
    "pareto, infinite variance": (Pareto(mean=3, shape=1.5), Oracle.of(stats.pareto(1.5, scale=1.0))),
    "pareto, cv": (
        Pareto(mean=1, cv=1 / math.sqrt(8)),
        Oracle.of(stats.pareto(4, scale=0.75)),
    ),
    "hyperexponential": _hyperexponential(2.0, 0.9),
    "truncated-normal": _truncated_normal(1.0, 0.6),
    "truncated-normal, far": _truncated_normal(10.0, 1.0),
    "truncated-normal, negative": _truncated_normal(-3.0, 1.0),
    "empirical": (Empirical(values=MEASURED), Oracle(ECDF.evaluate, float(np.mean(MEASURED)), float(np.std(MEASURED)))),
    "shifted": (Shifted(minimum=1, plus=Gamma(mean=2, cv=0.5)), Oracle.of(stats.gamma(4, loc=1, scale=0.5))),
    "scaled": (Scaled(factor=0.25, of=Gamma(mean=2, cv=0.5)), Oracle.of(stats.gamma(4, scale=0.125))),
    "mixture": (
        Mixture(weights=[0.9, 0.1], laws=[Exponential(mean=1), Uniform(low=5, high=7)]),
        _mixture([0.9, 0.1], [stats.expon(), stats.uniform(5, 2)]),
    ),
    "maximum": (Maximum(of=Gamma(mean=2, cv=0.5), count=8), _maximum([stats.gamma(4, scale=0.5)] * 8)),
    "maximum, different": (
        Maximum(laws=[Exponential(mean=1), Uniform(low=0.5, high=2), Lognormal(mean=1, cv=0.3)]),
        _maximum([stats.expon(), stats.uniform(0.5, 1.5), _lognormal(1, 0.3)]),
    ),
}
EVERY_LAW = pytest.mark.parametrize(("law", "oracle"), PAIRS.values(), ids=PAIRS.keys())


def test_every_law_has_an_oracle() -> None:
    assert {law.law for law, _ in PAIRS.values()} == set(LAWS)


@EVERY_LAW
def test_agrees_with_scipy(law: Law, oracle: Oracle) -> None:
    x = np.concatenate([[-1.0, 0.0, law.lower], oracle.mean * np.geomspace(1e-6, 1e3, 400)])
    np.testing.assert_allclose(law.cdf(x), oracle.cdf(x), rtol=0, atol=BOUNDED)
    np.testing.assert_allclose(law.survival(x), 1 - law.cdf(x), rtol=0, atol=1e-12)
    assert law.mean == pytest.approx(oracle.mean, rel=BOUNDED)
    assert law.cv == pytest.approx(oracle.cv, rel=1e-8)
    assert law.variance == pytest.approx((oracle.cv * oracle.mean) ** 2, rel=1e-7)


@EVERY_LAW
def test_samples_follow_the_law(law: Law, oracle: Oracle) -> None:
    """Mean within 5 standard errors (false alarm 6e-7 a law); Kolmogorov-Smirnov at 1e-3 in all, Bonferroni over the
    laws (conservative where the law has atoms)."""
    size = 20_000
    times = law.sample(np.random.default_rng(20_240_601), size)
    assert times.dtype == np.float64
    assert times.shape == (size,)
    assert np.all(np.isfinite(times))
    assert times.min() >= law.lower >= 0
    if math.isfinite(law.variance):
        assert abs(times.mean() - law.mean) <= 5 * law.cv * law.mean / math.sqrt(size) + 1e-12
        fourth = np.mean((times - times.mean()) ** 4)
        error = math.sqrt(max(fourth - law.variance**2, 0.0) / size)
        heavy = law.law == "pareto" and getattr(law, "shape", 9) <= 4  # the fourth moment is infinite
        assert heavy or abs(times.var() - law.variance) <= 5 * error + 1e-12
    ordered = np.unique(times)
    share = np.searchsorted(np.sort(times), ordered, side="right") / size
    before = np.searchsorted(np.sort(times), ordered, side="left") / size
    left_limit = law.cdf(ordered - 1e-12 * (1 + ordered))
    distance = max(np.max(np.abs(share - law.cdf(ordered))), np.max(np.abs(before - left_limit)))
    assert stats.kstwo.sf(distance, size) > 1e-3 / len(PAIRS)


@EVERY_LAW
def test_samples_come_in_blocks(law: Law, oracle: Oracle) -> None:
    same = [law.sample(np.random.default_rng(3), 100) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert law.sample(np.random.default_rng(3), 0).shape == (0,)


@EVERY_LAW
def test_round_trips_through_a_dict_and_has_a_short_form(law: Law, oracle: Oracle) -> None:
    again = ANY_LAW.validate_python(law.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert again == law
    assert hash(again) == hash(law)
    assert str(law).startswith(f"{law.law}(")
    assert ("infinite variance" in str(law)) == math.isinf(law.cv)


def test_the_short_form() -> None:
    assert str(Gamma(mean="250ms", cv=0.2)) == "gamma(mean 0.25 s, cv 0.2)"
    assert str(Pareto(mean=1, shape=1.5)) == "pareto(mean 1 s, shape 1.5, infinite variance)"


def test_which_laws_are_memoryless_and_which_constant() -> None:
    for law in (Exponential(mean=2), Gamma(mean=2, cv=1), Weibull(mean=2, cv=1), Erlang(mean=2, stages=1)):
        assert law.is_exponential
        assert Scaled(factor=3, of=law).is_exponential
        assert Maximum(of=law, count=1).is_exponential
        assert not Maximum(of=law, count=2).is_exponential
        assert not Shifted(minimum=1, plus=law).is_exponential
        assert not law.is_constant
        np.testing.assert_allclose(law.cdf([0.5, 3]), Exponential(mean=2).cdf([0.5, 3]), atol=1e-12)
    for law in (Deterministic(value=2), Empirical(values=[2, 2]), Mixture(weights=[0.3, 0.7], laws=[0.1, 0.1])):
        assert law.is_constant
        assert Shifted(minimum=1, plus=law).is_constant
        assert Scaled(factor=2, of=law).is_constant
        assert Maximum(laws=[law, 1]).is_constant
        assert law.cv == 0
        assert not law.is_exponential


def test_maximum_of_exponentials_is_a_harmonic_number() -> None:
    for count in (1, 2, 32, 1000):
        law = Maximum(of=Exponential(mean=2), count=count)
        assert law.mean == pytest.approx(2 * sum(1 / i for i in range(1, count + 1)), rel=1e-12)
        assert law.variance == pytest.approx(4 * sum(1 / i**2 for i in range(1, count + 1)), rel=1e-11)


@pytest.mark.parametrize("shape", [1.01, 1.1, 1.5, 3.0, 30.0])
def test_maximum_of_paretos_keeps_its_tail(shape: float) -> None:
    """E max of k = minimum k! Gamma(1 - 1/shape) / Gamma(k + 1 - 1/shape): the tail beyond any cut counts."""
    k, one = 5, Pareto(mean=1, shape=shape)
    exact = one.lower * math.gamma(k + 1) * math.gamma(1 - 1 / shape) / math.gamma(k + 1 - 1 / shape)
    law = Maximum(of=one, count=k)
    assert law.mean == pytest.approx(exact, rel=1e-10)
    assert math.isinf(law.cv) == (shape <= 2)


def test_maximum_of_measured_times_is_exact() -> None:
    times = np.sort(np.random.default_rng(1).gamma(4.0, size=500))
    law = Maximum(laws=[Empirical(values=times), Empirical(values=times), Deterministic(value=2)])
    mass = np.diff((np.arange(501) / 500) ** 2)
    floored = np.maximum(times, 2)
    assert law.mean == pytest.approx(mass @ floored, rel=1e-13)
    assert law.variance == pytest.approx(mass @ (floored - law.mean) ** 2, rel=1e-11)


@pytest.mark.parametrize("mean", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("cv", [1e-6, 1e-3, 0.999, 1.001, 50.0, 1000.0])
@pytest.mark.parametrize("family", [Gamma, Lognormal, Weibull, Pareto, Hyperexponential, TruncatedNormal])
def test_extremes_work_or_are_refused(family: type[Law], mean: float, cv: float) -> None:
    if (family is Hyperexponential and cv <= 1) or (family is TruncatedNormal and cv > 0.999):
        with pytest.raises(ScenarioError, match="must be"):
            family(mean=mean, cv=cv)
        return
    law = family(mean=mean, cv=cv)
    times = law.sample(np.random.default_rng(5), 5000)
    assert np.all(np.isfinite(times))
    assert times.min() >= law.lower
    whole = law.cdf([-1.0, 0.0, law.lower, *np.sort(times)[::50], 1e300, np.inf])
    assert np.all(np.diff(whole) >= -1e-12)
    assert whole[0] == 0
    assert whole[-1] == 1
    one = Maximum(of=law, count=1)  # the quadrature recovers mean and cv
    assert one.mean == pytest.approx(mean, rel=1e-9)
    assert one.cv == pytest.approx(cv, rel=1e-5 if (family, cv) == (Gamma, 1e-6) else 1e-7)


CV = st.floats(0.05, 3)
MEAN = st.floats(1e-4, 1e4)
SIMPLE = st.one_of(
    st.builds(Exponential, mean=MEAN),
    st.builds(Deterministic, value=MEAN),
    st.builds(lambda low, width: Uniform(low=low, high=low + width), st.floats(0.001, 10), st.floats(0.01, 10)),
    st.builds(Gamma, mean=MEAN, cv=CV),
    st.builds(Erlang, mean=MEAN, stages=st.integers(1, 50)),
    st.builds(Lognormal, mean=MEAN, cv=CV),
    st.builds(Weibull, mean=MEAN, cv=CV),
    st.builds(Pareto, mean=MEAN, shape=st.floats(1.2, 10)),
    st.builds(Hyperexponential, mean=MEAN, cv=st.floats(1.01, 5)),
    st.builds(TruncatedNormal, mean=MEAN, cv=st.floats(0.01, 0.99)),
    st.builds(Empirical, values=st.lists(st.floats(0.1, 100), min_size=1, max_size=20)),
)
ANY = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.builds(Shifted, minimum=st.floats(0.001, 10), plus=inner),
        st.builds(Scaled, factor=st.floats(0.01, 100), of=inner),
        st.builds(lambda a, b, w: Mixture(weights=[w, 1 - w], laws=[a, b]), inner, inner, st.floats(0.01, 0.99)),
        st.builds(Maximum, of=inner, count=st.integers(1, 20)),
        st.builds(lambda a, b: Maximum(laws=[a, b]), inner, inner),
    ),
    max_leaves=3,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(law=ANY, seed=st.integers(0, 2**32 - 1))
def test_every_law_obeys_the_rules_of_laws(law: Law, seed: int) -> None:
    times = law.sample(np.random.default_rng(seed), 200)
    assert np.all(np.isfinite(times))
    assert times.min() >= law.lower
    grid = np.sort(np.concatenate([times, law.mean * np.geomspace(1e-3, 1e3, 100)]))
    shares = law.cdf(grid)
    assert np.all(np.diff(shares) >= -1e-12)
    assert shares.min() >= 0
    assert shares.max() <= 1
    assert float(law.cdf(law.lower - 1e-9 * (1 + law.lower))) == 0
    assert law.cdf(times).min() > 0 or not law.is_constant
    again = ANY_LAW.validate_json(law.model_dump_json(by_alias=True, exclude_none=True))
    assert again == law


@settings(max_examples=40, deadline=None, derandomize=True)
@given(law=SIMPLE)
def test_the_mean_is_the_integral_of_the_survival_function(law: Law) -> None:
    edges = np.unique(np.concatenate([[0.0], law.kinks, law.mean * np.geomspace(1e-8, 1e12, 2001)]))
    nodes, weights = np.polynomial.legendre.leggauss(12)
    half = np.diff(edges)[:, None] / 2
    integral = np.sum(half * weights * law.survival(edges[:-1, None] + half * (1 + nodes)))
    assert integral == pytest.approx(law.mean, rel=0.01 if isinstance(law, Pareto) else 1e-7)


# -- refusals ---------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[Any, str]] = [
    ({"law": "gamma", "mean": 0, "cv": 1}, "must be positive"),
    ({"law": "gamma", "mean": 1e-300, "cv": 1}, "must lie between 1e-15 and 1e\\+15"),
    ({"law": "gamma", "mean": 1e300, "cv": 1}, "must lie between 1e-15 and 1e\\+15"),
    ({"law": "gamma", "mean": 1, "cv": 0}, "must lie between 1e-06 and 1000"),
    ({"law": "gamma", "mean": math.nan, "cv": 1}, "finite"),
    ({"law": "gamma", "mean": "infs", "cv": 1}, "is not a time"),
    ({"law": "gamma", "mean": "20", "cv": 1}, "is not a time"),
    ({"law": "gamma", "mean": True, "cv": 1}, "must be a time"),
    ({"law": "gamma", "mean": 10**400, "cv": 1}, "finite"),
    ({"law": "gamma", "mean": 1, "cv": "0.5"}, "must be a number"),
    ({"law": "gamma", "mean": 1, "cv": True}, "must be a number"),
    ({"law": "uniform", "low": 2, "high": 2}, "must be above low"),
    ({"law": "uniform", "low": -1, "high": 2}, "must not be negative"),
    ({"law": "erlang", "mean": 1, "stages": 1.5}, "valid integer"),
    ({"law": "hyperexponential", "mean": 1, "cv": 1}, "must be above 1"),
    ({"law": "truncated-normal", "mean": 1, "cv": 1}, "must be at most 0.999"),
    ({"law": "pareto", "mean": 1, "shape": 1}, "the mean is infinite"),
    ({"law": "pareto", "mean": 1}, "exactly one of cv and shape"),
    ({"law": "pareto", "mean": 1, "shape": 2, "cv": 1}, "exactly one of cv and shape"),
    ({"law": "mixture", "weights": [0.5, 0.4], "laws": [1, 2]}, "sum to 1 \\(they sum to 0.9\\)"),
    ({"law": "mixture", "weights": [1], "laws": [1, 2]}, "1 weights, 2 laws"),
    ({"law": "maximum", "of": 1}, "of with count"),
    ({"law": "maximum", "laws": [1], "count": 2}, "of with count"),
    ({"law": "maximum"}, "exactly one of of and laws"),
    ({"law": "maximum", "laws": [1], "of": 1, "count": 2}, "exactly one of of and laws"),
    ({"law": "scaled", "factor": 1e15, "of": "1d"}, "must leave the mean"),
    ({"law": "empirical", "values": []}, "at least 1 item"),
    ({"law": "empirical", "values": [0, 0]}, "positive mean"),
    ({"law": "empirical", "values": [1, -1]}, "must not be negative"),
    ({"law": "empirical"}, "exactly one of values and file"),
    ({"law": "empirical", "values": [1], "column": "x"}, "goes with file only"),
    ({"law": "gama", "mean": 1}, 'did you mean "gamma"'),
    ({"mean": 1}, "name the law"),
    ([1], "must be a time or a law"),
    (False, "must be a time"),
]


@pytest.mark.parametrize(("value", "rule"), REFUSED)
def test_refusals_state_the_rule(value: Any, rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        ANY_LAW.validate_python(value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20ms", 0.02), ("1.5s", 1.5), ("2h", 7200), ("10min", 600), ("3us", 3e-6), ("5ns", 5e-9), ("1d", 86400)],
)
def test_times_may_carry_a_unit(text: str, seconds: float) -> None:
    assert ANY_LAW.validate_python(text) == Deterministic(value=seconds)
    assert ANY_LAW.validate_python(seconds).mean == seconds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "times.csv").write_text("step,seconds,text\n1,0.5,a\n2,1.5,b\n\n3,0,c\n", encoding="utf-8-sig")
    (tmp_path / "holes.csv").write_text("seconds\n1\n-2\n")
    (tmp_path / "nan.csv").write_text("seconds\n1\nnan\n")
    (tmp_path / "none.csv").write_text("seconds\n")
    (tmp_path / "zeros.csv").write_text("seconds\n0\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "latin.csv").write_bytes(b"seconds\n\xff\xfe\n")
    (tmp_path / "short.csv").write_text("a,seconds\n1,2\n1\n")
    return tmp_path


def test_measured_times_come_from_a_file_beside_the_scenario(folder: Path) -> None:
    law = ANY_LAW.validate_python(
        {"law": "empirical", "file": "times.csv", "column": "seconds"}, context={"folder": folder}
    )
    np.testing.assert_array_equal(law.times, [0, 0.5, 1.5])
    assert "3 times from times.csv, column seconds" in str(law)
    assert ANY_LAW.validate_python(law.model_dump(exclude_none=True)) == law  # the path has become absolute


@pytest.mark.parametrize(
    ("file", "column", "rule"),
    [
        ("nowhere.csv", "seconds", "does not exist"),
        (".", "seconds", "is a directory"),
        ("latin.csv", "seconds", "is not UTF-8"),
        ("times.csv", "secnds", 'did you mean "seconds"\\? the columns are: step, seconds, text'),
        ("times.csv", None, "the columns are: step, seconds, text"),
        ("times.csv", "text", "line 2 of times.csv has 'a'"),
        ("holes.csv", "seconds", "line 3 of holes.csv has '-2'"),
        ("nan.csv", "seconds", "line 3 of nan.csv has 'nan'"),
        ("short.csv", "seconds", "line 3 of short.csv"),
        ("none.csv", "seconds", "no rows"),
        ("empty.csv", "seconds", "no header"),
        ("zeros.csv", "seconds", "positive mean"),
        ("a\0b.csv", "seconds", "cannot be read"),
    ],
)
def test_bad_files_are_refused(folder: Path, file: str, column: str | None, rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        ANY_LAW.validate_python({"law": "empirical", "file": file, "column": column}, context={"folder": folder})


def test_the_json_schema_knows_every_law_and_bare_times() -> None:
    number, text, laws = ANY_LAW.json_schema()["anyOf"]
    assert (number["type"], text["type"]) == ("number", "string")
    assert set(laws["discriminator"]["mapping"]) == set(LAWS)
    assert set(ANY_LAW.json_schema(mode="serialization")["discriminator"]["mapping"]) == set(LAWS)


# -- equality ---------------------------------------------------------------------------------------------------------


def test_laws_are_equal_when_their_declarations_are(folder: Path) -> None:
    def declared() -> Law:
        table = {"law": "empirical", "file": "times.csv", "column": "seconds"}
        measured = ANY_LAW.validate_python(table, context={"folder": folder})
        return Shifted(minimum=1, plus=Scaled(factor=2, of=Maximum(laws=[measured, Empirical(values=[1, 1, 2])])))

    used, fresh = declared(), declared()
    assert used.mean > 0  # whatever has been computed from a law and kept is no part of its declaration
    assert used == fresh
    assert hash(used) == hash(fresh)
    assert len({used, fresh}) == 1


def test_laws_of_different_declarations_differ() -> None:
    different = [
        Exponential(mean=1),
        Exponential(mean=2),
        Gamma(mean=1, cv=1),
        Weibull(mean=1, cv=1),
        Pareto(mean=1, shape=3),
        Pareto(mean=1, cv=3),
        Empirical(values=[1, 2]),
        Empirical(values=[2, 1]),
        Scaled(factor=1, of=Empirical(values=[1, 2])),
        Maximum(of=Exponential(mean=1), count=1),
        Maximum(laws=[Exponential(mean=1)]),
    ]
    assert len(set(different)) == len(different)
    assert all((a == b) == (a is b) for a in different for b in different)
    assert Exponential(mean=1) != 1
