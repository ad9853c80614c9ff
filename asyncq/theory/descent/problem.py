"""A training problem near its minimum: curvatures, gradient noise that falls with the loss, and a batch size.

Two samples' gradients differ. Near a minimum of a network the covariance of one sample's gradient is, to first order,
proportional to the loss above its floor plus a constant (docs/theory/networks.md, 10.0):

    Sigma(w) = 2 (L(w) - L*) S + S_0,        L(w) - L* = sum over modes of h_j w_j^2 / 2.

Only the diagonals of S and S_0 along the modes matter to the second moments of w.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONDITION", "TrainingProblem"]

Real = NDArray[np.float64]

MODES = 8
SOFT = 30.0  # modes this many times below the sharpness carry the noise that is not along it
CONDITION = 100.0


@dataclass(frozen=True)
class TrainingProblem:
    """Modes of ``curvatures`` h_j (d,), the stiffest first.

    ``noise`` is s_j = v_j' S v_j (d,): a gradient of one sample has variance 2 (L - L*) s_j + S_0j along mode j, the
    mean gradient of ``batch_size`` samples that divided by ``batch_size``. ``constant_noise`` is S_0j (d,). ``start``
    is the loss of each mode at the start, above the floor (d,). The units of loss and weights are the user's; s_j has
    the unit of a curvature.

    Raises ``ValueError`` where lengths differ, a curvature is not positive, a noise or a loss negative, nothing is to
    be minimised, or ``batch_size`` is not positive. Source: docs/theory/networks.md (10.0).
    """

    curvatures: tuple[float, ...]
    noise: tuple[float, ...]
    constant_noise: tuple[float, ...]
    start: tuple[float, ...]
    batch_size: float = 1.0

    def __post_init__(self) -> None:
        for name in ("curvatures", "noise", "constant_noise", "start"):
            values = np.array(getattr(self, name), dtype=np.float64)
            if values.shape != (len(self.curvatures),) or values.size == 0 or not np.all(np.isfinite(values)):
                raise ValueError(f"{name} must be one finite number for each curvature (got {getattr(self, name)!r})")
            if np.any(values < 0) or (name == "curvatures" and not np.all(values > 0)):
                raise ValueError(f"{name} must not be negative, curvatures positive (got {getattr(self, name)!r})")
            object.__setattr__(self, name, tuple(values.tolist()))
        if any(a < b for a, b in zip(self.curvatures, self.curvatures[1:], strict=False)):
            raise ValueError("curvatures must fall, the sharpness first")
        if not sum(self.start) > 0:
            raise ValueError("start must have a mode with loss above the floor")
        if not (np.isfinite(self.batch_size) and self.batch_size > 0):
            raise ValueError(f"batch_size must be positive (got {self.batch_size!r})")

    @classmethod
    def of(
        cls,
        sharpness: float = 1.0,
        *,
        proportional_noise: float = 0.0,
        noise_at_sharpness: float = 0.0,
        constant_noise: float = 0.0,
        batch_size: float = 1.0,
        condition_number: float = CONDITION,
        curvatures: Sequence[float] | None = None,
        start_loss: float = 1.0,
    ) -> TrainingProblem:
        """A problem from the numbers that a measurement gives.

        ``proportional_noise`` is R2 = tr(S), ``noise_at_sharpness`` s_1 its part along the sharpest direction, and
        ``constant_noise`` tr(S_0), spread in the same proportions (evenly if R2 is 0). The rest of R2 lies evenly on
        the modes at least 30 times softer than the sharpness, or on the softest: where a mode is soft its curvature
        does not matter (10.2). Without ``curvatures`` there are eight, evenly in the logarithm from ``sharpness`` to
        ``sharpness / condition_number``. Every mode starts with the same share of ``start_loss``.

        Raises ``ValueError`` for numbers that are negative or not finite, s_1 above R2, or a condition number below 1.
        """
        if curvatures is None:
            if not (np.isfinite(condition_number) and condition_number >= 1):
                raise ValueError(f"condition_number must be 1 or more (got {condition_number!r})")
            modes = np.geomspace(sharpness, sharpness / condition_number, MODES if condition_number > 1 else 1)
        else:
            modes = np.sort(np.array(curvatures, dtype=np.float64))[::-1]
        if not 0 <= noise_at_sharpness <= proportional_noise * (1 + 1e-12):
            raise ValueError(
                f"noise_at_sharpness must lie between 0 and proportional_noise {proportional_noise!r} "
                f"(got {noise_at_sharpness!r})"
            )
        noise, size = np.zeros(modes.size), modes.size
        if size == 1:
            noise[0] = proportional_noise
        else:
            soft = modes <= modes[0] / SOFT
            soft[-1] = True
            noise[soft] = (proportional_noise - noise_at_sharpness) / soft.sum()
            noise[0] = noise_at_sharpness
        share = noise / proportional_noise if proportional_noise > 0 else np.full(size, 1.0 / size)
        return cls(
            tuple(modes.tolist()),
            tuple(np.maximum(noise, 0.0).tolist()),
            tuple((constant_noise * share).tolist()),
            (start_loss / size,) * size,
            batch_size,
        )

    @property
    def sharpness(self) -> float:
        """The largest curvature, h_1."""
        return self.curvatures[0]

    @property
    def proportional_noise(self) -> float:
        """R2 = tr(S): the trace of one sample's gradient noise over twice the loss above its floor."""
        return float(sum(self.noise))

    @property
    def noise_edge(self) -> float:
        """2 b / R2: the largest stable learning rate / (1 - momentum) if every mode is soft (10.2); infinite without
        proportional noise."""
        return 2.0 * self.batch_size / self.proportional_noise if self.proportional_noise > 0 else float("inf")

    def scaled(self, factor: float) -> TrainingProblem:
        """The same with every curvature and noise ``factor`` times as large: learning rates become 1 / ``factor`` of
        what they were, and nothing else changes."""
        if not (np.isfinite(factor) and factor > 0):
            raise ValueError(f"factor must be positive (got {factor!r})")
        parts = {
            name: tuple(factor * x for x in getattr(self, name)) for name in ("curvatures", "noise", "constant_noise")
        }
        return replace(self, **parts)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            **{name: list(getattr(self, name)) for name in ("curvatures", "noise", "constant_noise", "start")},
            "batch_size": self.batch_size,
        }
