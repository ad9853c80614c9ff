"""Our SimPy engine against the shortest idiomatic SimPy program for the same system, alternating in one run.

    python benchmarks/simpy_idiom.py [--updates N] [--rounds R]

Both draw exponential work with numpy, both count the staleness histogram; ours also keeps everything a report needs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter

import numpy as np
import simpy

from asyncq import Scenario, simulate

WORKERS, SERVICE = 64, 0.7 / 64


def idiomatic(updates: int, server: bool) -> float:
    """Mean staleness, from one generator per worker and at most one Resource."""
    env, rng, version, histogram = simpy.Environment(), np.random.default_rng(1), 0, Counter()
    seat, done = simpy.Resource(env), env.event()

    def worker():
        nonlocal version
        while True:
            read = version
            yield env.timeout(rng.exponential())
            if server:
                with seat.request() as granted:
                    yield granted
                    yield env.timeout(rng.exponential(SERVICE))
            histogram[version - read] += 1
            version += 1
            if version == updates:
                done.succeed()

    for _ in range(WORKERS):
        env.process(worker())
    env.run(until=done)
    return sum(staleness * count for staleness, count in histogram.items()) / updates


def ours(updates: int, server: bool) -> float:
    tables = {"server": {"service_time": {"law": "exponential", "mean": SERVICE}}} if server else {}
    pool = {"name": "gpu", "workers": WORKERS, "work_time": {"law": "exponential", "mean": 1.0}}
    return simulate(
        Scenario.from_dict({"schema": 1, "pool": [pool], **tables}), engine="simpy", updates=updates, seed=1
    ).staleness.mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for server in (False, True):
        ratios = []
        for _ in range(options.rounds):
            seconds = []
            for contender in (ours, idiomatic):
                began = time.process_time()
                mean = contender(options.updates, server)
                seconds.append(time.process_time() - began)
                assert abs(mean - (WORKERS - 1)) < 0.2, mean
            ratios.append(seconds[1] / seconds[0])
        spread = f"[{min(ratios):.2f}, {max(ratios):.2f}]"
        rate = options.updates / seconds[0]
        print(f"{'with' if server else 'without'} a server: ours {rate:,.0f} updates per CPU second, "
              f"{statistics.median(ratios):.2f} times idiomatic SimPy {spread}")  # fmt: skip


if __name__ == "__main__":
    main()
