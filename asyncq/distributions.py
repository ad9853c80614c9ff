"""Laws of a time: how long work, wire and service take.

Every law is a frozen pydantic model with a ``law`` tag, so that its validation, its form in a scenario file and its
JSON schema are one declaration; a new law is one new class. Times are in seconds. ``cv`` is the standard deviation over
the mean. All formulas are closed forms over numpy and scipy.special, except the moments of :class:`Maximum`.
"""

from __future__ import annotations

import csv
import difflib
import functools
import math
import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from scipy import special

__all__ = [
    "LAWS",
    "AnyLaw",
    "Deterministic",
    "Empirical",
    "Erlang",
    "Exponential",
    "Gamma",
    "Hyperexponential",
    "Law",
    "Lognormal",
    "Maximum",
    "Mixture",
    "Number",
    "Pareto",
    "PositiveSeconds",
    "Scaled",
    "Seconds",
    "Shifted",
    "TruncatedNormal",
    "Uniform",
    "Weibull",
    "broken_rule",
    "nearest",
]

FloatArray = NDArray[np.float64]

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*(ns|us|µs|ms|s|min|h|d)\s*")
_SHORTEST, _LONGEST = 1e-15, 1e15


def broken_rule(rule: str, remedy: str, key: str = "") -> PydanticCustomError:
    """The validation error for a broken ``rule``; ``key`` names the culprit below the place where it is raised."""
    return PydanticCustomError("rule", "{rule}; {remedy}", {"rule": rule, "remedy": remedy, "key": key})


def nearest(word: Any, known: Sequence[str]) -> str:
    """``did you mean "gamma"?``, or the list of what is known when nothing is near."""
    close = difflib.get_close_matches(word[:100], known, n=1) if isinstance(word, str) else ()
    return f'did you mean "{close[0]}"?' if close else f"use one of: {', '.join(known)}"


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise broken_rule("must be a number", "write it without quotes")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        if not (match := _DURATION.fullmatch(value)):
            units = ", ".join(_UNITS)
            raise broken_rule("is not a time", f'give seconds as a number, or "250ms" with a unit out of {units}')
        number, unit = float(match[1]), _UNITS[match[2]]
        return number * unit if unit >= 1 else number / round(1 / unit)  # a quotient rounds right: "3us" is 3e-6
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise broken_rule("must be a time", 'give seconds as a number, or a text such as "250ms"')
    return _number(value)


def _positive(value: float) -> float:
    if value <= 0:
        raise broken_rule("must be positive", 'give seconds as a number, or a text such as "250ms"')
    return _bounded(value)


def _bounded(value: float) -> float:
    if value < 0:
        raise broken_rule("must not be negative", 'give seconds as a number, or a text such as "250ms"')
    if value and not _SHORTEST <= value <= _LONGEST:
        raise broken_rule(f"must lie between {_SHORTEST:g} and {_LONGEST:g} seconds", "check the unit")
    return value


def _variation(value: float) -> float:
    if not 1e-6 <= value <= 1000:
        remedy = "give sd / mean; for times that do not vary give a bare time"
        raise broken_rule("must lie between 1e-06 and 1000", remedy)
    return value


Number = Annotated[float, BeforeValidator(_number)]
"""A finite number; neither a bool nor a text."""
Seconds = Annotated[float, BeforeValidator(_seconds), AfterValidator(_bounded)]
"""A time in seconds, 0 or from 1e-15 to 1e15: a number, or a text with a unit such as ``"20ms"`` or ``"2h"``."""
PositiveSeconds = Annotated[float, BeforeValidator(_seconds), AfterValidator(_positive)]
"""As :data:`Seconds`, but not 0."""
Variation = Annotated[float, BeforeValidator(_number), AfterValidator(_variation)]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


class Law(BaseModel):
    """The law of a time in seconds, 0 or more, with a finite mean; the variance may be infinite.

    A law has ``mean`` (seconds), ``cv`` (sd / mean, may be ``inf``), ``variance``, ``lower`` (left end of the
    support), ``cdf``, ``survival``, ``sample``, ``is_constant`` and ``is_exponential``. Two laws are equal if their
    declarations are. Raises ``pydantic.ValidationError`` for parameters out of range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    law: str

    if TYPE_CHECKING:  # a field of some laws, a property of the others

        @property
        def mean(self) -> float: ...
        @property
        def cv(self) -> float: ...

    @property
    def variance(self) -> float:
        """Seconds squared; ``inf`` where it is infinite."""
        return (self.cv * self.mean) ** 2

    @property
    def lower(self) -> float:
        """The left end of the support, in seconds."""
        return 0.0

    @property
    def is_constant(self) -> bool:
        """Whether every time is the same."""
        return self.cv == 0

    @property
    def is_exponential(self) -> bool:
        """Whether the law is memoryless."""
        return self.cv == 1 and isinstance(self, Exponential | Gamma | Erlang | Weibull)

    @property
    def kinks(self) -> FloatArray:
        """The points where the cdf jumps or bends, in seconds: where an integral over it must be split."""
        return np.array([self.lower])

    @abstractmethod
    def _survival(self, x: FloatArray) -> FloatArray:
        """P(X > x) for x >= lower."""

    @abstractmethod
    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        """``size`` independent times in seconds, finite and not negative."""

    def survival(self, x: ArrayLike) -> FloatArray:
        """P(X > x), shape of ``x``, without cancellation in the far tail."""
        points = np.asarray(x, dtype=np.float64)
        with np.errstate(divide="ignore", over="ignore"):
            tail = self._survival(np.maximum(points, self.lower))
        return np.asarray(np.where(points < self.lower, 1.0, tail))

    def cdf(self, x: ArrayLike) -> FloatArray:
        """P(X <= x), shape of ``x``; right-continuous."""
        return np.asarray(1.0 - self.survival(x))

    def __str__(self) -> str:
        given = self.model_dump(by_alias=True, exclude_none=True, exclude={"law"})
        return self._shown(", ".join(f"{key} {_short(key, getattr(self, key))}" for key in given))

    def _shown(self, text: str) -> str:
        return f"{self.law}({text}{', infinite variance' if math.isinf(self.cv) else ''})"


def _short(key: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:g} s" if key in {"mean", "value", "low", "high", "minimum"} else f"{value:g}"


class Exponential(Law):
    """Memoryless times: P(X > x) = exp(-x / mean). ``mean`` in seconds."""

    law: Literal["exponential"] = "exponential"
    mean: PositiveSeconds

    @property
    def cv(self) -> float:
        return 1.0

    def _survival(self, x: FloatArray) -> FloatArray:
        return np.exp(-x / self.mean)

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return self.mean * rng.standard_exponential(size)


class Deterministic(Law):
    """Always ``value`` seconds (0 or more). A bare number or time in place of a law means this."""

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
    """Any time from ``low`` to ``high`` seconds alike; cv = (high - low) / (sqrt(12) mean)."""

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
    mean: PositiveSeconds
    cv: Variation

    def _survival(self, x: FloatArray) -> FloatArray:
        return np.asarray(special.gammaincc(self.cv**-2, x / (self.mean * self.cv**2)))

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return self.mean * self.cv**2 * rng.standard_gamma(self.cv**-2, size)


class Erlang(Law):
    """The sum of ``stages`` exponential times, ``mean`` seconds in all; cv = 1 / sqrt(stages)."""

    law: Literal["erlang"] = "erlang"
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
    """exp of a normal: sigma^2 = log(1 + cv^2), mu = log(mean) - sigma^2 / 2. ``mean`` in seconds."""

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
    """P(X > x) = exp(-(x / scale)^shape); the shape is solved from
    1 + cv^2 = Gamma(1 + 2/shape) / Gamma(1 + 1/shape)^2. ``mean`` in seconds; cv 1 is exponential."""

    law: Literal["weibull"] = "weibull"
    mean: PositiveSeconds
    cv: Variation

    @property
    def shape(self) -> float:
        """The exponent."""
        return 1 / _weibull_inverse_shape(self.cv)

    @property
    def scale(self) -> float:
        """The time that a share exp(-1) of all times exceeds, in seconds."""
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
        """b and the spread."""
        b = _truncated_normal_ratio(self.cv)
        return b, self.mean / (b + _hazard(b))

    def _survival(self, x: FloatArray) -> FloatArray:
        b, spread = self._normal
        return np.exp(special.log_ndtr(b - x / spread) - special.log_ndtr(b))

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        b, spread = self._normal
        log_tail = np.log1p(-rng.random(size)) + special.log_ndtr(b)
        return np.maximum(spread * (b - special.ndtri_exp(np.minimum(log_tail, -(2.0**-54)))), 0.0)


class Empirical(Law):
    """Measured times, each as likely as the next: ``values`` in seconds, or a ``column`` of a CSV ``file``.

    A relative path starts at the folder in the validation context (a scenario's own folder), else at the working
    directory. The file is read once, on validation; its text is UTF-8, its first line names the columns.
    """

    law: Literal["empirical"] = "empirical"
    values: Annotated[tuple[Seconds, ...], Field(min_length=1)] | None = None
    file: str | None = None
    column: str | None = None
    _times: tuple[float, ...] = PrivateAttr(default=())

    @field_validator("file")
    @classmethod
    def _absolute(cls, file: str | None, info: ValidationInfo) -> str | None:
        return file and str((info.context or {}).get("folder", Path()).absolute() / file)

    @model_validator(mode="after")
    def _read(self) -> Empirical:
        if (self.values is None) == (self.file is None):
            raise broken_rule("needs exactly one of values and file", "give values = [...], or file and column")
        if self.file is None and self.column is not None:
            raise broken_rule("goes with file only", "remove it, or give file in place of values", "column")
        times = self.values if self.values is not None else _read_column(self.file or "", self.column)
        if not any(times):
            key = "file" if self.file else "values"
            raise broken_rule("must have a positive mean", "give at least one time above 0", key)
        self._times = tuple(sorted(times))
        return self

    @functools.cached_property
    def times(self) -> FloatArray:
        """The measured times in ascending order, in seconds."""
        return np.array(self._times)

    @property
    def mean(self) -> float:
        return float(self.times.mean())

    @property
    def cv(self) -> float:
        return 0.0 if self._times[0] == self._times[-1] else float(self.times.std()) / self.mean

    @property
    def lower(self) -> float:
        return self._times[0]

    @property
    def kinks(self) -> FloatArray:
        return self.times

    def _survival(self, x: FloatArray) -> FloatArray:
        return 1 - np.searchsorted(self.times, x, side="right") / self.times.size

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return self.times[rng.integers(self.times.size, size=size)]

    def __str__(self) -> str:
        origin = f" from {Path(self.file).name}, column {self.column}" if self.file else ""
        return self._shown(f"{self.times.size} times{origin}, mean {self.mean:.4g} s, cv {self.cv:.3g}")


class Shifted(Law):
    """A ``minimum`` in seconds and, added to it, the law ``plus``."""

    law: Literal["shifted"] = "shifted"
    minimum: Seconds
    plus: AnyLaw

    @property
    def mean(self) -> float:
        return self.minimum + self.plus.mean

    @property
    def cv(self) -> float:
        return self.plus.cv * (self.plus.mean / self.mean) if self.mean else 0.0

    @property
    def lower(self) -> float:
        return self.minimum + self.plus.lower

    @property
    def is_exponential(self) -> bool:
        return self.minimum == 0 and self.plus.is_exponential

    @property
    def kinks(self) -> FloatArray:
        return self.minimum + self.plus.kinks

    def _survival(self, x: FloatArray) -> FloatArray:
        return self.plus.survival(_above(x) - self.minimum)

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return self.minimum + self.plus.sample(rng, size)


class Scaled(Law):
    """``factor`` (a number) times a time of the law ``of``, such as the work on a share of a batch."""

    law: Literal["scaled"] = "scaled"
    factor: Annotated[Number, Field(gt=0, le=1e15)]
    of: AnyLaw

    @model_validator(mode="after")
    def _in_range(self) -> Scaled:
        if self.of.mean and not _SHORTEST <= self.mean <= _LONGEST:
            rule = f"must leave the mean between {_SHORTEST:g} and {_LONGEST:g} seconds"
            raise broken_rule(rule, "the result is the factor times the law's time", "factor")
        return self

    @property
    def mean(self) -> float:
        return self.factor * self.of.mean

    @property
    def cv(self) -> float:
        return self.of.cv

    @property
    def lower(self) -> float:
        return self.factor * self.of.lower

    @property
    def is_exponential(self) -> bool:
        return self.of.is_exponential

    @property
    def kinks(self) -> FloatArray:
        return self.factor * self.of.kinks

    def _survival(self, x: FloatArray) -> FloatArray:
        return self.of.survival(_above(x) / self.factor)

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        return self.factor * self.of.sample(rng, size)


class Mixture(Law):
    """A time of one of the ``laws``, the i-th with probability ``weights[i]``; the weights sum to 1."""

    law: Literal["mixture"] = "mixture"
    weights: Annotated[tuple[Annotated[Number, Field(gt=0, le=1)], ...], Field(min_length=1)]
    laws: Annotated[tuple[AnyLaw, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _matched(self) -> Mixture:
        if len(self.weights) != len(self.laws):
            rule = f"must be as many as the laws ({len(self.weights)} weights, {len(self.laws)} laws)"
            raise broken_rule(rule, "give one weight per law", "weights")
        if abs((total := math.fsum(self.weights)) - 1) > 1e-9:
            raise broken_rule(f"must sum to 1 (they sum to {total:.12g})", "divide each weight by the sum", "weights")
        return self

    @property
    def mean(self) -> float:
        return math.fsum(weight * law.mean for weight, law in zip(self.weights, self.laws, strict=True))

    @property
    def variance(self) -> float:
        mean = self.mean
        return sum(w * (law.variance + (law.mean - mean) ** 2) for w, law in zip(self.weights, self.laws, strict=True))

    @property
    def cv(self) -> float:
        return 0.0 if self.is_constant else math.sqrt(self.variance) / self.mean

    @property
    def lower(self) -> float:
        return min(law.lower for law in self.laws)

    @property
    def is_constant(self) -> bool:
        return all(law.is_constant and law.mean == self.laws[0].mean for law in self.laws)

    @property
    def is_exponential(self) -> bool:
        return all(law.is_exponential and law.mean == self.laws[0].mean for law in self.laws)

    @property
    def kinks(self) -> FloatArray:
        return np.concatenate([law.kinks for law in self.laws])

    def _survival(self, x: FloatArray) -> FloatArray:
        tails = [weight * law.survival(x) for weight, law in zip(self.weights, self.laws, strict=True)]
        return np.asarray(np.sum(tails, axis=0))

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        chosen = np.searchsorted(np.cumsum(self.weights)[:-1], rng.random(size), side="right")
        times = np.empty(size)
        for index, law in enumerate(self.laws):
            mine = chosen == index
            times[mine] = law.sample(rng, int(np.count_nonzero(mine)))
        return times

    def __str__(self) -> str:
        return self._shown(" + ".join(f"{w:g} {law}" for w, law in zip(self.weights, self.laws, strict=True)))


class Maximum(Law):
    """The longest of several independent times: ``count`` of the law ``of``, or one of each of ``laws``.

    ``mean`` and ``cv`` integrate the cdf by Gauss-Legendre panels between its quantiles and kinks, with a power-law
    end (relative error below 1e-8); the variance is infinite if that of any member is.
    """

    law: Literal["maximum"] = "maximum"
    of: AnyLaw | None = None
    count: Count | None = None
    laws: Annotated[tuple[AnyLaw, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Maximum:
        if (self.of is None) == (self.laws is None):
            raise broken_rule("needs exactly one of of and laws", "give of = <law> and count, or laws = [...]")
        if (self.of is None) != (self.count is None):
            raise broken_rule("goes with of, and of with count", "give of = <law> and count, or laws = [...]", "count")
        return self

    @property
    def members(self) -> tuple[Law, ...]:
        """The different laws: one, drawn ``count`` times, or all of ``laws``."""
        return self.laws or (self.of,)  # type: ignore[return-value]

    @functools.cached_property
    def _moments(self) -> tuple[float, float]:
        return _integrate(self)

    @property
    def mean(self) -> float:
        return self.lower if self.is_constant else self._moments[0]

    @property
    def variance(self) -> float:
        return 0.0 if self.is_constant else self._moments[1]

    @property
    def cv(self) -> float:
        if any(math.isinf(law.cv) for law in self.members):
            return math.inf
        return math.sqrt(self.variance) / self.mean if self.mean else 0.0

    @property
    def lower(self) -> float:
        return max(law.lower for law in self.members)

    @property
    def is_constant(self) -> bool:
        return all(law.is_constant for law in self.members)

    @property
    def is_exponential(self) -> bool:
        return len(self.members) == 1 and (self.count or 1) == 1 and self.members[0].is_exponential

    @property
    def kinks(self) -> FloatArray:
        return np.concatenate([law.kinks for law in self.members])

    def _survival(self, x: FloatArray) -> FloatArray:
        logs = sum(np.log1p(-law.survival(x)) for law in self.members)
        return np.asarray(-np.expm1((self.count or 1) * logs))

    def sample(self, rng: np.random.Generator, size: int) -> FloatArray:
        longest = np.zeros(size)
        for law in self.members:
            for _ in range(self.count or 1):
                np.maximum(longest, law.sample(rng, size), out=longest)
        return longest

    def __str__(self) -> str:
        return self._shown(f"{self.count} of {self.of}" if self.laws is None else ", ".join(map(str, self.laws)))


# -- the laws together ------------------------------------------------------------------------------------------------

LAWS: dict[str, type[Law]] = {law.model_fields["law"].default: law for law in Law.__subclasses__()}
"""Every law by its tag."""


def _tagged(value: Any) -> Any:
    if isinstance(value, Law):
        return value
    if isinstance(value, int | float | str):
        return {"law": "deterministic", "value": value}
    example = '{ law = "gamma", mean = "250ms", cv = 0.2 }'
    if not isinstance(value, dict):
        raise broken_rule("must be a time or a law", f'write "250ms" or {example}')
    if "law" not in value:
        raise broken_rule("is missing", f"name the law, as in {example}", "law")
    if value["law"] not in list(LAWS):
        raise broken_rule("is not a known law", nearest(value["law"], list(LAWS)), "law")
    return value


if TYPE_CHECKING:
    AnyLaw = Law
else:
    AnyLaw = Annotated[Union[tuple(LAWS.values())], Field(discriminator="law"), BeforeValidator(_tagged)]  # noqa: UP007

for _law in (Shifted, Scaled, Mixture, Maximum):
    _law.model_rebuild()


# -- numerics and files -----------------------------------------------------------------------------------------------


def _above(x: FloatArray) -> FloatArray:
    """Two floats up, so that undoing a rounded shift or scale lands on an atom, never just below it."""
    return np.nextafter(np.nextafter(x, np.inf), np.inf)


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
        if u < 0.1:  # by its Taylor series, for the difference of the two cancels
            return float(series @ u**orders)
        return math.lgamma(1 + 2 * u) - 2 * math.lgamma(1 + u)

    target = math.log1p(cv**2)
    return 1.0 if cv == 1 else _solve(lambda u: log_second_moment(u) - target, 1e-7, 100.0)


def _hazard(b: float) -> float:
    """phi(b) / Phi(b)."""
    return math.sqrt(2 / math.pi) / float(special.erfcx(-b / math.sqrt(2)))


@functools.lru_cache(maxsize=1024)
def _truncated_normal_ratio(cv: float) -> float:
    def excess(b: float) -> float:
        h = _hazard(b)
        return cv**2 * (b + h) ** 2 - (1 - h * (b + h))

    return _solve(excess, -100.0, 2 / cv)


def _integrate(law: Law) -> tuple[float, float]:
    """Mean and variance from the survival function S: the mean is lower + the integral of S, the variance about the
    mean c is 2 * (the integral of (x - c) S above c + that of (c - x) (1 - S) below)."""
    scale = float(law.kinks.max()) or 1.0
    scale = max(scale, *(member.mean for member in getattr(law, "members", ())))
    left, right = 1 - 10.0 ** -np.arange(12, 0, -0.5), 10.0 ** -np.arange(1, 20, 0.25)
    levels = np.concatenate([left, np.linspace(0.85, 0.15, 15), right, [1e-300]])
    low, high = np.full(levels.size, math.log(scale) - 60), np.full(levels.size, 690.0)
    for _ in range(64):
        middle = 0.5 * (low + high)
        longer = law.survival(np.exp(middle)) > levels
        low, high = np.where(longer, middle, low), np.where(longer, high, middle)
    top = math.exp(high[-1])
    powers = np.exp(np.arange(math.log(scale) - 46, high[-1], math.log(4)))
    edges = np.unique(np.concatenate([law.kinks, np.exp(high), powers]))
    edges = np.unique(np.clip(edges, law.lower, top))
    nodes, weights = np.polynomial.legendre.leggauss(20)

    def panels(edges: FloatArray) -> tuple[FloatArray, FloatArray]:
        half = np.diff(edges)[:, None] / 2
        return edges[:-1, None] + half * (1 + nodes), half * weights

    x, w = panels(edges)
    here, further = law.survival(np.array([top, 2 * top]))
    power = math.log2(here / further) if further > 0 else math.inf
    mean = law.lower + float(np.sum(w * law.survival(x))) + float(top * here) / (power - 1)
    x, w = panels(np.unique(np.append(edges, mean)))
    tail = law.survival(x)
    second = 2 * float(np.sum(w * np.where(x > mean, (x - mean) * tail, (mean - x) * (1 - tail))))
    if power <= 2:
        return mean, math.inf
    return mean, second + 2 * float(top * here) * (top / (power - 2) - mean / (power - 1))


def _read_column(file: str, column: str | None) -> tuple[float, ...]:
    """The times in a column of a CSV file, in seconds; a broken rule for everything that can be wrong with them."""
    times: list[float] = []
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            columns = [name for name in reader.fieldnames or () if name]
            if not columns:
                raise broken_rule("has no header", "the first line must name the columns", "file")
            if column not in columns:
                rule = "is missing" if column is None else f"is not a column of {Path(file).name}"
                near = f"{nearest(column, columns)} " if column and difflib.get_close_matches(column, columns) else ""
                raise broken_rule(rule, f"{near}the columns are: {', '.join(columns)[:200]}", "column")
            for row in reader:
                cell = row[column]
                try:
                    times.append(_bounded(float(cell)))
                except (TypeError, ValueError, PydanticCustomError):
                    times.append(math.nan)
                if not math.isfinite(times[-1]):
                    where = f"line {reader.line_num} of {Path(file).name} has {str(cell)[:40]!r}"
                    rule = f"must hold times in seconds, 0 or more ({where})"
                    raise broken_rule(rule, "correct or remove that line", "column")
    except PydanticCustomError:  # a ValueError, as below, but already told
        raise
    except FileNotFoundError:
        raise broken_rule("does not exist", "a relative path starts at the scenario's folder", "file") from None
    except IsADirectoryError:
        raise broken_rule("is a directory", "name a CSV file", "file") from None
    except UnicodeDecodeError:
        raise broken_rule("is not UTF-8 text", "save it as CSV in UTF-8", "file") from None
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise broken_rule(f"cannot be read as CSV ({reason})", "name a readable CSV file", "file") from None
    if not times:
        raise broken_rule("has no rows below its header", "it must hold at least one time", "file")
    return tuple(times)
