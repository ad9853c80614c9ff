"""What JSON holds of a result: everything, and nothing that strict readers refuse."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest

from asyncq.estimate import Estimate
from asyncq.jsonable import dumps, jsonable, record


class Pair(NamedTuple):
    left: float
    right: float


@dataclass(frozen=True)
class Outer:
    rate: Estimate
    curve: np.ndarray
    pair: Pair
    many: tuple[float, ...]
    none: None = None


def test_everything_that_results_are_made_of() -> None:
    seen = Outer(Estimate(2.0, (1.0, float("inf")), "updates"), np.array([[1.0, np.nan]]), Pair(0.5, -np.inf), (1, 2))
    assert jsonable(seen) == {
        "rate": {"mean": 2.0, "ci95": [1.0, None], "unit": "updates", "exact": False},
        "curve": [[1.0, None]],
        "pair": {"left": 0.5, "right": None},
        "many": [1, 2],
        "none": None,
    }
    short = record(seen, without=("rate", "curve", "pair"), more=np.int64(3))
    assert short == {"many": [1, 2], "none": None, "more": 3}


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), np.int64(7), np.bool_(True), 3, "x", None, True])
def test_numbers_of_numpy_are_plain(value: object) -> None:
    plain = jsonable(value)
    assert plain == value
    assert type(plain) in (float, int, bool, str, type(None))


@pytest.mark.parametrize("value", [float("nan"), np.inf, -np.inf, np.float32("nan"), np.float64("inf")])
def test_what_is_not_finite_is_null(value: float) -> None:
    assert json.loads(dumps({"x": [value], "y": np.array([value])})) == {"x": [None], "y": [None]}


def test_what_has_no_json_is_an_error() -> None:
    with pytest.raises(TypeError, match="no JSON for a set"):
        jsonable({"x": {1, 2}})
