"""Large numbers of workers and long runs, as JSON; parts of benchmarks/engines.py, each in a process of its own.

    python benchmarks/scale.py workers M UPDATES
    python benchmarks/scale.py memory UPDATES
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from contenders import peak_kib

from asyncq import Scenario, simulate


def scenario(workers: int) -> Scenario:
    pool = {"name": "gpu", "workers": workers, "work_time": {"law": "exponential", "mean": 1.0}}
    return Scenario.from_dict({"schema": 1, "pool": [pool]})


def resident_kib() -> int:
    """Now, from /proc; the peak where there is none."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4 if statm.exists() else peak_kib()


def many_workers(workers: int, updates: int) -> dict[str, float]:
    simulate(scenario(8), engine="compiled", updates=1000, seed=1)  # compiled now
    shown = 0

    def look(version: int) -> None:
        nonlocal shown
        if version >= shown + updates // 4:
            shown = version
            print(f"  {version:,} of {updates:,} updates", file=sys.stderr, flush=True)

    began = time.process_time()
    run = simulate(scenario(workers), engine="compiled", updates=updates, seed=1, on_chunk=look)
    seconds = time.process_time() - began
    age = float(workers)
    room = 12 * workers**0.5 * age / (run.updates - run.warmup)
    assert abs(run.staleness.mean - (workers - 1)) < room, (run.staleness.mean, room)
    return {"workers": workers, "updates": updates, "updates_per_cpu_second": updates / seconds,
            "mean_staleness": run.staleness.mean, "peak_mib": peak_kib() / 1024}  # fmt: skip


def long_run(updates: int) -> dict[str, float]:
    """Resident memory on the way."""
    marks = [mark for mark in (10**7, 10**8, 3 * 10**8, 6 * 10**8) if mark < updates]
    began, seen = time.perf_counter(), {}

    def look(version: int) -> None:
        if marks and version >= marks[0]:
            seen[marks.pop(0)] = resident_kib() / 1024
            seconds = time.perf_counter() - began
            print(f"  {version:,} of {updates:,} updates, {seconds:.0f} s, "
                  f"{resident_kib() / 1024:.1f} MiB resident", file=sys.stderr, flush=True)  # fmt: skip

    run = simulate(scenario(64), engine="compiled", updates=updates, seed=1, on_chunk=look)
    seen[updates] = resident_kib() / 1024
    return {"resident_mib": seen, "peak_mib": peak_kib() / 1024, "wall_seconds": time.perf_counter() - began,
            "mean_staleness": run.staleness.mean}  # fmt: skip


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[2:]]
    print(json.dumps(many_workers(*numbers) if sys.argv[1] == "workers" else long_run(*numbers)))
