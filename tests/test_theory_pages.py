"""The examples of the theory pages print what they say, and what the code cites of the pages exists."""

from __future__ import annotations

import doctest
import re
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


ROOT = DOCS.parent
CITATION = re.compile(r"\bdocs/([\w/-]+\.md)((?:(?!docs/|\.\s|\"\"\").)*)", re.DOTALL)


def wrong_citations(text: str) -> list[str]:
    """Citations of pages, equations and sections that do not exist."""
    wrong = re.findall(r"(?<!/)\btheory\.md[^.;)]*", text)
    for page, rest in CITATION.findall(text):
        path = DOCS / page
        if not path.exists():
            wrong.append(page)
            continue
        source = path.read_text(encoding="utf-8")
        numbers = re.findall(r"\(([A-Z]?\.?\d+(?:\.\d+)?)\)", rest)
        named = set(re.findall(r"\\tag\{([^}]+)\}|^\((P\.\d+)\) ", source, re.MULTILINE))
        wrong += [f"{page} ({number})" for number in numbers if number not in {a or b for a, b in named}]
        titles = [" ".join(title.split()) for title in re.findall(r'section\s+"([^"]+)"', rest)]
        wrong += [f"{page}: {title}" for title in titles if not re.search(rf"^#+ .*{re.escape(title)}", source, re.M)]
    return wrong


@pytest.mark.parametrize("folder", ["asyncq", "benchmarks", "docs", "tests"])
def test_what_is_cited_exists(folder):
    """Pages, equations and sections; this file is left out, for it holds wrong citations on purpose."""
    files = [file for end in ("py", "md") for file in (ROOT / folder).rglob(f"*.{end}") if file != Path(__file__)]
    wrong = {str(file): found for file in files if (found := wrong_citations(file.read_text(encoding="utf-8")))}
    assert files
    assert not wrong


@pytest.mark.parametrize(
    "text",
    [
        "theory.md section 3",
        "docs/theory/nowhere.md",
        "docs/theory/renewal.md, equation (R.99)",
        "docs/theory/renewal.md, equations (R.1) to\n    (R.99).",
        'docs/theory/renewal.md, section "No such section"',
    ],
)
def test_a_wrong_citation_is_found(text):
    assert len(wrong_citations(text)) == 1
