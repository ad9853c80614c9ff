"""Numbers and times as people read them, against values worked out by hand."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncq.estimate import Estimate
from asyncq.formats import estimate, number, printable, seconds, unit_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (7.5, "7.5"), (0.012346, "0.01235"), (1234.56, "1,235"), (123456.0, "123,500"), (-98765, "-98,760"),
        (1.2e-7, "1.2e-07"), (3e12, "3e+12"), (9999.9, "10,000"), (80, "80"), (math.nan, "unknown"), (1000, "1,000"),
        (math.inf, "infinite"), (-math.inf, "-infinite"), (0.5, "0.5"), (1e-320, "1e-320"), (99999, "100,000"),
    ],
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (200_000, "2.315 d"), (3600, "60 min"), (7200, "2 h"), (41.7, "41.7 s"), (119, "119 s"), (120, "2 min"),
        (0.0125, "12.5 ms"), (1, "1 s"), (0.9, "900 ms"), (3e-6, "3 us"), (0, "0 s"), (4e-10, "0.4 ns"),
        (math.inf, "infinite s"), (1e12, "11,570,000 d"),
    ],
)  # fmt: skip
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


@given(st.floats(-1e300, 1e300), st.integers(2, 6))
def test_a_number_is_what_it_says_to_its_digits(value: float, digits: int) -> None:
    text = number(value, digits)
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.51 * 10 ** (1 - digits))
    assert not re.search("nan|inf", text)


@given(st.floats(min_value=1e-9, max_value=1e15))
def test_the_unit_suits_the_duration(value: float) -> None:
    assert value / unit_of(value).size >= 1 - 1e-9
    assert value / unit_of(value).size < 1000 or unit_of(value).symbol == "d"


def test_estimates() -> None:
    assert estimate(Estimate(12345.0, (12000.0, 12689.5), "s")) == "12,340 [12,000, 12,690]"
    assert estimate(Estimate(math.nan, None, "s")) == "none"
    assert estimate(Estimate(2.0, None, "s", exact=True)) == "2"


def test_control_characters_are_escaped() -> None:
    text = "a\x1b[31mb\x9b\u202ec\x00\x7f\ud800\nd é █"
    escaped = "a\\x1b[31mb\\x9b\\u202ec\\x00\\x7f\\ud800"
    assert printable(text) == escaped + "\\nd é █"
    assert printable(text, lines=True) == escaped + "\nd é █"
