"""Problems of the bench: model, data, batch and target loss.

Rules and theory are developed on ``DEVELOPMENT``. ``KEPT_BACK`` was named before the first run on it and is opened
once, when the rules are fixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncq.papers.networks.data import Data, load, patches, with_wrong_labels

__all__ = ["DEVELOPMENT", "KEPT_BACK", "Problem"]

Whole = NDArray[np.int64]
Vector = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Problem:
    """A network to train. ``hidden``: the widths of the hidden layers; ``activation``: relu or tanh. ``convolution``:
    channels of a 3 x 3 convolution before the dense layers, for pictures of 8 x 8 (0: none). ``target``: the running
    training loss to reach, in the unit of the loss (nats; half the squared error of standardised values)."""

    name: str
    data: str
    hidden: tuple[int, ...]
    activation: str
    batch: int
    target: float
    wrong_labels: float = 0.0
    convolution: int = 0

    @cached_property
    def samples(self) -> Data:
        """Data of the problem, with its wrong labels, cut into patches for a convolution."""
        data = load(self.data)
        if self.wrong_labels > 0:
            data = with_wrong_labels(data, self.wrong_labels)
        return patches(data, 8, 3) if self.convolution else data

    @cached_property
    def layers(self) -> tuple[Whole, Whole, Whole]:
        """(values in, values out, places) of each layer, as `kernels.loss_and_gradient` takes them."""
        width, outputs = self.samples.inputs.shape[1], self.samples.targets.shape[1]
        first = [(9, self.convolution, width // 9)] if self.convolution else []
        if first:
            width = self.convolution * first[0][2]
        widths = [width, *self.hidden, outputs]
        dense = [(a, b, 1) for a, b in pairwise(widths)]
        columns = np.array([*first, *dense], np.int64).T
        return columns[0].copy(), columns[1].copy(), columns[2].copy()

    @property
    def size(self) -> int:
        """Number of weights."""
        fan_in, fan_out, _ = self.layers
        return int(((fan_in + 1) * fan_out).sum())

    def start(self, seed: int) -> NDArray[np.float32]:
        """Initial weights: normal, variance 2 / fan-in before a ReLU and 1 / fan-in otherwise; biases 0. Softmax
        regression starts at 0."""
        generator = np.random.default_rng((seed, 1))
        fan_in, fan_out, _ = self.layers
        parts: list[Vector] = []
        for layer, (n, m) in enumerate(zip(fan_in, fan_out, strict=True)):
            gain = 2.0 if self.activation == "relu" and layer < fan_in.size - 1 else 1.0
            scale = 0.0 if fan_in.size == 1 else np.sqrt(gain / n)
            parts += [scale * generator.standard_normal(n * m), np.zeros(m)]
        return np.concatenate(parts).astype(np.float32)


def _digits(name: str, hidden: tuple[int, ...], activation: str, batches: tuple[int, ...], target: float,
            **more: Any) -> tuple[Problem, ...]:  # fmt: skip
    """Problems on digits, one for each batch size."""
    return tuple(Problem(f"{name}-{b}", "digits", hidden, activation, b, target, **more) for b in batches)


DEVELOPMENT: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        *_digits("softmax", (), "relu", (8, 32), 0.25),
        *_digits("relu", (32,), "relu", (8, 32), 0.15),
        *_digits("tanh", (64, 64), "tanh", (8, 32), 0.15),
        *_digits("relu-wrong", (32,), "relu", (8, 32), 1.1, wrong_labels=0.2),
        Problem("teacher-8", "teacher", (32,), "relu", 8, 0.3),
        Problem("diabetes-8", "diabetes", (16,), "tanh", 8, 0.22),
    )
}
KEPT_BACK: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        *_digits("convolution", (), "relu", (8, 32), 0.15, convolution=8),
        *_digits("relu-deep", (64, 32), "relu", (16,), 0.15),
        *_digits("tanh-wrong", (32,), "tanh", (16,), 1.1, wrong_labels=0.2),
        Problem("wine-4", "wine", (16,), "relu", 4, 0.1),
        Problem("breast-cancer-8", "breast-cancer", (16,), "tanh", 8, 0.08),
        Problem("breast-cancer-32", "breast-cancer", (32,), "relu", 32, 0.06),
        Problem("teacher-values-16", "teacher-values", (32,), "tanh", 16, 0.3),
    )
}
