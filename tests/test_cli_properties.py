"""No command prints nan, infinity, a control character or a traceback, whatever the scenario; JSON is strict."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from random_commands import COMMANDS, answer, scenarios


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(tables=scenarios())
def test_whatever_the_scenario(command: tuple[str, ...], tables: dict[str, Any]) -> None:
    answer(command, tables)
