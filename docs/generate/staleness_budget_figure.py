"""The picture of the actor-learner page, drawn when the documentation is built: what a staleness budget buys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from asyncq import Scenario, simulate
from asyncq.results.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GENERATED = Path(__file__).parents[1] / "_generated"
SCENARIO = Path(__file__).parents[2] / "scenarios" / "actor-learner.toml"
BUDGETS = (0, 1, 2, 4, 8)
UPDATES = 20_000
GENERATED_PER_SECOND = 32 / 60 / 16  # G / (B E[W]), updates
KEEPS, DROPS, IDLE = "#1f5f99", "#c8682a", "#dddddd"


def runs(discard: bool) -> list[Run]:
    """The scenario with every budget, with and without its ``discard_older_than``."""
    tables = Scenario.from_toml(SCENARIO).to_dict()
    if not discard:
        del tables["protocol"]["discard_older_than"]
    scenarios = (Scenario.from_dict(tables, overrides=[f"protocol.staleness_budget={budget}"]) for budget in BUDGETS)
    return [simulate(scenario, updates=UPDATES, engine="compiled") for scenario in scenarios]


def draw(*_: object) -> Figure:
    """Left: updates per hour. Middle: mean, 99 % point and maximum of the staleness. Right: the generators' time."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    rate, staleness, time = figure.subplots(1, 3)
    both = (
        (runs(discard=False), KEEPS, "nothing dropped", -0.2),
        (runs(discard=True), DROPS, "older than 8 dropped", 0.2),
    )
    places = range(len(BUDGETS))
    for found, colour, words, shift in both:
        means = [3600 * run.throughput.mean for run in found]
        errors = [3600 * (run.throughput.half_width or 0.0) for run in found]
        rate.errorbar(places, means, errors, color=colour, marker="o", markersize=4, capsize=3, label=words)
        for name, values, dashes in (
            ("maximum", [run.staleness.maximum for run in found], ":"),
            ("99 % point", [run.staleness.quantiles["99%"] for run in found], "--"),
            ("mean", [run.staleness.mean for run in found], "-"),
        ):
            staleness.plot(places, values, color=colour, linestyle=dashes, marker="o", markersize=4)
            if found is both[0][0]:
                where = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center", "fontsize": "small"}
                staleness.annotate(name, (3.5, (values[3] + values[4]) / 2), **where)
        floor = [0.0] * len(BUDGETS)
        for shares, look in (
            ([run.machine_time.work for run in found], {"color": colour}),
            ([run.machine_time.dropped for run in found], {"color": colour, "alpha": 0.35, "hatch": "////"}),
            ([run.machine_time.blocked for run in found], {"color": IDLE}),
        ):
            percent = [100 * share / sum(run.machine_time) for share, run in zip(shares, found, strict=True)]
            time.bar([place + shift for place in places], percent, 0.36, bottom=floor, edgecolor="white", **look)
            floor = [low + more for low, more in zip(floor, percent, strict=True)]
    most = 3600 * GENERATED_PER_SECOND
    rate.axhline(most, color="#888888", linewidth=0.8, linestyle="--")
    rate.annotate("generators that never wait", (0, most), xytext=(0, 4), textcoords="offset points", fontsize="small")
    staleness.plot(places, BUDGETS, color="#888888", linewidth=0.8)
    staleness.annotate("the budget", (2.9, 4.2), ha="right", fontsize="small", color="#666666")
    rate.set(title="What it buys: updates per hour", ylim=(0, 1.15 * most))
    staleness.set_yscale("symlog", linthresh=1, linscale=0.5)
    ticks = [0, *(2**power for power in range(8))]
    staleness.set_yticks(ticks, [str(tick) for tick in ticks])
    staleness.minorticks_off()
    staleness.set(title="What it costs: staleness in updates", ylim=(-0.15, 220))
    time.set(title="The generators' time in percent", ylim=(0, 100))
    for axes in (rate, staleness, time):
        axes.set_xticks(list(places), [str(budget) for budget in BUDGETS])
        axes.set_xlabel("staleness budget")
        axes.spines[["top", "right"]].set_visible(False)
    lines, _ = rate.get_legend_handles_labels()
    patches = [
        Patch(color="#555555", label="samples learnt from"),
        Patch(facecolor="#bbbbbb", hatch="////", edgecolor="white", label="samples dropped"),
        Patch(color=IDLE, label="blocked"),
    ]
    figure.legend(handles=[*lines, *patches], loc="outside lower center", ncols=5, frameon=False, fontsize="small")
    GENERATED.mkdir(exist_ok=True)
    figure.savefig(GENERATED / "staleness-budget.svg", metadata={"Date": None})
    return figure


if __name__ == "__main__":
    draw()
