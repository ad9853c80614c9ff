"""Gradients by the class of the client that computed them, in batches, so that shares and means get intervals.

Memory grows neither with the run nor with the number of clients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asyncq.engines.rows import Chunk
from asyncq.protocols.state import DOWNWEIGHTED, FATES

__all__ = ["ByClass", "ClassCounts"]

BATCHES = 256
FIRST_BATCH = 64  # rows
MANY = len(FATES)


class ClassCounts(NamedTuple):
    """Counts by batch and class: ``fates``, shape (batches, classes, fates), how many gradients met each fate, and
    ``staleness``, shape (batches, classes), the sum over those applied."""

    fates: NDArray[np.int64]
    staleness: NDArray[np.int64]


class ByClass:
    """Counts the rows of so many ``classes`` by fate, and sums the staleness of the applied ones, in batches."""

    def __init__(self, classes: int) -> None:
        self._rows = 0
        self._size = FIRST_BATCH
        self._counts = np.zeros((BATCHES, classes, MANY + 1), dtype=np.int64)  # by fate, then the sum of staleness
        self._began = np.zeros(BATCHES, dtype=np.int64)  # the version at the start of a batch

    def fold(self, chunk: Chunk) -> None:
        """Count a chunk; chunks come in order, each once."""
        first, rows = 0, chunk.fate.size
        while first < rows:
            if self._rows == BATCHES * self._size:
                self._halve()
            last = min(rows, first + BATCHES * self._size - self._rows)
            self._fold(chunk.pick(slice(first, last)))
            first = last

    def _fold(self, chunk: Chunk) -> None:
        assert chunk.client is not None
        number = np.arange(self._rows, self._rows + chunk.fate.size)
        begins = np.flatnonzero(number % self._size == 0)
        self._began[number[begins] // self._size] = chunk.read[begins] + chunk.staleness[begins]
        batch = number // self._size
        low, high = int(batch[0]), int(batch[-1]) + 1
        classes = self._counts.shape[1]
        of_class = (batch - low) * classes + chunk.client
        many = (high - low) * classes
        here = self._counts[low:high].reshape(many, MANY + 1)
        here[:, :MANY] += np.bincount(of_class * MANY + chunk.fate, minlength=many * MANY).reshape(many, MANY)
        applied = chunk.fate <= DOWNWEIGHTED
        sums = np.bincount(of_class[applied], weights=chunk.staleness[applied], minlength=many)
        here[:, MANY] += sums.astype(np.int64)
        self._rows += chunk.fate.size

    def _halve(self) -> None:
        half = BATCHES // 2
        self._counts[:half] = self._counts[::2] + self._counts[1::2]
        self._counts[half:] = 0
        self._began[:half] = self._began[::2].copy()
        self._size *= 2

    def after(self, warmup: int) -> ClassCounts:
        """The full batches that began after ``warmup`` updates; where there is none, all counts as a single batch."""
        whole = self._rows // self._size
        first = int(np.searchsorted(self._began[:whole], warmup))
        counts = self._counts[first:whole] if first < whole else self._counts.sum(axis=0, keepdims=True)
        return ClassCounts(counts[:, :, :MANY], counts[:, :, MANY])
