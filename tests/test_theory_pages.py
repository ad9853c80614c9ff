"""The examples of the theory pages print what they say."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    "page",
    [
        "choosing-momentum.md",
        "sgd.md",
        "theory/momentum.md",
        "theory/networks.md",
        "theory/stability.md",
        "theory/streaming-pca.md",
    ])
def test_examples_run(page, monkeypatch):
    monkeypatch.chdir(DOCS.parent)
    found = doctest.testfile(str(DOCS / page), module_relative=False, encoding="utf-8")
    assert found.attempted > 0
    assert found.failed == 0
