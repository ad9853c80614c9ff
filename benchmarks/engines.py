"""Updates per second and peak memory of our engines and of others, side by side and alternating in one run.

    python benchmarks/engines.py [--quick] [--rounds R] [--only WORKLOAD ...] [--json FILE]     the comparison
    python benchmarks/engines.py --breakdown        what the time of a compiled run is spent on
    python benchmarks/engines.py --scale            a million workers, and a billion updates
    python benchmarks/engines.py --all --json docs/performance.json --docs       everything, and docs/performance.md
    python benchmarks/engines.py --docs             docs/performance.md again from docs/performance.json

Every contender runs in a process of its own that is warmed up first: compilation, imports and a run that finds how many
updates take the time of a measurement are left out. Rounds alternate: each contender once, in turn, then all again.
A contender whose mean staleness is wrong stops the benchmark. Peers: pip install cimba salabim ciw; a C++ compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

from contenders import NAMES, SERVICE, WORKLOADS, Workload, skipped, utilisation

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
FLAGS = ["-std=c++20", "-O3", "-march=native"]
LOOPS = ("queue", "tree")
SPREAD = 0.03  # means without a law of conservation must agree to this share


# -- one contender ----------------------------------------------------------------------------------------------------


class Contender:
    """A warm process that simulates on demand."""

    def __init__(self, name: str, workload: Workload, loops: Path | None) -> None:
        self.name, self.workload = name, workload
        command = [sys.executable, str(HERE / "contenders.py"), name, workload.name]
        if name in LOOPS:
            protocol = workload.protocol
            pools = [str(value) for pool in workload.pools for value in pool]
            parameter = str(protocol.get("bound", protocol.get("k", 0)))
            command = [str(loops), name, protocol["kind"], parameter, str(workload.service), *pools]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.updates = 0
        self.measured: list[dict[str, float]] = []

    def run(self, updates: int, seed: int) -> dict[str, float]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{updates} {seed}\n")
        self.process.stdin.flush()
        words = self.process.stdout.readline().split()
        if len(words) != 6:
            raise SystemExit(f"{NAMES[self.name]} failed at {self.workload.title}")
        cpu, wall, mean, rows, cold, peak = map(float, words)
        return {"updates": updates, "cpu": cpu, "wall": wall, "mean": mean, "rows": rows, "cold": cold, "peak": peak}

    def warm_up(self, seconds: float) -> None:
        """Compile, and find the number of updates that take about so many seconds; at least 20 a worker."""
        least = max(200, 20 * self.workload.workers // self.workload.rows_per_update)
        self.run(least, 0)
        self.updates = least
        while (cpu := self.run(self.updates, 0)["cpu"]) < seconds / 2 and self.updates < 10**10:
            self.updates = int(self.updates * min(8.0, max(1.3, 0.9 * seconds / cpu)))  # short runs are mostly set-up
        self.updates = max(least, int(self.updates * seconds / cpu))

    def measure(self, seed: int) -> None:
        self.measured.append(self.run(self.updates, seed))

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def check(workload: Workload, contenders: list[Contender]) -> None:
    """The mean staleness of every run: conserved, or that of the others."""
    expected = workload.conserved_mean
    share = 0.0
    if expected is None:
        expected = statistics.median(run["mean"] for one in contenders for run in one.measured)
        share = SPREAD
    for one in contenders:
        for run in one.measured:
            room = workload.tolerance(int(run["rows"]), bool(run["cold"])) + share * expected
            if abs(run["mean"] - expected) > room:
                raise SystemExit(f"{NAMES[one.name]}, {workload.title}: mean staleness {run['mean']:g}, "
                                 f"not {expected:g} within {room:.2g}")  # fmt: skip


def compare(workload: Workload, loops: Path | None, why_no_loops: str, options: argparse.Namespace) -> dict[str, Any]:
    """One workload: all contenders, warmed up one by one, then measured in turn."""
    reasons = {name: why_no_loops if name in LOOPS and loops is None else skipped(name, workload) for name in NAMES}
    say(f"{workload.title}: warming up")
    contenders = []
    try:
        for name in NAMES:
            if reasons[name] is None:
                contenders.append(Contender(name, workload, loops))
                contenders[-1].warm_up(options.seconds)
        for round_ in range(options.rounds):
            say(f"{workload.title}: round {round_ + 1} of {options.rounds}")
            for one in contenders[round_ % 2 :: 2] + contenders[1 - round_ % 2 :: 2]:
                one.measure(round_ + 1)
        check(workload, contenders)
    finally:
        for one in contenders:
            one.close()
    rows = {one.name: summary(one) for one in contenders}
    return {"title": workload.title, "contenders": rows,
            "skipped": {name: reason for name, reason in reasons.items() if reason}}  # fmt: skip


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "minimum": min(values), "maximum": max(values)}


def summary(one: Contender) -> dict[str, Any]:
    runs = one.measured
    return {
        "updates": one.updates,
        "per_cpu_second": spread([run["updates"] / run["cpu"] for run in runs]),
        "per_wall_second": spread([run["updates"] / run["wall"] for run in runs]),
        "peak_mib": max(run["peak"] for run in runs) / 1024,
        "mean_staleness": statistics.median(run["mean"] for run in runs),
        "rates": [run["updates"] / run["cpu"] for run in runs],
    }


# -- ratios -----------------------------------------------------------------------------------------------------------

ASYNC = ("async-8", "async-64", "async-1024")
RATIOS = [
    *((f"compiled to idiomatic SimPy, {w}", "compiled", "idiomatic", w, must, aim)
      for w, must, aim in (*zip(ASYNC, (50, 50, 40), (90, 90, 80), strict=True), ("server-64", 100, 200))),
    ("compiled to Cimba, async-64", "compiled", "cimba", "async-64", 4, 8),
    ("compiled to Ciw, async-64", "compiled", "ciw", "async-64", 300, 300),
    ("compiled to C++ priority_queue, async-64", "compiled", "queue", "async-64", 1.5, 2.5),
    ("compiled to C++ winner tree, async-64", "compiled", "tree", "async-64", 0.4, 0.7),
    ("C++ winner tree to priority_queue, async-64", "tree", "queue", "async-64", 2.5, 2.5),
]  # fmt: skip
COSTS = [  # cost of an update over that of another workload's, at most
    ("cost per update, stale-synchronous to asynchronous at M = 1024", "ssp-1024", "async-1024", 3, 3),
    ("cost per update, 8 shards to one server", "sharded-64", "server-64", 10, 10),
    ("cost per update, M = 1024 to M = 8", "async-1024", "async-8", 3, 2),
]


def ratios(engines: dict[str, Any]) -> list[dict[str, Any]]:
    """Updates per CPU second over another's, round by round; costs between workloads, from medians and extremes."""
    found = []
    for title, one, other, workload, must, aim in RATIOS:
        rows = engines.get(workload, {}).get("contenders", {})
        if one in rows and other in rows:
            pairs = zip(rows[one]["rates"], rows[other]["rates"], strict=True)
            over = spread([a / b for a, b in pairs])
            found.append({"title": title, "must": must, "aim": aim, "at_most": False, **over})
    for title, one, other, must, aim in COSTS:
        if one in engines and other in engines:
            mine, theirs = (engines[w]["contenders"]["compiled"]["per_cpu_second"] for w in (one, other))
            found.append({"title": title, "must": must, "aim": aim, "at_most": True,
                          "median": theirs["median"] / mine["median"],
                          "minimum": theirs["minimum"] / mine["maximum"],
                          "maximum": theirs["maximum"] / mine["minimum"]})  # fmt: skip
    return found


def verdict(ratio: dict[str, Any]) -> str:
    def meets(bound: float) -> bool:
        return ratio["median"] <= bound if ratio["at_most"] else ratio["median"] >= bound

    return "aim met" if meets(ratio["aim"]) else "met" if meets(ratio["must"]) else "missed"


def all_ratios(engines: dict[str, Any]) -> list[dict[str, Any]]:
    """The compiled engine over every other contender of every workload, round by round."""
    found = []
    for name, part in engines.items():
        rows = part["contenders"]
        over = {other: spread([a / b for a, b in zip(rows["compiled"]["rates"], row["rates"], strict=True)])
                for other, row in rows.items() if other != "compiled"}  # fmt: skip
        found.append({"workload": name, "title": part["title"], "over": over})
    return found


# -- tables -----------------------------------------------------------------------------------------------------------


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, legible as it stands; the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(row: list[str]) -> str:
        cells = [cell.ljust(width) if i == 0 else cell.rjust(width)
                 for i, (cell, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        return f"| {' | '.join(cells)} |"

    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


def figure(value: float) -> str:
    """Three digits, thousands with commas."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def rate(value: float) -> str:
    """Updates a second with three digits: 16.8 M, 554 k, 970."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 999.5 * size else f"{value / size:.0f} {unit}"
    return f"{value:.3g}"


def rate_table(part: dict[str, Any]) -> str:
    rows = []
    for name, title in NAMES.items():
        if name in part["contenders"]:
            row = part["contenders"][name]
            cpu, wall = row["per_cpu_second"], row["per_wall_second"]
            rows.append([title, rate(cpu["median"]), f"{rate(cpu['minimum'])} - {rate(cpu['maximum'])}",
                         rate(wall["median"]), f"{1e9 / cpu['median']:,.0f}", f"{row['peak_mib']:,.0f}",
                         f"{row['mean_staleness']:.4g}"])  # fmt: skip
    head = ["", "updates/CPU s", "min - max", "updates/s wall", "ns/update", "peak MiB", "mean staleness"]
    return table(head, rows)


def ratio_table(found: list[dict[str, Any]]) -> str:
    rows = []
    for r in found:
        marks = ("at most " if r["at_most"] else "") + f"{r['must']:g} / {r['aim']:g}"
        spread_ = f"{figure(r['minimum'])} - {figure(r['maximum'])}"
        rows.append([r["title"], figure(r["median"]), spread_, marks, verdict(r)])
    return table(["", "ratio", "min - max", "must / aim", ""], rows)


def over_table(found: list[dict[str, Any]]) -> str:
    others = [name for name in NAMES if name != "compiled"]
    rows = [[part["title"], *(figure(part["over"][o]["median"]) if o in part["over"] else "-" for o in others)]
            for part in found]  # fmt: skip
    return table(["compiled to", *(NAMES[name].removeprefix("asyncq, ") for name in others)], rows)


def breakdown_table(parts: list[dict[str, Any]]) -> str:
    names = list(parts[0]["parts"])
    rows = []
    for part in parts:
        total = sum(part["parts"].values())
        cells = [f"{part['parts'][name]:.1f}" for name in names]
        rows.append([WORKLOADS[part["workload"]].title, *cells, f"{total:.1f}"])
    return table(["ns per update", *names, "whole"], rows)


def stand_in_lines(parts: list[dict[str, Any]]) -> list[str]:
    lines = []
    for part in parts:
        if "stand_ins" in part:
            calendar, rows = part["stand_ins"].values()
            kernel = part["parts"]["kernel"]
            left = kernel - rows
            rest = f"what is left, {left:.1f}, goes" if left >= 1 else "nothing measurable is left that goes"
            lines.append(
                f"{WORKLOADS[part['workload']].title}: of the kernel's {kernel:.1f} ns, a loop over the calendar alone "
                f"takes {calendar:.1f}; with the rule and its rows {rows:.1f}; {rest} to streams, stages and the "
                "account of machine time."
            )
        elif "stand_ins_missing" in part:
            lines.append(part["stand_ins_missing"])
    return lines


# -- the machine and the parts of the run -----------------------------------------------------------------------------


def say(line: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)


def machine(compiler: str | None) -> dict[str, Any]:
    model, caches = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        stripped = {key.strip(): value.strip() for key, value in fields.items()}
        model, caches = stripped.get("model name", model), stripped.get("cache size", "")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout if compiler else ""
    packages = subprocess.run(
        [sys.executable, "-c", "import importlib.metadata as m, json, sys; d = {}\n"
         "for name in sys.argv[1:]:\n"
         "    try: d[name] = m.version(name)\n"
         "    except m.PackageNotFoundError: d[name] = None\n"
         "print(json.dumps(d))", "asyncq", "numpy", "numba", "simpy", "ciw", "salabim", "cimba"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "cache": caches,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "compiler": version.splitlines()[0] if version else None,
        "packages": json.loads(packages.stdout),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "date": time.strftime("%Y-%m-%d"),
    }


def compiled_loops(folder: str) -> tuple[Path | None, str, str | None]:
    """The binary of loops.cpp; or why there is none. And the compiler."""
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if compiler is None:
        return None, "no C++ compiler", None
    binary = Path(folder) / "loops"
    command = [compiler, *FLAGS, str(HERE / "loops.cpp"), "-o", str(binary)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        say(made.stderr)
        return None, f"{Path(compiler).name} did not compile loops.cpp", compiler
    return binary, "", compiler


def output_of(script: str, *words: object) -> dict[str, Any]:
    command = [sys.executable, str(HERE / script), *map(str, words)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)  # type: ignore[no-any-return]


def measure_breakdown(quick: bool) -> list[dict[str, Any]]:
    found = []
    for name in ("async-64", "async-1024", "server-64", "ssp-64"):
        say(f"breakdown: {name}")
        found.append(output_of("breakdown.py", name, 3_000_000 if quick else 30_000_000))
    return found


def measure_scale(quick: bool) -> dict[str, Any]:
    many = []
    for workers in (100_000, 1_000_000):
        say(f"scale: {workers:,} workers")
        many.append(output_of("scale.py", "workers", workers, 20 * workers))
    updates = 10**8 if quick else 10**9
    say(f"scale: {updates:,} updates")
    return {"workers": many, "memory": output_of("scale.py", "memory", updates)}


def scale_lines(scale: dict[str, Any]) -> list[str]:
    lines = [
        f"{part['workers']:,} workers: {rate(part['updates_per_cpu_second'])} updates per CPU second over "
        f"{part['updates']:,} updates, peak {part['peak_mib']:,.0f} MiB, mean staleness {part['mean_staleness']:,.0f}."
        for part in scale["workers"]
    ]
    resident = {int(updates): mib for updates, mib in scale["memory"]["resident_mib"].items()}
    first, last = min(resident), max(resident)
    lines.append(
        f"Resident memory: {resident[first]:.1f} MiB after {first:,} updates, {resident[last]:.1f} MiB after {last:,} "
        f"({resident[last] - resident[first]:+.1f}); peak {scale['memory']['peak_mib']:.1f} MiB."
    )
    return lines


# -- the page ---------------------------------------------------------------------------------------------------------


def prose(text: str) -> list[str]:
    """A paragraph, filled, and the empty line after it."""
    return [*textwrap.wrap(" ".join(text.split()), 120, break_on_hyphens=False, break_long_words=False), ""]


def page(found: dict[str, Any]) -> str:
    """docs/performance.md."""
    place = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in place["packages"].items() if version)
    out = ["# Performance", "",
           "<!-- Written by benchmarks/engines.py --docs from docs/performance.json: do not edit. -->", ""]  # fmt: skip
    out += prose("""How fast the two engines are, beside other ways to simulate the same systems, measured in one run on
        one machine. Rates belong to the machine; only the ratios travel.""")
    out += prose(f"""Measured {place["date"]} on {place["cpu"]}, {place["cores"]} cores, {place["system"]}, Python
        {place["python"]}; {versions}; {place["compiler"] or "no C++ compiler"} with `{" ".join(FLAGS)}`.
        Load of the machine before and after: {place["load"]:.1f}, {place["load_at_end"]:.1f}.""")
    if "engines" in found:
        out += _comparison(found["engines"], found["settings"])
    if "breakdown" in found:
        out += ["## What the time is spent on", "", breakdown_table(found["breakdown"]), ""]
        out += prose("""*variates*: numpy draws them in blocks. *kernel*: calendar, rules, rows. *refills*: blocks
            copied into the kernel's streams. *folding*: chunks of rows into histograms, batches and sums per worker.
            They are timed where they meet, in a run of the released path.""")
        for line in stand_in_lines(found["breakdown"]):
            out += prose(line)
    if "scale" in found:
        out += ["## Large and long", "", *(f"* {line}" for line in scale_lines(found["scale"])), ""]
    out += ["## Reproduce", "", "```text", "pip install cimba salabim ciw",
            "python benchmarks/engines.py --all --json docs/performance.json --docs", "```", ""]  # fmt: skip
    names = ", ".join(f"`{name}`" for name in WORKLOADS)
    out += prose(f"""`--only async-64` measures one workload, `--quick` everything in short. The workloads are called
        {names}.""")
    return "\n".join(out)


def _comparison(engines: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    out = ["## Ratios", "", ratio_table(ratios(engines)), ""]
    out += prose(f"""Updates per CPU second over another's, round by round: median, and minimum to maximum over the
        {settings["rounds"]} rounds. *must* and *aim* are the marks that the project set itself.""")
    out += ["The compiled engine over everybody else, by workload (medians):", "", over_table(all_ratios(engines)), ""]
    out += ["## What was measured", ""]
    out += prose("""*asyncq* is `simulate(...)` as released: rows, statistics with their intervals, the fit and the
        momentum line. *engine alone* iterates the compiled engine's chunks of rows without folding them. Everybody
        else counts the staleness histogram and keeps nothing more. *SimPy, idiomatic* is the shortest program for each
        system, with `random.expovariate` (quicker from Python than numpy) and numpy's gamma. The two C++ loops are
        `benchmarks/loops.cpp`: xoshiro256++, ziggurats, Marsaglia-Tsang gammas; a `std::priority_queue` of (time,
        worker), and a packed branch-free winner tree.""")
    out += prose(f"""Each runs in a process of its own, on one core, for about {settings["seconds"]:g} s a measurement,
        {settings["rounds"]} times, in turn with the others. Imports, compilation and a warm-up are left out. Peak
        memory is that of the whole process, Python, libraries and numba's compiler included.""")
    out += prose(f"""Work is exponential with mean 1, but for the three pools: 22, 21 and 21 workers with gamma work of
        mean 1, 1.5 and 2 and cv 0.3, 0.5 and 0.7. The server's mean service is {SERVICE * 64:.4f}/64, which by mean
        value analysis of the closed network keeps it {utilisation(64, SERVICE):.1%} busy. An update of k-async is k
        gradients. The mean staleness of every run is checked: against the law of conservation (M - 1, and M/k - 1 for
        k-async); for stale-synchronous, where workers wait without a read, against each other.""")
    for part in engines.values():
        out += [f"### {part['title'][0].upper()}{part['title'][1:]}", "", rate_table(part), ""]
        reasons: dict[str, list[str]] = {}
        for name, reason in part["skipped"].items():
            reasons.setdefault(reason, []).append(NAMES[name])
        if reasons:
            out += prose("Not run: " + "; ".join(f"{', '.join(who)} ({why})" for why, who in reasons.items()) + ".")
    return out


# -- the command ------------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds of 0.3 s, and small breakdown and scale")
    parser.add_argument("--rounds", type=int, help="measurements of each contender (5)")
    parser.add_argument("--seconds", type=float, help="CPU seconds that a measurement takes, about (1.5)")
    parser.add_argument("--only", nargs="+", choices=list(WORKLOADS), metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--breakdown", action="store_true", help="what a compiled run's time is spent on")
    parser.add_argument("--scale", action="store_true", help="a million workers, a billion updates")
    parser.add_argument("--all", action="store_true", help="the comparison, the breakdown and the scale")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write (or bring up to date) the figures")
    parser.add_argument("--docs", action="store_true", help="write docs/performance.md from docs/performance.json")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.seconds = options.seconds or (0.3 if options.quick else 1.5)
    return options


def main() -> None:
    options = arguments()
    found: dict[str, Any] = {}
    compares = options.all or options.only or not (options.breakdown or options.scale or options.docs)
    if compares or options.breakdown or options.scale:
        with tempfile.TemporaryDirectory() as folder:
            loops, why_no_loops, compiler = compiled_loops(folder)
            found["machine"] = machine(compiler)
            if compares:
                found["settings"] = {"rounds": options.rounds, "seconds": options.seconds}
                found["engines"] = {}
                for name in options.only or WORKLOADS:
                    part = compare(WORKLOADS[name], loops, why_no_loops, options)
                    found["engines"][name] = part
                    print(f"\n{part['title']}\n\n{rate_table(part)}", flush=True)
                    for other, reason in part["skipped"].items():
                        print(f"  {NAMES[other]}: {reason}")
                print(f"\n{ratio_table(ratios(found['engines']))}\n\n{over_table(all_ratios(found['engines']))}")
        if options.all or options.breakdown:
            found["breakdown"] = measure_breakdown(options.quick)
            print("", breakdown_table(found["breakdown"]), "", *stand_in_lines(found["breakdown"]), sep="\n")
        if options.all or options.scale:
            found["scale"] = measure_scale(options.quick)
            print("", *scale_lines(found["scale"]), sep="\n")
        found["machine"]["load_at_end"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        if options.json:
            kept = json.loads(options.json.read_text()) if options.json.exists() else {}
            options.json.write_text(json.dumps({**kept, **found}, indent=1) + "\n")
    if options.docs:
        (DOCS / "performance.md").write_text(page(json.loads((DOCS / "performance.json").read_text())))


if __name__ == "__main__":
    main()
