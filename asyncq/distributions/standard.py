"""Textbook laws of times, parameterised by measurable figures: ``mean`` and ``cv`` where possible."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from pydantic import Field, field_validator, model_validator
from scipy import special

from asyncq.distributions.declaration import broken_rule
from asyncq.distributions.law import Count, FloatArray, Law, Number, PositiveSeconds, Seconds, Variation

__all__ = [
    "Deterministic",
    "Erlang",
    "Exponential",
    "Gamma",
    "Hyperexponential",
    "Lognormal",
    "Pareto",
    "TruncatedNormal",
    "Uniform",
    "Weibull",
]


class Exponential(Law):
    """Memoryless times: P(X > x) = exp(-x / mean). ``mean`` in seconds."""

    law: Literal["exponential"] = "exponential"
    exponential_at_cv_one = True
    mean: PositiveSeconds

    @property
    def cv(self) -> float:
        return 1.0

    def _survival(self, x: FloatArray) -> FloatArray:
        return np.exp(-x / self.mean)

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return self.mean * rng.standard_exponential(size)


class Deterministic(Law):
    """Constant time, ``value`` seconds (0 or more). A bare number or time in place of a law means this law."""

    law: Literal["deterministic"] = "deterministic"
    value: Seconds

    @property
    def mean(self) -> float:
        return self.value

    @property
    def cv(self) -> float:
        return 0.0

    @property
    def lower(self) -> float:
        return self.value

    def _survival(self, x: FloatArray) -> FloatArray:
        return np.zeros_like(x)

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return np.full(size, self.value)


class Uniform(Law):
    """Times uniform between ``low`` and ``high`` (seconds); cv = (high - low) / (sqrt(12) mean)."""

    law: Literal["uniform"] = "uniform"
    low: Seconds
    high: PositiveSeconds

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        if self.high <= self.low:
            raise broken_rule(f"must be above low ({self.low:g})", "swap the two, or give a bare time", "high")
        return self

    @property
    def mean(self) -> float:
        return 0.5 * (self.low + self.high)

    @property
    def cv(self) -> float:
        return (self.high - self.low) / (math.sqrt(12) * self.mean)

    @property
    def lower(self) -> float:
        return self.low

    @property
    def kinks(self) -> FloatArray:
        return np.array([self.low, self.high])

    def _survival(self, x: FloatArray) -> FloatArray:
        return np.clip((self.high - x) / (self.high - self.low), 0.0, 1.0)

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return self.low + (self.high - self.low) * rng.random(size)


class Gamma(Law):
    """Gamma times: shape 1 / cv^2, scale mean cv^2. ``mean`` in seconds; cv 1 is exponential."""

    law: Literal["gamma"] = "gamma"
    exponential_at_cv_one = True
    mean: PositiveSeconds
    cv: Variation

    def _survival(self, x: FloatArray) -> FloatArray:
        return np.asarray(special.gammaincc(self.cv**-2, x / (self.mean * self.cv**2)))

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return self.mean * self.cv**2 * rng.standard_gamma(self.cv**-2, size)


class Erlang(Law):
    """The sum of ``stages`` exponential times, ``mean`` seconds in all; cv = 1 / sqrt(stages)."""

    law: Literal["erlang"] = "erlang"
    exponential_at_cv_one = True
    mean: PositiveSeconds
    stages: Count

    @property
    def cv(self) -> float:
        return 1 / math.sqrt(self.stages)

    def _survival(self, x: FloatArray) -> FloatArray:
        return np.asarray(special.gammaincc(self.stages, x * (self.stages / self.mean)))

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return self.mean / self.stages * rng.standard_gamma(self.stages, size)


class Lognormal(Law):
    """Lognormal times: sigma^2 = log(1 + cv^2), mu = log(mean) - sigma^2 / 2. ``mean`` in seconds."""

    law: Literal["lognormal"] = "lognormal"
    mean: PositiveSeconds
    cv: Variation

    @property
    def _sigma(self) -> float:
        return math.sqrt(math.log1p(self.cv**2))

    def _survival(self, x: FloatArray) -> FloatArray:
        return np.asarray(special.ndtr(-np.log(x / self.mean) / self._sigma - self._sigma / 2))

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return self.mean * np.exp(self._sigma * rng.standard_normal(size) - self._sigma**2 / 2)


class Weibull(Law):
    """Weibull times: P(X > x) = exp(-(x / scale)^shape); the shape is solved from
    1 + cv^2 = Gamma(1 + 2/shape) / Gamma(1 + 1/shape)^2. ``mean`` in seconds; cv 1 is exponential."""

    law: Literal["weibull"] = "weibull"
    exponential_at_cv_one = True
    mean: PositiveSeconds
    cv: Variation

    @property
    def shape(self) -> float:
        """Exponent of the survival function."""
        return 1 / _weibull_inverse_shape(self.cv)

    @property
    def scale(self) -> float:
        """Scale in seconds: the time exceeded with probability exp(-1)."""
        return self.mean * math.exp(-math.lgamma(1 + 1 / self.shape))

    def _survival(self, x: FloatArray) -> FloatArray:
        return np.exp(-((x / self.scale) ** self.shape))

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return self.scale * rng.weibull(self.shape, size)


class Pareto(Law):
    """Pareto (type I) times: P(X > x) = (minimum / x)^shape, minimum = mean (shape - 1) / shape.

    ``mean`` in seconds and either ``shape`` > 1 or ``cv`` (then shape = 1 + sqrt(1 + 1 / cv^2)).
    The variance, and with it ``cv``, is infinite up to shape 2.
    """

    law: Literal["pareto"] = "pareto"
    mean: PositiveSeconds
    given_cv: Variation | None = Field(default=None, alias="cv")
    given_shape: Number | None = Field(default=None, alias="shape")

    @model_validator(mode="after")
    def _one_of_two(self) -> Pareto:
        if (self.given_cv is None) == (self.given_shape is None):
            remedy = "give shape, the exponent of the tail, or cv = sd / mean"
            raise broken_rule("needs exactly one of cv and shape", remedy)
        if self.given_shape is not None and not 1 < self.given_shape <= 1e12:
            raise broken_rule(
                "must be above 1, for the mean is infinite otherwise, and at most 1e12",
                "2.5 is a heavy tail of finite variance",
                "shape",
            )
        return self

    @property
    def shape(self) -> float:
        """The exponent of the tail."""
        if self.given_shape is not None:
            return self.given_shape
        return 1 + math.sqrt(1 + 1 / self.cv**2)

    @property
    def cv(self) -> float:
        if self.given_shape is None:
            return float(self.given_cv or 0)
        return 1 / math.sqrt(self.shape * (self.shape - 2)) if self.shape > 2 else math.inf

    @property
    def lower(self) -> float:
        return self.mean * (self.shape - 1) / self.shape

    def _survival(self, x: FloatArray) -> FloatArray:
        return np.asarray((self.lower / x) ** self.shape)

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return self.lower * (1 - rng.random(size)) ** (-1 / self.shape)


class Hyperexponential(Law):
    """An exponential time of either of two means, each contributing half of the ``mean`` (balanced means); cv > 1.

    The faster is taken with probability (1 + sqrt((cv^2 - 1) / (cv^2 + 1))) / 2 (Whitt 1982).
    """

    law: Literal["hyperexponential"] = "hyperexponential"
    mean: PositiveSeconds
    cv: Variation

    @field_validator("cv")
    @classmethod
    def _above_one(cls, cv: float) -> float:
        if cv <= 1:
            raise broken_rule("must be above 1", "use exponential for cv 1, gamma or erlang below")
        return cv

    @property
    def _fast_and_slow(self) -> FloatArray:
        square = self.cv**2
        root = math.sqrt((square - 1) / (square + 1))
        return np.array([(1 + root) / 2, 1 / ((square + 1) * (1 + root))])

    def _survival(self, x: FloatArray) -> FloatArray:
        fast, slow = self._fast_and_slow
        return np.asarray(fast * np.exp(-2 * fast / self.mean * x) + slow * np.exp(-2 * slow / self.mean * x))

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        fast, slow = self._fast_and_slow
        half_rate = np.where(rng.random(size) < fast, fast, slow)
        return np.asarray(self.mean / 2 / half_rate * rng.standard_exponential(size))


class TruncatedNormal(Law):
    """A normal time, given that it is not negative. ``mean`` (seconds) and ``cv`` are those of the truncated law.

    With b = location / spread of the normal and h = phi(b) / Phi(b): mean = spread (b + h) and
    variance = spread^2 (1 - h (b + h)) (Johnson, Kotz and Balakrishnan 1994, section 13.10). cv is below 0.999: at 1
    the law would be exponential.
    """

    law: Literal["truncated-normal"] = "truncated-normal"
    mean: PositiveSeconds
    cv: Variation

    @field_validator("cv")
    @classmethod
    def _below_one(cls, cv: float) -> float:
        if cv > 0.999:
            raise broken_rule("must be at most 0.999", "use exponential for cv 1, gamma or lognormal above")
        return cv

    @property
    def _normal(self) -> tuple[float, float]:
        """Parameters b and spread of the normal."""
        b = _truncated_normal_ratio(self.cv)
        return b, self.mean / (b + _hazard(b))

    def _survival(self, x: FloatArray) -> FloatArray:
        b, spread = self._normal
        return np.exp(special.log_ndtr(b - x / spread) - special.log_ndtr(b))

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        b, spread = self._normal
        log_tail = np.log1p(-rng.random(size)) + special.log_ndtr(b)
        return np.maximum(spread * (b - special.ndtri_exp(np.minimum(log_tail, -(2.0**-54)))), 0.0)


# -- parameters that are roots of equations ---------------------------------------------------------------------------


def _solve(increasing: Callable[[float], float], low: float, high: float) -> float:
    """The root of an increasing function, by bisection down to the spacing of floats."""
    while low < (middle := 0.5 * (low + high)) < high:
        low, high = (middle, high) if increasing(middle) < 0 else (low, middle)
    return high


@functools.lru_cache(maxsize=1024)
def _weibull_inverse_shape(cv: float) -> float:
    orders = np.arange(2, 30)
    series = special.zeta(orders) * (-1.0) ** orders * (2.0**orders - 2) / orders

    def log_second_moment(u: float) -> float:
        if u < 0.1:  # Taylor series: the difference would cancel
            return float(series @ u**orders)
        return math.lgamma(1 + 2 * u) - 2 * math.lgamma(1 + u)

    target = math.log1p(cv**2)
    return 1.0 if cv == 1 else _solve(lambda u: log_second_moment(u) - target, 1e-7, 100.0)


def _hazard(b: float) -> float:
    """Ratio phi(b) / Phi(b)."""
    return math.sqrt(2 / math.pi) / float(special.erfcx(-b / math.sqrt(2)))


@functools.lru_cache(maxsize=1024)
def _truncated_normal_ratio(cv: float) -> float:
    def excess(b: float) -> float:
        h = _hazard(b)
        return cv**2 * (b + h) ** 2 - (1 - h * (b + h))

    return _solve(excess, -100.0, 2 / cv)
