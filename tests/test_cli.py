"""The command line as a person uses it: in processes of its own where that matters."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from asyncq import Scenario, replicate
from asyncq.cli import main
from asyncq.cli.terminal import stop_on_interrupt

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
    assert max(map(len, result.output.splitlines())) <= 104
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
        (["simulate", QUICK, "--engine", "quantum"], "'quantum' is not one of"),
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


def test_check_reads_plans_too(tmp_path):
    plan = tmp_path / "plan.toml"
    good = (ROOT / "scenarios" / "plans" / "slow-machine.toml").read_text()
    plan.write_text(good)
    assert "a plan of 2 candidates" in call("check", plan).stdout
    plan.write_text(good.replace("[plan.vary]", "[plan.vary]\nslov.workers = [1, 2]"))
    result = call("check", plan)
    assert result.exit_code == 2
    assert 'plan.vary slov.workers: there is no such pool or table (got "slov"); did you mean "slow"?' in result.stderr


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
        "import sys; from asyncq import cli; from asyncq.results import run\n"
        "fold, chunks = run.Collector.fold, []\n"
        "def announced(*a):\n"
        "    fold(*a); chunks.append(1)\n"
        "    if len(chunks) == 3: print('running', file=sys.stderr, flush=True)\n"
        f"run.Collector.fold = announced; cli.main({command!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stderr.readline().strip() == b"running"
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


# -- replications -----------------------------------------------------------------------------------------------------


def test_replications_are_reported_with_their_estimates():
    result = call("simulate", QUICK, "--replications", 5, "--updates", 4000, "--seed", 3)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[1].startswith("5 replications; engine simpy, seed 3")
    seen = replicate(Scenario.from_toml(QUICK), replications=5, updates=4000, seed=3)
    for name, estimate in (
        ("throughput", seen.throughput),
        ("staleness", seen.staleness),
        ("its sd", seen.staleness_sd),
        ("fresh", seen.fresh),
    ):
        (line,) = (line for line in lines if line.startswith(f"  {name} "))
        shown = [float(number) for number in re.findall(r"\d+\.\d+", line)]
        assert shown == pytest.approx([estimate.mean, *estimate.ci95], rel=1e-5)
    for line, run in zip(lines[-5:], seen.runs, strict=True):
        assert line.split()[1:] == [
            f"{run.updates:,}", f"{run.staleness.mean:.6g}", f"{run.throughput.mean:.6g}", run.fit.verdict
        ]  # fmt: skip


def test_one_replication_has_no_interval():
    result = call("simulate", QUICK, "--replications", 1, "--updates", 2000)
    assert result.exit_code == 0
    assert "[" not in result.output


def test_replications_as_json_and_as_a_file(tmp_path):
    result = call("simulate", QUICK, "--replications", 2, "--updates", 3000, "--seed", 1, "--json", "--out", tmp_path)
    report = json.loads(result.stdout)
    assert report == replicate(Scenario.from_toml(QUICK), replications=2, updates=3000, seed=1).to_dict()
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    assert json.loads((tmp_path / "summary.json").read_text()) == report


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--replications", 0], "replications must be"),
        (["--replications", -3, "--json"], "replications must be"),
        (["--replications", 2, "--trace", "--out", "x"], "--trace goes with a single run"),
        (["--replications", "many"], "replications must be a whole number"),
    ],
)
def test_bad_replications_are_refused(options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("simulate", QUICK, *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not list(tmp_path.iterdir())


# -- the progress bar -------------------------------------------------------------------------------------------------


def written_to_terminal(*arguments: str, **more: str) -> str:
    """What a simulation writes to standard error when that is a terminal, with ``more`` in its environment."""
    pty = pytest.importorskip("pty")
    primary, secondary = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "140", **more}
    command = [sys.executable, "-m", "asyncq", "simulate", QUICK, *arguments]
    written = b""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=secondary, cwd=ROOT, env=environment
    ) as process:
        os.close(secondary)
        with contextlib.suppress(OSError):  # the terminal is gone with the program
            while more := os.read(primary, 65536):
                written += more
    os.close(primary)
    assert process.returncode == 0, written
    return written.decode()


def on_terminal(*arguments: str) -> str:
    """The same without colours and movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written_to_terminal(*arguments))


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
def test_no_color_is_respected():
    """See no-color.org: bold and movements are no colours."""
    colour = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")
    assert not colour.search(written_to_terminal("--updates", "2000", NO_COLOR="1"))
    assert colour.search(written_to_terminal("--updates", "2000", NO_COLOR=""))


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
def test_the_progress_bar_says_that_a_kernel_may_be_compiled():
    written = on_terminal("--engine", "compiled", "--updates", "50000")
    assert 0 <= written.index("starting (a new protocol is compiled once, about 4 s)") < written.rindex("simulating")
    assert "50000/50000" in written
    assert "starting" not in on_terminal("--engine", "simpy", "--updates", "2000")


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
def test_the_progress_bar_covers_all_replications():
    written = on_terminal("--replications", "3", "--updates", "20000")
    assert "60000/60000" in written


def test_no_progress_bar_without_a_terminal():
    assert python("-m", "asyncq", "simulate", QUICK, "--updates", "2000", "--replications", "2").stderr == ""


def test_the_help_names_the_engines():
    assert "auto|simpy|compiled" in " ".join(call("simulate", "--help").output.split())


def test_an_interrupt_that_a_compiler_swallows_is_kept():
    """Before the first chunk Ctrl-C ends the program; if that goes unheard, the run ends with its first chunk."""
    with stop_on_interrupt() as stopped:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stopped()
    with stop_on_interrupt() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGINT)  # under way: asks only
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
