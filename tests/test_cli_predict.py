"""``asyncq predict``: what is printed is what theory says, and that without a simulation."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from asyncq import Scenario
from asyncq.cli import main
from asyncq.staleness import StalenessLaw

ROOT = Path(__file__).parents[1]
SCENARIOS = sorted((ROOT / "scenarios").glob("*.toml"))
QUICK = str(ROOT / "scenarios" / "quickstart.toml")
HEAVY_TAIL = str(ROOT / "scenarios" / "heavy-tail.toml")


def call(*arguments: object):
    return CliRunner().invoke(main, ["predict", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_shipped_scenario_is_predicted_on_one_screen(path):
    result = call(path)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    assert lines[1].startswith(("predicted, no simulation", "exact, no simulation"))
    report = json.loads(call(path, "--json").stdout)
    assert report["scenario"] == Scenario.from_toml(path).to_dict()
    if report.get("throughput") is not None:
        says = "(exact)" if report["throughput"]["exact"] else "(bounds)"
        assert lines[3].startswith("throughput")
        assert lines[3].endswith(says)


def test_eight_exponential_workers():
    """Geometric of mean 7, 80 updates a second, and harmonic numbers behind a barrier: all by hand."""
    report = json.loads(call(QUICK, "--json").stdout)
    pmf = np.array(report["staleness"]["pmf"])
    assert pmf == pytest.approx(0.125 * 0.875 ** np.arange(pmf.size), abs=1e-15)
    assert report["staleness"]["mean"] == 7
    assert report["throughput"]["mean"] == pytest.approx(80)
    assert report["synchronous"]["mean"] == pytest.approx(80 / sum(1 / n for n in range(1, 9)))
    expected = {"target": 0.9, "implicit": 0.875, "explicit": pytest.approx(0.025), "basis": "geometric law"}
    assert report["momentum"] == expected | {"is_delay": False}


def test_overrides_reach_the_scenario():
    report = json.loads(call(QUICK, "--json", "--set", "gpu.workers=4", "--set", "optimizer.momentum=0.5").stdout)
    assert report["staleness"]["mean"] == 3
    assert report["momentum"]["explicit"] == pytest.approx(-0.25)


def test_where_there_is_no_law_counting_still_gives_the_mean():
    text = call(ROOT / "scenarios" / "parameter-server.toml").output
    assert "mean 7 updates (exact, by counting); its law only by simulation" in text
    assert "nearest scenario with one" in text
    report = json.loads(call(ROOT / "scenarios" / "stale-synchronous.toml", "--json").stdout)
    assert report["staleness"]["mean"] is None
    assert report["momentum"] is None
    assert report["staleness"]["reason"]
    assert report["staleness"]["nearest"]
    assert 0 < report["throughput"]["low"] < report["throughput"]["high"]
    assert report["throughput"]["gradients"]["unit"] == "gradients per second"


def test_a_heavy_tail_is_cut_where_its_own_error_begins_and_its_sd_is_a_lower_bound():
    report = json.loads(call(HEAVY_TAIL, "--json").stdout)["staleness"]
    assert len(report["pmf"]) < 20_000
    assert report["sd_is_lower_bound"]
    assert report["truncation"] <= report["error"] * (1 + 1e-6)
    assert sum(report["pmf"]) + report["truncation"] == pytest.approx(1, abs=1e-12)
    assert "sd above" in call(HEAVY_TAIL).output


def test_out_writes_the_report_the_law_and_figures(tmp_path):
    result = call(QUICK, "--json", "--out", tmp_path)
    figures = {f"{name}.{suffix}" for name in ("staleness", "momentum") for suffix in ("png", "svg")}
    assert {path.name for path in tmp_path.iterdir()} == {"summary.json", "staleness.csv", *figures}
    assert json.loads((tmp_path / "summary.json").read_text()) == json.loads(result.stdout)
    with (tmp_path / "staleness.csv").open() as file:
        shares = [float(row["share"]) for row in csv.DictReader(file)]
    assert shares[:3] == pytest.approx([0.125, 0.109375, 0.095703125])
    assert (tmp_path / "staleness.png").read_bytes().startswith(b"\x89PNG")


def test_out_without_a_law(tmp_path):
    call(ROOT / "scenarios" / "bounded.toml", "--out", tmp_path / "bounded")
    assert [path.name for path in (tmp_path / "bounded").iterdir()] == ["summary.json"]
    call(ROOT / "scenarios" / "pipeline.toml", "--out", tmp_path / "pipeline")
    assert [path.name for path in (tmp_path / "pipeline").iterdir()] == ["summary.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.toml"], "missing.toml"),
        ([QUICK, "--out", QUICK], "which is a file"),
        ([QUICK, "--set", "gpu.wrokers=3"], "workers"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments, words):
    result = call(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_nothing_heavy_is_imported():
    heavy = ("scipy.stats", "statsmodels", "numba", "matplotlib", "simpy", "rich")
    forbidden = (*heavy, "asyncq.engines", "asyncq.results.run")
    code = (
        "import sys, contextlib\n"
        "from asyncq.cli import main\n"
        f"with contextlib.suppress(SystemExit): main(['predict', {QUICK!r}])\n"
        f"print([name for name in {forbidden!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize("tail", [0.0, 1e-12, 1e-3, 0.5])
def test_a_cut_law_leaves_out_no_more_than_asked(tail):
    law = StalenessLaw.geometric(workers=8)
    cut = law.cut(tail)
    assert cut.truncation <= max(tail, law.truncation) * (1 + 1e-9) + 1e-15
    assert np.array_equal(cut.pmf, law.pmf[: cut.pmf.size])
    if cut.pmf.size < law.pmf.size:
        assert law.survival[cut.pmf.size - 2] > tail  # and not a cell fewer
    assert np.array_equal(StalenessLaw.constant(3).cut(tail).pmf, StalenessLaw.constant(3).pmf)
