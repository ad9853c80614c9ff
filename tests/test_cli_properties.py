"""No command prints nan, infinity, a control character or a traceback, whatever the scenario; JSON is strict."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from random_commands import SHARES, answer, scenarios


@pytest.mark.parametrize(("command", "share"), SHARES.items(), ids=map(" ".join, SHARES))
def test_whatever_the_scenario(command: tuple[str, ...], share: int) -> None:
    quick = settings(max_examples=2 * share, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    quick(given(tables=scenarios())(lambda tables: answer(command, tables)))()
