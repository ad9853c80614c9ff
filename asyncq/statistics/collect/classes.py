"""Who is heard: gradients counted by the class of the client that computed them, in batches, so that shares and means
get intervals. Memory does not grow with the run, nor with the clients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asyncq.engines.rows import Chunk
from asyncq.protocols.state import DOWNWEIGHTED, FATES
from asyncq.system.network import Network

__all__ = ["ByClass"]

BATCHES = 256
FIRST_BATCH = 64  # rows
MANY = len(FATES)


class ByClass:
    """Rows of every class by kind, and the sum of staleness of those that were applied, by batches of rows in order."""

    def __init__(self, network: Network) -> None:
        classes = len(network.classes)
        self._rows = 0
        self._size = FIRST_BATCH
        self._counts = np.zeros((BATCHES, classes, MANY + 1), dtype=np.int64)
        self._began = np.zeros(BATCHES, dtype=np.int64)  # the version as a batch began

    def fold(self, chunk: Chunk) -> None:
        """Take one chunk in; chunks come in order, each once."""
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

    def after(self, warmup: int) -> NDArray[np.int64]:
        """The whole batches that began after so many updates, shape (batches, classes, fates and the sum of staleness);
        all that was counted as one batch where there is none."""
        whole = self._rows // self._size
        first = int(np.searchsorted(self._began[:whole], warmup))
        return self._counts[first:whole] if first < whole else self._counts.sum(axis=0, keepdims=True)
