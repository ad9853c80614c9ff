"""A meter for an existing training loop: gradient noise from gradients that the loop has anyway."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asyncq.errors import ScenarioError
from asyncq.estimate import Estimate
from asyncq.statistics.intervals import mean_of_independent
from asyncq.training.measurement import Checkpoint, Measurement
from asyncq.training.ratios import blocks, mean_ratio

__all__ = ["NoiseMeter"]

_KEYS = ("loss", "noise", "batch", "sharpness")


class NoiseMeter:
    """Records of a training run: the loss and the noise of one sample's gradient, from the gradients of two or more
    batches at the same weights. Data-parallel workers have them, and so has a loop that accumulates gradients.

    ``floor``: the lowest loss that can be reached, 0 where it can vanish (regression without label noise: 0).
    """

    def __init__(self, *, floor: float = 0.0) -> None:
        self.floor = float(floor)
        self.records: list[dict[str, float | None]] = []

    def add(
        self,
        loss: float,
        gradient_norms_squared: Sequence[float],
        mean_gradient_norm_squared: float,
        batch: int,
        *,
        sharpness: float | None = None,
    ) -> None:
        """Record an update: the ``loss`` averaged over its n batches, the squared norms of their gradients, the squared
        norm of the mean of these gradients, and ``batch``, the samples of each. ``sharpness``: the curvature, if it was
        measured here (`critical_sharpness`).

        The noise of one sample is batch * n / (n - 1) * (mean of the squared norms - squared norm of the mean),
        which is unbiased.
        Raises ``ValueError`` for fewer than two gradients and for numbers that are not finite.
        """
        norms = np.asarray(gradient_norms_squared, np.float64).ravel()
        if norms.size < 2:
            raise ValueError("gradient_norms_squared needs two or more gradients at the same weights: split the batch")
        noise = batch * norms.size / (norms.size - 1) * (float(norms.mean()) - float(mean_gradient_norm_squared))
        if batch < 1 or not np.isfinite([float(loss), noise]).all():
            raise ValueError(f"loss and norms must be finite and batch 1 or more (got {loss!r}, {noise!r}, {batch!r})")
        self.records.append(
            {"loss": float(loss), "noise": noise, "batch": float(batch),
             "sharpness": None if sharpness is None else float(sharpness)}
        )  # fmt: skip

    def measurement(self, *, batch_size: int | None = None, stretches: int = 8) -> Measurement:
        """Loss and noise over ``stretches`` of the run, each half as long again as the one before, so that the loss
        changes little within each. The intervals are by means over 16 blocks of updates. ``batch_size``: of an update
        (the batch recorded).

        Raises ``ScenarioError`` for fewer than 64 records.
        """
        count = len(self.records)
        if count < 64:
            raise ScenarioError(f"the measurement needs 64 or more recorded updates (got {count}); record more")
        ends = np.unique(np.round(count * 1.5 ** -np.arange(stretches, dtype=float)).astype(int))
        begins = np.concatenate([[0], ends[:-1]])
        points = tuple(
            self._checkpoint(self.records[begin:end])
            for begin, end in zip(begins, ends, strict=True)
            if end - begin >= 16
        )
        last = self.records[-1]["batch"]
        assert last is not None
        return Measurement(points, int(last) if batch_size is None else batch_size, self.floor)

    def _checkpoint(self, records: Sequence[dict[str, Any]]) -> Checkpoint:
        """What a stretch of updates says."""
        loss, noise = (blocks([record[key] for record in records], 16) for key in ("loss", "noise"))
        curvatures = [record["sharpness"] for record in records if record["sharpness"] is not None]
        sharpness: Estimate | None = mean_of_independent(curvatures, unit="curvature") if curvatures else None
        return Checkpoint(
            mean_of_independent(list(loss), unit="loss"),
            mean_ratio(noise, np.ones(noise.size), unit="trace of one sample's gradient covariance"),
            mean_ratio(noise, 2 * (loss - self.floor), unit="R2"),
            sharpness,
        )

    def save(self, path: str | Path) -> None:
        """Write the records as lines of JSON, after a first line with the floor."""
        lines = [json.dumps({"asyncq": "noise meter", "schema": 1, "floor": self.floor})]
        lines += [json.dumps(record) for record in self.records]
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> NoiseMeter:
        """Read what `save` wrote; raises ``ScenarioError`` that names the line where the file is something else."""
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ScenarioError(f"{path} cannot be read ({error}); give a file that NoiseMeter.save wrote") from None
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                if number == 1:
                    meter = cls(floor=float(record["floor"]))
                    continue
                values = {key: record[key] for key in _KEYS}
                if not all(isinstance(x, (int, float)) and np.isfinite(x) for x in values.values() if x is not None):
                    raise ValueError
                if values["loss"] is None or values["noise"] is None or values["batch"] is None:
                    raise ValueError
            except (ValueError, KeyError, TypeError):
                raise ScenarioError(f"{path}: line {number} is no record of NoiseMeter.save; save it again") from None
            meter.records.append(values)
        if not lines:
            raise ScenarioError(f"{path} is empty; give a file that NoiseMeter.save wrote")
        return meter
