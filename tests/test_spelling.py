"""Laws as texts: whatever is spelled is the law its constructor builds, and anything else is one clear line."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncq.cli import main
from asyncq.cli.spelling import EXAMPLES, SPELLINGS, spelled_law
from asyncq.errors import ScenarioError
from asyncq.staleness import StalenessLaw

whole = st.integers(0, 500)
positive = st.floats(0.05, 200)


def same(text: str, law: StalenessLaw) -> None:
    found = spelled_law(text)
    assert np.array_equal(found.pmf, law.pmf)
    assert found.name == law.name


@settings(max_examples=60, deadline=None)
@given(whole, whole, positive, positive)
def test_what_is_spelled_is_what_the_constructor_builds(low, more, mean, other):
    same(f"constant:{low}", StalenessLaw.constant(low))
    same(f"geometric:{1 + mean!r}", StalenessLaw.geometric(workers=1 + mean))
    same(f"uniform:{low},{low + more}", StalenessLaw.uniform(low, low + more))
    same(f"discrete-normal:{1 + mean!r},{other!r}", StalenessLaw.discrete_normal(1 + mean, other))
    same(f"poisson:{mean!r}", StalenessLaw.poisson(mean))
    same(f" negative-binomial : {mean!r}, {other!r} ", StalenessLaw.negative_binomial(mean, other))


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=30), st.builds("{}:{}".format, st.sampled_from([*SPELLINGS]), st.text(max_size=12))))
def test_any_text_is_a_law_or_one_clear_line(text):
    try:
        law = spelled_law(text)
    except ScenarioError as error:
        (problem,) = error.problems
        assert "\n" not in problem
        assert "; " in problem
    else:
        assert law.pmf.sum() + law.truncation == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(whole, st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_a_file_of_counts_or_shares(tmp_path_factory, shares):
    path = tmp_path_factory.mktemp("laws") / "a.csv"
    lines = "".join(f"{staleness},{share!r},0\n" for staleness, share in shares.items())
    path.write_text(f"staleness,share,geometric\n{lines}")
    law = spelled_law(f"file:{path}")
    total = sum(shares.values())
    assert law.source == "measured"
    assert law.pmf[list(shares)] == pytest.approx([share / total for share in shares.values()])
    assert law.pmf.sum() == pytest.approx(1)


def test_what_simulate_writes_is_read_back(tmp_path):
    arguments = ["simulate", "scenarios/quickstart.toml", "--updates", "3000", "--seed", "1", "--out", str(tmp_path)]
    from pathlib import Path

    from asyncq import Scenario, simulate

    root = Path(__file__).parents[1]
    arguments[1] = str(root / arguments[1])
    assert CliRunner().invoke(main, arguments).exit_code == 0
    run = simulate(Scenario.from_toml(arguments[1]), updates=3000, seed=1)
    assert spelled_law(f"file:{tmp_path / 'staleness.csv'}").pmf == pytest.approx(run.staleness.pmf, rel=1e-12)


def test_the_examples_are_laws():
    assert EXAMPLES.keys() == SPELLINGS.keys()
    for name, text in EXAMPLES.items():
        assert text.startswith(name)
        assert spelled_law(text).mean > 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("constnt:3", 'did you mean "constant"'),
        ("", "NAME:NUMBERS"),
        ("constant", "constant:staleness"),
        ("constant:", "must be a number"),
        ("constant:1.5", "whole number"),
        ("constant:-1", "0 or more"),
        ("constant:nan", "must be a number"),
        ("poisson:inf", "must be a number of at most"),
        ("poisson:-inf", "must be a number"),
        ("geometric:1e9", "at most 100,000"),
        ("geometric:0.5", "workers must be 1 or more"),
        ("uniform:3", "got 1 number)"),
        ("uniform:5,2", "low <= high"),
        ("uniform:1,2,3", "got 3 numbers"),
        ("negative-binomial:1e5,1e-6", "mean / r must be at most"),
        ("negative-binomial:7,0", "r > 0"),
        ("discrete-normal:5,0", "positive sd"),
        ("file:", "NAME:NUMBERS"),
        ("file:nowhere.csv", "nowhere.csv: cannot be read"),
    ],
)
def test_refusals(text, words):
    with pytest.raises(ScenarioError) as refusal:
        spelled_law(text)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "must have one column staleness"),
        ("staleness,share\n", "must have one column staleness"),
        ("staleness,share,share\n1,2,3\n", "must have one column staleness, one share"),
        ("a,b\n1,2\n", "must have one column staleness"),
        ("staleness,share\n1.5,1\n", "line 2: a staleness must be a whole number"),
        ("staleness,share\n0,1\n1,-1\n", "line 3"),
        ("staleness,share\n0,nan\n", "line 2"),
        ("staleness,share\n0\n", "line 2"),
        ("staleness,share\n0,1\n0,1\n", "stands there twice"),
        ("staleness,share\n0,0\n", "positive and finite sum"),
        ("staleness,share\n0,1e308\n1,1e308\n", "positive and finite sum"),
        ("staleness,share\n99999999,1\n", "line 2"),
    ],
)
def test_bad_files(tmp_path, content, words):
    path = tmp_path / "law.csv"
    path.write_text(content)
    with pytest.raises(ScenarioError) as refusal:
        spelled_law(f"file:{path}")
    assert words in str(refusal.value)
    assert str(path) in str(refusal.value)
