"""The characteristic function P(x) = A(x) + k B(x) of an update with stale gradients, followed along circles.

x = 1/z is one update of delay, k the step that reaches the gradient, times the curvature:

===========  =============================  ==========  =====================  =========================
variant      A                              B           k                      source
===========  =============================  ==========  =====================  =========================
heavy-ball   (1 - x)(1 - mu x)              x Q(x)      alpha h                [AbM] eq. 3
dampened     (1 - x)(1 - mu x)              x Q(x)      alpha h (1 - mu)       [Edge] eqs. 9, 26
shifted      (1 - x)(1 - mu x Q(x))         x Q(x)      alpha h (1 - mu)       [Edge] eqs. 10, 11
===========  =============================  ==========  =====================  =========================

The update is stable in expectation iff P has no zero in |x| <= 1; it contracts faster than r^-t iff none in |x| <= r.
Source: theory.md section 5, cares (a) to (e).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asyncq.errors import AsyncqError
from asyncq.staleness import StalenessLaw
from asyncq.theory.bracketing import bracketed_root

__all__ = ["Characteristic", "Circle", "Crossing", "Curve", "Series", "Variant", "winding_of_series"]

Variant = Literal["heavy-ball", "dampened", "shifted"]
Complex = NDArray[np.complex128]
Real = NDArray[np.float64]

MOST_POINTS = 1 << 25  # 32 million points: some two gigabytes of work space
LOST_MEAN = 1e-3  # a cut tail that may hold more than this share of the mean is refused


@dataclass(frozen=True)
class Crossing:
    """A root on the circle: at ``angle``, for the step ``k``; ``entering`` as k grows (then it destabilises)."""

    k: float
    angle: float
    roots: int
    entering: bool


class Series:
    """sum c_l x^l and its derivative at any point: one product of a table with sqrt(L) powers, accurate to rounding."""

    def __init__(self, cells: Real) -> None:
        self.index = np.flatnonzero(cells)
        self.sparse = self.index.size <= 64
        if self.sparse:
            self.cells = cells[self.index]
        else:
            self.width = int(np.sqrt(cells.size)) + 1
            self.cells = np.append(cells, np.zeros(-cells.size % self.width)).reshape(-1, self.width)
            self.low = np.arange(self.width)
            self.high = self.width * np.arange(self.cells.shape[0])

    def __call__(self, log: complex) -> tuple[complex, complex]:
        """(value, x times the derivative) at x = exp(log)."""
        with np.errstate(all="ignore"):
            if self.sparse:
                terms = self.cells * np.exp(self.index * log)
                return complex(terms.sum()), complex(terms @ self.index)
            low, high = np.exp(self.low * log), np.exp(self.high * log)
            columns = np.stack([low.real, low.imag, self.low * low.real, self.low * low.imag], axis=1)
            rows = self.cells @ columns
            inner, slope = rows[:, 0] + 1j * rows[:, 1], rows[:, 2] + 1j * rows[:, 3]
            return complex(inner @ high), complex(slope @ high + (self.high * inner) @ high)


class Circle:
    """Q on the half circle x = radius exp(-i theta), 0 <= theta <= pi, at ``points`` // 2 + 1 equal steps."""

    def __init__(self, pmf: Real, series: Series, points: int, radius: float) -> None:
        from scipy.fft import rfft

        self.series, self.radius, self.points = series, radius, points
        self.step = 2.0 * np.pi / points
        self.theta = self.step * np.arange(points // 2 + 1)
        with np.errstate(over="ignore"):
            cells = pmf if radius == 1.0 else pmf * np.exp(np.arange(pmf.size) * np.log(radius))
        self.q: Complex = rfft(cells, points)
        self.x, self.one_minus_x = self._delay(self.theta)

    def _delay(self, theta: Real) -> tuple[Complex, Complex]:
        """x and 1 - x, the latter without cancellation near theta = 0 on the unit circle."""
        half = np.sin(theta / 2)
        chord = 2 * half * (half + 1j * np.cos(theta / 2))
        return self.radius * (1.0 - chord), (1.0 - self.radius) + self.radius * chord

    def mean(self, values: Real) -> float:
        """The mean over the whole circle of an even function given on the half circle (trapezoid rule)."""
        return float((2.0 * values.sum() - values[0] - values[-1]) / self.points)

    def at(self, theta: Real) -> tuple[Complex, Complex, Complex]:
        """x, 1 - x and Q at any angles."""
        x, one_minus_x = self._delay(theta)
        logs = np.log(self.radius) - 1j * theta
        return x, one_minus_x, np.array([self.series(log)[0] for log in logs])


class Curve:
    """A and B along one circle, for one momentum and variant."""

    def __init__(self, circle: Circle, momentum: float, shifted: bool) -> None:
        self.circle, self.momentum, self.shifted = circle, momentum, shifted
        self.a, self.b = self._parts(circle.x, circle.one_minus_x, circle.q)

    def _parts(self, x: Complex, one_minus_x: Complex, q: Complex) -> tuple[Complex, Complex]:
        b = x * q
        if self.momentum == 0.0:
            return one_minus_x, b
        return one_minus_x * (1.0 - self.momentum * (b if self.shifted else x)), b

    def at(self, theta: Real) -> tuple[Complex, Complex]:
        """A and B at any angles."""
        return self._parts(*self.circle.at(theta))

    @cached_property
    def sine(self) -> Real:
        """Im(-A conj B): zero exactly where -A/B is real, or B = 0."""
        product: Real = self.a.real * self.b.imag - self.a.imag * self.b.real
        product[0] = product[-1] = 0.0
        return product

    def _ratio(self, theta: float) -> float:
        a, b = self.at(np.array([theta]))
        size = float(np.abs(b[0]) ** 2)
        return float(-(a[0] * np.conj(b[0])).real / size) if size > 0 else np.inf

    def _sine_at(self, theta: float) -> float:
        a, b = self.at(np.array([theta]))
        return float(-(a[0] * np.conj(b[0])).imag)

    def crossings(self, most: int = 1) -> list[Crossing]:
        """The ``most`` smallest positive k at which a root lies on this circle, in order; polished to rounding."""
        found: list[Crossing] = []
        # (a) the real points, where the sine has no sign change: by hand; theta = 0 on the unit circle is k = 0
        for end, inside in ((0, 1), (-1, -2)):
            if end == 0 and self.circle.radius == 1.0:
                continue
            a, b = float(self.a[end].real), float(self.b[end].real)
            if b != 0 and -a / b > 0:
                slope = self.sine[inside] if end == 0 else -self.sine[inside]
                found.append(Crossing(-a / b, float(self.circle.theta[end]), 1, bool(slope > 0)))
        sine, theta = self.sine, self.circle.theta
        least = self._least()

        def enough(low: float) -> bool:
            found.sort(key=lambda crossing: crossing.k)
            return len(found) >= most and low > found[most - 1].k

        # (b) sign changes of the sine, the cells that can hold the smallest values first
        side = sine >= 0  # an exact zero on the grid belongs to one side, so that it is never missed
        change = np.flatnonzero(side[1:-2] != side[2:-1]) + 1
        for cell in change[np.argsort(least[change])]:
            if enough(least[cell]):
                break
            self._polish(float(theta[cell]), float(theta[cell + 1]), bool(side[cell + 1]), found)
        # (d) dips of |sine| towards zero that a parabola cannot clear hide tangent pairs inside one cell
        lift = sine[:-2] - 2 * sine[1:-1] + sine[2:]
        sign = np.sign(sine[1:-1])
        dip = (sign * (sine[:-2] - sine[1:-1]) >= 0) & (sign * (sine[2:] - sine[1:-1]) >= 0)
        near = np.flatnonzero(dip & (np.abs(sine[1:-1]) <= np.abs(lift))) + 1
        doubtful = np.setdiff1d(np.union1d(near - 1, near), change)
        if self.circle.radius == 1.0 and sine[1] > 0:
            doubtful = np.union1d(doubtful, [0])
        for cell in doubtful[np.argsort(least[doubtful])]:
            if enough(least[cell]):
                break
            step = self.circle.step / 34
            a, b = self._parts(*self.circle.at(theta[cell] + step * np.arange(1, 34)))
            fine, inner = theta[cell] + step * np.arange(1, 34), -(a * np.conj(b)).imag
            for i in np.flatnonzero((inner[:-1] >= 0) != (inner[1:] >= 0)):
                self._polish(float(fine[i]), float(fine[i + 1]), bool(inner[i + 1] >= 0), found)
        return sorted(found, key=lambda crossing: crossing.k)[:most]

    def _least(self) -> Real:
        """What abs(A / B), the size of any real value of -A/B, is at least in each cell, with a third in hand."""
        top = self.a.real**2 + self.a.imag**2
        bottom = self.b.real**2 + self.b.imag**2
        with np.errstate(divide="ignore"):
            square = np.minimum(top[:-1], top[1:]) / np.maximum(bottom[:-1], bottom[1:])
        return np.asarray(0.65 * np.sqrt(square))

    def _polish(self, left: float, right: float, rising: bool, found: list[Crossing]) -> None:
        s0, s1 = self._sine_at(left), self._sine_at(right)
        if s0 * s1 <= 0:
            angle = bracketed_root(self._sine_at, left, right, rtol=1e-15)
        else:
            angle = left if abs(s0) < abs(s1) else right
        k = self._ratio(angle)
        if 0 < k < np.inf:
            found.append(Crossing(k, angle, 2, rising))

    def winding(self, k: float) -> int:
        """The number of zeros of P inside the circle, by its winding number; cells in which the path passes close
        to the origin are refined until the count is certain."""

        def along(theta: Real) -> Complex:
            a, b = self.at(theta)
            return a + k * b

        return _winding(self.circle, self.a + k * self.b, along)

    def winding_of_a(self) -> int:
        """The number of zeros of A inside the circle, not counting x = 1 on it: what is unstable at k = 0+."""
        if not self.shifted:
            return int(self.circle.radius > 1) + int(abs(self.momentum) * self.circle.radius > 1)
        inner = _winding(self.circle, 1.0 - self.momentum * self.b, lambda theta: 1.0 - self.momentum * self.at(theta)[1])
        return int(self.circle.radius > 1) + inner


def winding_of_series(cells: Real) -> int:
    """The number of zeros of sum c_l x^l in the closed unit disc: one on the circle itself counts as inside."""
    circle = Circle(cells, Series(cells), 4 * max(64, 2 * cells.size), 1.0)
    return _winding(circle, circle.q, lambda theta: circle.at(theta)[2])


def _winding(circle: Circle, path: Complex, along: Callable[[Real], Complex]) -> int:
    """Zeros inside the circle from the path at its grid points; ``along`` gives the path at any angle. A path through
    the origin counts as one zero."""
    size = np.abs(path)
    if size.min() < 1e-14 * size.max():
        return 1
    chord = np.abs(np.diff(path))
    reach = chord.copy()
    np.maximum(reach[1:], chord[:-1], out=reach[1:])
    np.maximum(reach[:-1], chord[1:], out=reach[:-1])
    doubtful = np.flatnonzero(size[:-1] + size[1:] <= 2.0 * reach)
    unit = path / size
    turn = np.angle(unit[1:] * np.conj(unit[:-1]))
    total = float(turn.sum()) - float(turn[doubtful].sum())
    for cell in doubtful:
        total += _turn(float(circle.theta[cell]), circle.step, path[cell], path[cell + 1], along, 12)
    return round(-total / np.pi)


def _turn(left: float, width: float, p0: complex, p1: complex, along: Callable[[Real], Complex], depth: int) -> float:
    """The change of angle of the path over one cell, by subdivision in eight."""
    step = width / 8
    path = np.concatenate(([p0], along(left + step * np.arange(1, 8)), [p1]))
    size, chord = np.abs(path), np.abs(np.diff(path))
    if size.min() == 0.0:
        return -np.pi
    unit = path / size
    turn = np.angle(unit[1:] * np.conj(unit[:-1]))
    reach = np.maximum(chord, np.maximum(np.append(chord[1:], 0), np.append(0, chord[:-1])))
    total = 0.0
    for i in range(8):
        if size[i] + size[i + 1] <= 2.0 * reach[i] and depth > 0:
            total += _turn(left + i * step, step, path[i], path[i + 1], along, depth - 1)
        else:
            total += float(turn[i])
    return total


class Characteristic:
    """The characteristic function of one staleness law, momentum and variant.

    Raises ``ValueError`` for abs(momentum) >= 1, an unknown variant, a law whose cut tail may hold more than a
    thousandth of its mean (judge by lost mean, not lost mass: theory.md section 3.1), or a law too long to transform.
    """

    def __init__(self, law: StalenessLaw, momentum: float = 0.0, variant: Variant = "heavy-ball") -> None:
        if not (np.isfinite(momentum) and abs(momentum) < 1):
            raise ValueError(f"momentum must lie strictly between -1 and 1 (got {momentum!r}): at 1 nothing is ever forgotten")
        if variant not in ("heavy-ball", "dampened", "shifted"):
            raise ValueError(f'variant must be "heavy-ball", "dampened" or "shifted" (got {variant!r})')
        kept = float(law.pmf.sum())
        lost = law.truncation * law.pmf.size
        if lost > LOST_MEAN * max(law.mean, 1.0):
            raise ValueError(
                f"{law.name}: the cut tail weighs {law.truncation:.3g} and hence holds at least {lost:.3g} updates of "
                f"mean staleness beside the {law.mean:.3g} that are kept; a threshold would be unsafe: keep more of the tail"
            )
        self.law, self.momentum, self.variant = law, float(momentum), variant
        self.pmf: Real = law.pmf / kept
        self.length = int(np.flatnonzero(self.pmf)[-1])
        self.pmf = self.pmf[: self.length + 1]
        self.series = Series(self.pmf)
        if 8 * (self.length + 1) > MOST_POINTS:
            raise ValueError(
                f"{law.name}: {self.length + 1} cells are more than {MOST_POINTS // 8}; cut the tail earlier, or for "
                "exponential work use exponential_workers, which is closed-form for any number of workers"
            )
        self.scale = 1.0 if variant == "heavy-ball" else 1.0 - self.momentum
        self._circles: dict[tuple[float, int], Circle] = {}

    @property
    def shifted(self) -> bool:
        """Whether the velocity is as stale as the gradient."""
        return self.variant == "shifted"

    @property
    def constant(self) -> bool:
        """Whether every gradient is equally stale."""
        return bool(np.count_nonzero(self.pmf) == 1)

    def points(self, doublings: int = 0, *, least: int = 256) -> int:
        """(c) A grid, in fours, of at least 8 (L + 1) points and ``least``, times 2**doublings."""
        from scipy.fft import next_fast_len

        return 4 * int(next_fast_len(max(8 * (self.length + 1), least) // 4 + 1, real=True)) << doublings

    def circle(self, radius: float = 1.0, points: int | None = None) -> Circle:
        """Q on a circle; the last few are remembered."""
        key = (float(radius), points or self.points())
        if key not in self._circles:
            if len(self._circles) >= 6:
                self._circles.pop(next(iter(self._circles)))
            self._circles[key] = Circle(self.pmf, self.series, key[1], key[0])
        return self._circles[key]

    def curve(self, radius: float = 1.0, points: int | None = None) -> Curve:
        """A and B on a circle."""
        return Curve(self.circle(radius, points), self.momentum, self.shifted)

    def polynomial(self, k: float, radius: float = 1.0) -> Real:
        """The coefficients of P(radius x), constant term first, shape (max(L + 2, 3),) or one more when shifted."""
        q, mu = self.pmf, self.momentum
        cells = np.zeros(max(q.size + 1, 3) + int(self.shifted))
        if self.shifted:
            cells[:2] += (1.0, -1.0)
            cells[1 : q.size + 1] -= mu * q
            cells[2 : q.size + 2] += mu * q
        else:
            cells[:3] += (1.0, -(1.0 + mu), mu)
        cells[1 : q.size + 1] += k * q
        return cells * np.exp(np.arange(cells.size) * np.log(radius))

    def first_crossing(self) -> float:
        """The smallest positive k with a root on the unit circle, verified: no root outside at 0.999 of it.

        Raises ``AsyncqError`` if the winding number disagrees on every grid tried."""
        for doublings in range(4):
            if self.points(doublings) > 2 * MOST_POINTS:
                break
            curve = self.curve(1.0, self.points(doublings))
            crossings = curve.crossings(1)
            if crossings and curve.winding(0.999 * crossings[0].k) == 0:
                return crossings[0].k
        raise AsyncqError(f"{self.law.name}: no threshold could be verified by the winding number; refusing to name one")

    def root_modulus(self, k: float) -> float:
        """The largest modulus of a root z = 1/x of P: the contraction of E[w] per update. By companion matrix for short
        laws, else by Newton from the unit circle; either way no root lies further out, by winding number."""
        if self.length <= 40:
            return float(np.abs(np.roots(self.polynomial(k))).max())
        roots = self.roots_near(k, self.curve(), most=4, within=np.inf)
        low, high = np.log(1.0 / (1.0 + 2.0 * abs(self.momentum) + abs(k) + 1e-9)), 0.0
        if roots:
            modulus = min(abs(x) for x in roots)
            if self._zeros_within(k, modulus * (1 - 1e-7)) == 0:
                return float(1.0 / modulus)
            high = min(high, float(np.log(modulus)))
        grow = 1.0 / (self.length + 1)
        while self._zeros_within(k, np.exp(high)) == 0:
            low, high, grow = high, high + grow, 2 * grow
        while high - low > 1e-13:
            if high - low < 0.1 / (self.length + 1):
                inside = [abs(x) for x in self.roots_near(k, self.curve(float(np.exp(high))), most=4, within=np.inf)]
                modulus = min([m for m in inside if np.log(m) >= low], default=0.0)
                if modulus > 0 and self._zeros_within(k, modulus * (1 - 1e-7)) == 0:
                    return float(1.0 / modulus)
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self._zeros_within(k, np.exp(middle)) == 0 else (low, middle)
        return float(np.exp(-low))

    def _zeros_within(self, k: float, radius: float) -> int:
        curve = self.curve(float(radius))
        path = curve.a + k * curve.b
        return curve.winding(k) if np.all(np.isfinite(path)) else 1

    def roots_near(self, k: float, curve: Curve, *, most: int, within: float) -> list[complex]:
        """Roots of P found by Newton from the ``most`` grid points of ``curve`` nearest to one by abs(P / P'), at most
        ``within`` grid steps away; of each conjugate pair the one with angle -pi .. 0, where the half circle lies."""
        path = curve.a + k * curve.b
        size = path.real**2 + path.imag**2
        padded = np.concatenate(([np.inf], size, [np.inf]))
        start = np.flatnonzero((size <= padded[:-2]) & (size <= padded[2:]))
        if start.size > 64:
            start = start[np.argpartition(size[start], 64)[:64]]
        around = np.abs(path[np.minimum(start + 1, size.size - 1)] - path[np.maximum(start - 1, 0)])
        around[(start == 0) | (start == size.size - 1)] *= 2
        away = np.sqrt(size[start]) / np.maximum(0.5 * around, 1e-300)
        start, away = start[away < within], away[away < within]
        found: list[complex] = []
        for i in start[np.argsort(away)][:most]:
            near = 2 * curve.circle.step * curve.circle.radius
            if any(abs(curve.circle.x[i] - other) < near for other in found):
                continue
            root = self._newton(k, complex(curve.circle.x[i]))
            root = complex(root.real, -abs(root.imag))
            if abs(root.imag) < 1e-11 * abs(root):
                root = complex(root.real, 0.0)
            if np.isfinite(abs(root)) and all(abs(root - other) > 1e-9 * abs(root) for other in found):
                found.append(root)
        return found

    def _newton(self, k: float, x: complex) -> complex:
        for _ in range(25):
            value, slope = self.at(k, x)
            change = value / slope if slope != 0 else complex(np.nan)
            if not np.isfinite(abs(change)):
                return complex(np.nan)
            x -= change
            if abs(change) < max(1e-14, 1e-9 / (self.length + 1)) * abs(x):  # Newton squares the error: this was enough
                break
        return x

    def at(self, k: float, x: complex) -> tuple[complex, complex]:
        """P and P' at any point."""
        q, slope = self.series(np.log(x))
        mu, b, db = self.momentum, x * q, q + slope
        if self.shifted:
            a, da = (1 - x) * (1 - mu * b), -(1 - mu * b) - (1 - x) * mu * db
        else:
            a, da = (1 - x) * (1 - mu * x), -(1 - mu * x) - (1 - x) * mu
        return a + k * b, da + k * db
