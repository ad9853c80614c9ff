"""Claims of the papers: verdicts are computed, the command line reports them, a wrong constant is found out."""

from __future__ import annotations

import dataclasses
import json
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from asyncq.cli import main
from asyncq.errors import ScenarioError
from asyncq.papers import CLAIMS, giladi, registry, reproduce
from asyncq.papers.claim import Comparison, Findings, Panel, PaperClaim, Reproduction, line, verdict
from asyncq.theory.descent import characteristic

DOCS = Path(__file__).parents[1] / "docs"
EXACT = [name for name, claim in CLAIMS.items() if claim.exact]


def call(*arguments: object):
    return CliRunner().invoke(main, ["reproduce", *map(str, arguments)], catch_exceptions=False)


def invented(name: str, *comparisons: Comparison) -> PaperClaim:
    panel = Panel("title", "x", "y", (line("a", [0, 1], [1, 2]), line("b", [0, 1], [1, 2], "paper")))
    return PaperClaim(
        name, "[None]", "Figure 0", "Says.", "Set.", lambda seed, _: Findings(comparisons, (panel,)), exact=True
    )


# -- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        (Comparison("", 1.0, 1.05, 0.1), "reproduced"),
        (Comparison("", 1.0, 1.15, 0.1), "failed"),
        (Comparison("", 1.0, math.nan, 0.1), "failed"),
        (Comparison("", 1.0, math.inf, 0.1), "failed"),
        (Comparison("", 1.0, 0.5, 0.1, relation="<="), "reproduced"),
        (Comparison("", 1.0, 1.2, 0.1, relation="<="), "failed"),
        (Comparison("", 1.0, 1.2, 0.1, relation=">="), "reproduced"),
        (Comparison("", 1.0, 0.8, 0.1, relation=">="), "failed"),
        (Comparison("", 1.0, math.nan, 0.1, relation=">="), "failed"),
        (Comparison("", 1.0, 2.0, 0.1, theory=2.05), "differs"),
        (Comparison("", 1.0, 1.0, 0.1, theory=2.0), "failed"),  # agreeing with what the theory says is wrong
        (Comparison("", 1.0, 3.0, 0.1, theory=2.0), "failed"),
        (Comparison("", 1.0, 1.04, 0.1, theory=1.08), "reproduced"),
        (Comparison("", None, 2.0, 0.1, theory=2.0), "reproduced"),
        (Comparison("", None, 2.5, 0.1, theory=2.0), "failed"),
        (Comparison("", 1.0, 1.05, 0.1, analogue=True), "analogue"),
        (Comparison("", None, 2.0, 0.1, theory=2.0, analogue=True), "analogue"),
        (Comparison("", 1.0, 1.15, 0.1, analogue=True), "failed"),
        (Comparison("", 1.0, 2.0, 0.1, theory=2.05, analogue=True), "differs"),
        (Comparison("", None, 2.0, analogue=True), "reported"),
        (Comparison("", None, 2.0), "reported"),
    ],
)
def test_a_verdict_follows_from_the_numbers(comparison, expected):
    assert comparison.verdict == expected


def test_the_worst_verdict_is_the_claims():
    assert verdict() == verdict("reported") == "reported"
    assert verdict("reported", "reproduced") == "reproduced"
    assert verdict("reproduced", "differs") == verdict("analogue", "differs") == "differs"
    assert verdict("reproduced", "analogue", "reported") == "analogue"
    assert verdict("reproduced", "failed", "differs") == "failed"


def test_agreement_on_a_stand_in_is_not_a_reproduction():
    """Of the whole claim, of each number and in JSON; the figures of networks, which are not at hand, are stand-ins."""
    stand_in = dataclasses.replace(invented("x", Comparison("", 1.0, 1.0)), analogue=True)
    seen = Reproduction(stand_in, 1, stand_in.compute(1, print))
    assert seen.verdict == seen.to_dict()["verdict"] == seen.to_dict()["comparisons"][0]["verdict"] == "analogue"
    assert {name for name, claim in CLAIMS.items() if claim.analogue} == {f"giladi-fig{n}" for n in (2, 9, 11, 12)}


# -- what can be computed without chance ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_claim_holds_and_is_the_same_for_every_seed(name):
    seen = reproduce(name)
    assert [c.what for c in seen.comparisons if c.verdict == "failed"] == []
    assert seen.seed is None
    assert seen.to_dict() == reproduce(name, seed=7).to_dict()
    assert any(c.paper is not None for c in seen.comparisons)


def test_what_theory_says_is_wrong_in_the_papers_differs():
    assert {name for name in EXACT if reproduce(name).verdict == "differs"} == {"giladi-fig6", "giladi-fig8"}


@pytest.mark.parametrize("name", ["giladi-fig4", "giladi-fig6", "giladi-fig7", "giladi-fig8", "giladi-fig10"])
def test_a_wrong_constant_in_the_theory_is_found_out(name, monkeypatch):
    """The threshold 1 % too small: as if pi were 1 % off."""
    right = characteristic.Characteristic.first_crossing
    monkeypatch.setattr(characteristic.Characteristic, "first_crossing", lambda self: 0.99 * right(self))
    assert reproduce(name).verdict == "failed"
    assert call(name).exit_code == 1


def test_the_slope_of_shifted_momentum_is_the_root_of_its_equation():
    """Equation 11 by companion matrix at delays 30 and 31, where the limit is within 1e-3."""
    for m in (0.3, 0.9):
        edges = []
        for delay in (30, 31):
            low, high = 0.0, 2.0
            while high - low > 1e-9:
                middle = 0.5 * (low + high)
                roots = np.roots(np.concatenate(([1.0, -1.0], np.zeros(delay - 1), [(1 - m) * middle - m, m])))
                low, high = (middle, high) if np.abs(roots).max() < 1 else (low, middle)
            edges.append(1 / low)
        assert edges[1] - edges[0] == pytest.approx(giladi.shifted_slope(m), rel=1e-3)


# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_is_of_its_script():
    """Its frame, and the sections without chance; the others are those of the seed and take minutes."""
    script = runpy.run_path(str(DOCS / "generate" / "reproduced.py"))
    text = (DOCS / "reproduced.md").read_text(encoding="utf-8")
    sections = script["sections_of"](text)
    assert script["page"](sections) == text
    for name in EXACT:
        assert sections[name].rstrip() == script["section"](reproduce(name)).rstrip()


def test_the_pages_pictures_are_there_and_small():
    for name in CLAIMS:
        picture = (DOCS / "images" / "reproduced" / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) < 100_000


# -- the command ------------------------------------------------------------------------------------------------------


def test_without_a_name_it_lists_every_claim():
    shown = call()
    assert shown.exit_code == 0
    assert all(f"{name} " in shown.stdout for name in CLAIMS)
    assert [item["name"] for item in json.loads(call("--json").stdout)] == list(CLAIMS)


def test_files_are_written_and_json_is_all_that_stands_on_stdout(tmp_path: Path):
    done = call("giladi-fig6", "--json", "--out", tmp_path / "new")
    (result,) = json.loads(done.stdout)
    assert done.exit_code == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == {f"giladi-fig6.{s}" for s in ("json", "png", "svg")}
    assert json.loads((tmp_path / "new" / "giladi-fig6.json").read_text()) == result
    assert result["verdict"] == "differs"
    assert {"paper", "ours", "theory", "tolerance", "basis", "verdict"} <= result["comparisons"][0].keys()
    assert (tmp_path / "new" / "giladi-fig6.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["giladi-fig66"], 'did you mean "giladi-fig6"?'),
        (["giladi-fig6", "nonsense"], "nonsense"),
        (["giladi-fig6", "--seed", -1], "seed must be"),
        (["--out", "somewhere"], "name a claim"),
        (["giladi-fig6", "--out", __file__], "which is a file"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments, words):
    done = call(*arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_unknown_name_is_an_error_in_python_too():
    with pytest.raises(ScenarioError, match="liu"):
        reproduce("liu")


def test_the_exit_code_tells_failed_from_differs(monkeypatch):
    fine = invented("fine", Comparison("x", 1.0, 1.0, 0.1))
    apart = invented("apart", Comparison("x", 1.0, 2.0, 0.1, theory=2.0))
    broken = invented("broken", Comparison("x", 1.0, math.inf, 0.1))
    monkeypatch.setattr(registry, "CLAIMS", {claim.name: claim for claim in (fine, apart, broken)})
    assert call("fine").exit_code == call("fine", "apart").exit_code == 0
    assert call("fine", "broken", "apart").exit_code == call("all").exit_code == 1
    text = call("all", "--json").stdout
    assert [item["verdict"] for item in json.loads(text)] == ["reproduced", "differs", "failed"]
    assert json.loads(text)[2]["comparisons"][0]["ours"] is None


def test_an_interrupt_keeps_what_was_written(monkeypatch, tmp_path):
    def stop(seed, progress):
        raise KeyboardInterrupt

    fine = invented("fine", Comparison("x", 1.0, 1.0, 0.1))
    monkeypatch.setattr(
        registry, "CLAIMS", {"fine": fine, "endless": dataclasses.replace(fine, name="endless", compute=stop)}
    )
    done = call("all", "--out", tmp_path)
    assert done.exit_code == 130
    assert "interrupted after 1 of 2" in done.stderr
    assert "fine: reproduced" in done.stdout
    assert (tmp_path / "fine.json").exists()


def test_every_claim_says_what_it_is():
    for name, claim in CLAIMS.items():
        assert claim.name == name
        assert claim.paper in ("[AbM]", "[Edge]", "[PCA]")
        assert claim.says.endswith(".")
        assert claim.setting.endswith(".")
