"""The command line as a person uses it: in processes of its own where that matters."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from asyncq.cli import main

ROOT = Path(__file__).parents[1]
SCENARIOS = sorted((ROOT / "scenarios").glob("*.toml"))
QUICK = str(ROOT / "scenarios" / "quickstart.toml")
HEAVY = ("numpy", "pydantic", "numba", "scipy.stats", "statsmodels", "matplotlib")


def call(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_shipped_scenario_runs_and_fits_one_screen(path):
    result = call("simulate", path, "--updates", 3000, "--seed", 1)
    assert result.exit_code == 0
    assert len(result.output.splitlines()) <= 24
    assert "throughput" in result.output


def test_json_is_all_that_stands_on_stdout():
    result = call("simulate", QUICK, "--json", "--updates", 2000, "--seed", 3)
    report = json.loads(result.stdout)
    assert (report["seed"], report["updates"], report["engine"]) == (3, 2000, "simpy")


def test_overrides_reach_the_scenario():
    result = call("simulate", QUICK, "--json", "--updates", 2000, "--set", "optimizer.momentum=0.5")
    assert json.loads(result.stdout)["momentum"]["target"] == 0.5


def test_out_writes_the_files(tmp_path):
    folder = tmp_path / "a" / "b"
    assert call("simulate", QUICK, "--updates", 3000, "--seed", 1, "--out", folder, "--trace").exit_code == 0
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "summary.json", "staleness.csv", "trace.csv",
        *(f"{name}.{suffix}" for suffix in ("png", "svg")
          for name in ("staleness", "momentum", "survival", "autocorrelation", "warm-up", "workers")),
    }  # fmt: skip
    assert json.loads((folder / "summary.json").read_text())["updates"] == 3000
    with (folder / "staleness.csv").open() as file:
        assert sum(float(row["share"]) for row in csv.DictReader(file)) == pytest.approx(1)
    with (folder / "trace.csv").open() as file:
        assert sum(1 for _ in file) == 3001
    assert (folder / "staleness.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["simulate", "missing.toml"], "missing.toml"),
        (["simulate", QUICK, "--engine", "quantum"], "engine must be one of"),
        (["simulate", QUICK, "--updates", 0], "updates must be"),
        (["simulate", QUICK, "--seed", -1], "seed must be"),
        (["simulate", QUICK, "--trace"], "--out"),
        (["simulate", QUICK, "--out", QUICK], "which is a file"),
        (["simulate", QUICK, "--set", "gpu.wrokers=3"], "workers"),
        (["simulate", QUICK, "--set", "nonsense"], "nonsense"),
        (["check", QUICK, "missing.toml"], "missing.toml"),
        (["simulate"], "Missing argument"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments, words):
    result = call(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_check_reports_every_file(tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text('schema = 1\n[[pool]]\nname = "a"\nworkers = 0\nwork_time = -1\n')
    result = call("check", QUICK, bad)
    assert result.exit_code == 2
    assert f"{QUICK}: ok" in result.stdout
    assert result.stderr.count("error: ") == 2


def python(*arguments: str, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, **options)


@pytest.mark.parametrize(
    ("command", "forbidden"),
    [
        (["--help"], HEAVY),
        (["simulate", "--help"], HEAVY),
        (["simulate", QUICK, "--updates", "2000"], ("statsmodels", "matplotlib", "scipy.stats")),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(command, forbidden):
    code = (
        "import sys, contextlib\n"
        "from asyncq.cli import main\n"
        f"with contextlib.suppress(SystemExit): main({command!r})\n"
        f"print([name for name in {forbidden!r} if name in sys.modules], file=sys.stderr)"
    )
    done = python("-c", code)
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_help_shows_examples():
    assert "Examples:" in call("simulate", "--help").output


def test_output_survives_an_ascii_terminal():
    done = python(
        "-m", "asyncq", "simulate", QUICK, "--updates", "2000", env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0
    assert "####" in done.stdout


def interrupted(*options: str):
    """Exit code, stdout and stderr of a long simulation that is told to stop once it runs."""
    command = ["simulate", QUICK, "--updates", "100000000", "--seed", "1", *options]
    code = (
        "import sys; from asyncq import cli, run\n"
        "engine = run._engine\n"
        "def announced(*a):\n  print('running', file=sys.stderr, flush=True); return engine(*a)\n"
        f"run._engine = announced; cli.main({command!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stderr.readline().strip() == b"running"
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_reports_what_was_finished_and_says_so(tmp_path):
    folder = tmp_path / "out"
    code, out, err = interrupted("--set", "run.warmup=1000", "--json", "--out", str(folder))
    report = json.loads(out)
    assert (code, err) == (130, "")
    assert report["interrupted"]
    assert 1000 < report["updates"] < 100_000_000
    assert json.loads((folder / "summary.json").read_text()) == report
    code, out, err = interrupted("--set", "run.warmup=1000")
    assert (code, err) == (130, "")
    assert out.startswith("INTERRUPTED after ")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_within_the_warm_up_writes_nothing(tmp_path):
    folder = tmp_path / "out"
    code, out, err = interrupted("--set", "run.warmup=99000000", "--out", str(folder))
    assert (code, out) == (1, "")
    assert "nothing to report" in err
    assert list(folder.iterdir()) == []
