"""Throughput of replay on quadratics, against a plain numpy loop in the same process.

    python benchmarks/replay.py [--updates 200000]

Acceptance: at least 10^8 steps (modes x configurations x updates) per second on two cores. The load is printed,
because on a busy machine the figures mean little.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import deque

import numpy as np

from asyncq.sgd.objectives import NoisyQuadratic
from asyncq.sgd.replay import replay
from asyncq.sgd.schedule import schedule_of
from asyncq.staleness import StalenessLaw


def plain_steps(modes: int, configurations: int, noise: float, updates: int) -> float:
    """Steps per second of the loop that anyone would write: whole arrays of numpy, a short history."""
    generator = np.random.default_rng(1)
    law = StalenessLaw.geometric(workers=8)
    schedule = schedule_of(law).draw(updates, 0, generator)
    h, mu = np.geomspace(0.01, 1.0, modes), np.linspace(0.0, 0.5, configurations)[:, None]
    begin = time.perf_counter()
    w, velocity = np.ones((configurations, modes)), np.zeros((configurations, modes))
    history: deque[np.ndarray] = deque(maxlen=law.pmf.size)
    for t in range(updates):
        history.append(w)
        gradient = h * history[schedule.read[t] - t - 1]
        if noise:
            gradient = gradient + np.sqrt(noise) * generator.standard_normal(modes)
        velocity = mu * velocity - 0.05 * gradient
        w = w + velocity
    return modes * configurations * updates / (time.perf_counter() - begin)


def replay_steps(modes: int, configurations: int, noise: float, updates: int, replications: int) -> float:
    """Steps per second of `replay`, everything included: schedules, noise, losses."""
    objective = NoisyQuadratic(np.geomspace(0.01, 1.0, modes), noise)
    law = StalenessLaw.geometric(workers=8)
    momenta = np.linspace(0.0, 0.5, configurations)
    begin = time.perf_counter()
    replay(objective, law, step=0.05, momentum=momenta, updates=updates, replications=replications, seed=1)
    return modes * configurations * updates * replications / (time.perf_counter() - begin)


def main() -> None:
    """Print one line per shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=100_000)
    updates = parser.parse_args().updates
    replay_steps(2, 2, 0.1, 100, 2)  # compiles, or loads from the cache
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.2f} before the first measurement")
    print(f"{'modes':>6} {'pairs':>6} {'noise':>6} {'replay':>12} {'numpy':>12} {'ratio':>6} (steps/s)")
    for modes, configurations, noise in ((64, 1, 0.0), (64, 1, 0.1), (64, 16, 0.1), (16, 64, 0.0), (1, 16, 0.1)):
        fast = max(replay_steps(modes, configurations, noise, updates, 4) for _ in range(3))
        slow = max(plain_steps(modes, configurations, noise, max(1000, updates // 20)) for _ in range(3))
        print(f"{modes:6d} {configurations:6d} {noise:6g} {fast:12.3g} {slow:12.3g} {fast / slow:6.1f}")


if __name__ == "__main__":
    main()
