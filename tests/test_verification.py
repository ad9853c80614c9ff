"""asyncq verify: claims pass, claims with an oracle that is off by a little fail, and the command says so.

False alarm: at the level of the command itself, 0.1 % for all claims together.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from asyncq import ScenarioError, verification
from asyncq.cli import main
from asyncq.staleness import StalenessLaw
from asyncq.statistics.fit.chi_square import chi_square
from asyncq.verification import CLAIMS, Claim, Effort, Evidence, Finding, verify

PAGE = Path(__file__).parents[1] / "docs" / "verification.md"
LEVEL = 1e-5
SHORT = [claim for claim in CLAIMS if not claim.chance and claim.quick and "every protocol" not in claim.name]
SHORT += [claim for claim in CLAIMS if claim.name in ("law: 8 gamma workers, cv 0.5", "throughput: 8 gamma workers")]


def judged(claim: Claim, seed: int = 1) -> Finding:
    return Finding(claim, claim.measure(claim.oracle, Effort(True, seed)), LEVEL)


@pytest.mark.parametrize("claim", SHORT, ids=lambda claim: claim.name)
def test_a_claim_holds_and_with_a_wrong_oracle_fails(claim):
    assert judged(claim).holds
    assert not judged(replace(claim, oracle=claim.wrong)).holds


def test_the_chi_square_has_its_level_on_dependent_rows():
    """Parts whose rows are pairs of equal values: a plain chi-square would be twice too large. 500 trials at 5 %; 4
    standard errors: false alarm 6e-5."""
    rng = np.random.default_rng(5)
    law = StalenessLaw.geometric(workers=4)
    values = np.minimum(rng.geometric(0.25, size=(500, 48, 200)) - 1, 40)
    rejected = 0
    for trial in values:
        parts = np.array([np.bincount(part, minlength=41) for part in trial]) * 2
        rejected += chi_square(parts, law)[0] < 0.05
    assert abs(rejected / 500 - 0.05) < 4 * (0.05 * 0.95 / 500) ** 0.5


def test_the_chi_square_refuses_what_cannot_be():
    assert chi_square(np.full((8, 3), 1000), StalenessLaw.from_pmf([0.5, 0.5]))[0] == 0
    assert chi_square(np.tile([500, 500], (8, 1)), StalenessLaw.from_pmf([0.5, 0.5])) == (1.0, 0.0)
    assert chi_square(np.tile([600, 400], (8, 1)), StalenessLaw.from_pmf([0.5, 0.5]))[0] == 0


def test_every_claim_has_a_name_and_a_heading_of_its_own():
    names = [claim.name for claim in CLAIMS]
    assert len(set(names)) == len(names) > 40
    assert all(claim.says and claim.source for claim in CLAIMS)


def test_the_page_lists_the_claims_of_the_command():
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.*?) \| .* \| (pass|FAIL) \|$", text, re.MULTILINE)
    assert [name for name, _ in rows] == [claim.name for claim in CLAIMS]
    assert {verdict for _, verdict in rows} == {"pass"}
    for claim in CLAIMS:
        assert f"| {claim.name} | {claim.source} |" in text


@pytest.mark.parametrize("seed", [-1, 1.5])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(ScenarioError, match="seed"):
        next(verify(quick=True, seed=seed))


# -- the command ------------------------------------------------------------------------------------------------------


def stop(oracle, effort) -> Evidence:
    raise KeyboardInterrupt


FORMULA = CLAIMS[1]
BROKEN = replace(FORMULA, name="broken", oracle=FORMULA.wrong)
STOPS = replace(FORMULA, name="stops", measure=stop)
CHANCE = Claim("law: dice", "a die is fair", "here", 0, 1, lambda oracle, effort: Evidence("p", 0.5, "1", None, 0.2))


@pytest.fixture
def call(monkeypatch):
    def run(listed: list[Claim], *words: str):
        monkeypatch.setattr(verification, "CLAIMS", tuple(listed))
        return CliRunner().invoke(main, ["verify", *words])

    return run


def test_the_command_passes(call):
    done = call([FORMULA, CHANCE], "--quick")
    assert done.exit_code == 0
    assert f"pass  {FORMULA.name}" in done.stdout
    assert "2 of 2 claims hold" in done.stdout
    assert "p = 1.0e-03" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_claim_that_fails_is_named_and_sets_the_exit_code(call):
    done = call([FORMULA, CHANCE, BROKEN])
    assert done.exit_code == 1
    assert "FAIL  broken" in done.stdout
    assert "2 of 3 claims hold\nFAILED broken" in done.stdout


def test_json_has_every_finding(call):
    done = call([FORMULA, CHANCE, BROKEN], "--json", "--seed", "5")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert (found["seed"], found["interrupted"], found["quick"]) == (5, False, False)
    assert [finding["verdict"] for finding in found["findings"]] == ["pass", "pass", "FAIL"]
    assert [finding["false_alarm"] for finding in found["findings"]] == [0, 1e-3, 0]


def test_what_was_finished_before_ctrl_c_is_kept(call):
    done = call([FORMULA, CHANCE, STOPS, BROKEN])
    assert done.exit_code == 130
    assert "INTERRUPTED: 2 claims were not measured\n2 of 2 claims hold" in done.stdout
    found = json.loads(call([FORMULA, CHANCE, STOPS], "--json").stdout)
    assert found["interrupted"]
    assert len(found["findings"]) == 2


def test_a_bad_seed_is_one_line(call):
    done = call([FORMULA], "--seed", "-1")
    assert done.exit_code == 2
    assert done.stderr == "error: --seed must be a whole number, 0 or more (got -1); give for instance --seed 1\n"
