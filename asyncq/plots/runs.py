"""Figures of runs, timelines and schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from asyncq.plots.palette import AGAINST, FITTED, GRID, INK, KNOWN, MODEL, PALE, label
from asyncq.results.timeline import DRAWN
from asyncq.staleness import StalenessLaw

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from asyncq.results.run import Run
    from asyncq.results.timeline import Timeline
    from asyncq.statistics.fit.fitting import Fitted
    from asyncq.theory.queueing.pipeline import PipelineSchedule

__all__ = [
    "autocorrelation",
    "schedule",
    "staleness",
    "survival",
    "timeline",
    "warmup",
    "workers",
]

LOOKS = {  # of a worker's activities: colour, hatch, words
    "pull": ("#d9c7e8", "", "pull"),
    "work": (PALE, "", "work"),
    "push": ("#b79ad1", "", "push"),
    "queue": ("#f6cf9c", "....", "in the server's queue"),
    "service": ("#e8964f", "", "being served"),
    "waiting": ("#f4f4f4", "", "waits before it may read again"),
    "repair": ("#e6c9c2", "", "its machine is away"),
}
CANCELLED = {"pull": "#f1eaf6", "work": "#dfeaf6", "push": "#e6dcef", "queue": "#fdf1e0", "service": "#fae0cc"}
MARKS = {  # of a gradient: colour of the disc and of the number, words
    "committed": (INK, "white", "commit, with its staleness"),
    "downweighted": ("#d6ab2d", "black", "commit with less weight"),
    "dropped": ("#ffffff", "#b03a2e", "dropped"),
}


def staleness(run: Run, laws: Sequence[Fitted] = ()) -> Figure:
    """The measured staleness law, the fitted geometric and the best of ``laws``; below, measured less fitted."""
    from matplotlib.figure import Figure

    law, fit = run.staleness.law, run.fit
    shown = min(law.pmf.size, max(int(law.quantile(0.999)[0]) + 2, 8))
    geometric = StalenessLaw.geometric(mean=law.mean).pmf
    model = [float(geometric[i]) if i < geometric.size else 0.0 for i in range(shown)]
    figure = Figure(figsize=(8, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    width = 0.85 if shown <= 80 else 1.0
    above.bar(range(shown), law.pmf[:shown], width=width, color=LOOKS["work"][0], label="simulated")
    intervals = run.staleness.pmf_ci95
    if intervals is not None and shown <= 80:
        cells = min(shown, intervals.shape[1])
        above.vlines(range(cells), *intervals[:, :cells], color=INK, linewidth=1.2, label="95 % of each cell")
    for fitted, style in zip(_others(laws), ("-", "--", ":"), strict=False):
        name = f"{fitted.family}: {fitted.verdict}"
        above.plot(range(shown), fitted.pmf(shown), style, color=FITTED, linewidth=1.2, label=name)
    marker = "o" if shown <= 80 else ""
    look: dict[str, Any] = {"color": MODEL, "marker": marker, "markersize": 3.5, "linewidth": 1.2}
    above.plot(range(shown), model, **look, label=f"geometric law, p = {fit.p:.4g}: {fit.verdict}")
    above.axvline(law.mean, color=MARKS["committed"][0], linewidth=1, linestyle=(0, (4, 3)), zorder=3)
    name = f"mean {law.mean:.4g}"
    where: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "xytext": (5, -4), "textcoords": "offset points"}
    above.annotate(name, (law.mean, 1), va="top", fontsize=9, color=MARKS["committed"][0], **where)
    above.set_ylabel("share of gradients")
    above.set_title(_system(run), fontsize=11, loc="left")
    above.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 0.93))
    below.bar(range(shown), law.pmf[:shown] - model, width=width, color=AGAINST)
    below.axhline(0, color="black", linewidth=0.6)
    below.set_ylabel("simulated\n- geometric", fontsize=9)
    below.ticklabel_format(axis="y", scilimits=(-2, 3))
    below.set_xlabel(f"staleness ({run.staleness.unit})")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    above.set_xlim(-0.6, max(shown, 8) - 0.4)
    above.set_ylim(0, 1.12 * max(float(law.pmf.max()), *model))
    figure.align_ylabels()
    return figure


def _others(laws: Sequence[Fitted]) -> list[Fitted]:
    """The three best laws other than the geometric."""
    return [law for law in laws if law.family != "geometric" and law.bic < float("inf")][:3]


def survival(run: Run, laws: Sequence[Fitted] = ()) -> Figure:
    """P(staleness > l) on a log scale, on which a geometric law is a straight line."""
    from matplotlib.figure import Figure

    law = run.staleness.law
    tail = law.survival
    shown = max(2, int((tail > 0).sum()))
    geometric = StalenessLaw.geometric(mean=law.mean, tail=1e-9).survival[:shown]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(range(shown), tail[:shown], ".", color=KNOWN, markersize=5, label="simulated")
    axes.semilogy(range(geometric.size), geometric, "-", color=MODEL, linewidth=1, label="geometric of the same mean")
    for fitted, style in zip(_others(laws), ("-", "--", ":"), strict=False):
        rest = 1 - fitted.pmf(shown).cumsum()
        axes.semilogy(range(shown), rest.clip(1e-12), style, color=FITTED, linewidth=1.2, label=fitted.family)
    lowest = float(tail[tail > 0].min()) if (tail > 0).any() else 1e-3
    axes.set_ylim(lowest / 2, 1.3)
    axes.set_xlabel(f"staleness ({run.staleness.unit})")
    axes.set_ylabel("share of staler gradients")
    axes.set_title(f"{run.scenario.name}: a geometric law is a straight line ({run.fit.verdict})", fontsize=11)
    axes.legend(frameon=False)
    return figure


def autocorrelation(run: Run) -> Figure:
    """Autocorrelation of the staleness of consecutive gradients, with the band of independence."""
    from matplotlib.figure import Figure

    seen = run.dependence
    shown = max(2, min(seen.autocorrelation.size, 6 * run._network.workers + 10))
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    lags = range(1, min(shown, seen.autocorrelation.size))
    axes.vlines(lags, 0, seen.autocorrelation[1:shown], color=KNOWN, linewidth=1.5)
    half = seen.half_widths[1:shown]
    axes.fill_between(lags, -half, half, color=AGAINST, alpha=0.3, linewidth=0, label="chance, 95 % of each lag")
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xlabel("lag (gradients)")
    axes.set_ylabel("autocorrelation")
    axes.set_title(f"{run.scenario.name}: staleness of consecutive gradients", fontsize=11)
    axes.legend(frameon=False)
    return figure


def warmup(run: Run) -> Figure:
    """Series of the run by batch, with the warm-up that each suggests."""
    from matplotlib.figure import Figure

    batches = run._collected.batches
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    at = run.warmup + batches.updates.cumsum()
    series = (
        (above, batches.staleness / batches.rows, "mean staleness"),
        (below, batches.seconds / batches.updates, "seconds per update"),
    )
    for axes, values, words in series:
        axes.plot(at, values, color=KNOWN, linewidth=0.8)
        axes.axvspan(0, run.warmup, color=AGAINST, alpha=0.3, linewidth=0)
        axes.set_ylabel(words)
    below.set_xlim(left=0)
    below.set_xlabel("updates; the shaded ones were left out")
    why = "as asked" if run.warmup_search is None else run.warmup_search.series
    above.set_title(f"{run.scenario.name}: {run.warmup:,} updates left out ({why})", fontsize=11)
    return figure


def workers(run: Run) -> Figure:
    """Mean staleness of every worker with its 95 % interval; named workers are highlighted."""
    from matplotlib.figure import Figure

    seen = run.who_is_stale
    named = {stale.worker: stale.name for stale in seen.named}
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    numbers = range(seen.means.size)
    colours = [MODEL if number in named else KNOWN for number in numbers]
    axes.vlines(numbers, seen.means - 1.96 * seen.errors, seen.means + 1.96 * seen.errors, colors=colours, linewidth=1)
    axes.scatter(numbers, seen.means, c=colours, s=12, zorder=3)
    for number in list(named)[:10]:
        look: dict[str, Any] = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 8, "color": MODEL}
        axes.annotate(named[number], (number, seen.means[number]), **look)
    axes.set_xlabel("worker")
    axes.set_ylabel(f"mean staleness ({run.staleness.unit})")
    told = "too few gradients to compare" if seen.p_value is None else f"equally stale: p {max(seen.p_value, 1e-6):.2g}"
    axes.set_title(f"{run.scenario.name}: {told}", fontsize=11)
    return figure


def _system(run: Run) -> str:
    """The scenario, its workers and its protocol in one line."""
    scenario = run.scenario
    protocol = " ".join([scenario.protocol.kind, *(f"{k}={v}" for k, v in scenario.parameters.items())])
    return f"{scenario.name}: {scenario.crew}, {protocol}"


def timeline(timeline: Timeline) -> Figure:
    """Who computes, waits, reads and commits: a line per worker, a bar for all it does, a disc with the staleness on
    every commit. "v3" is the version read at the left end of a bar, and on a dashed line the one that an update
    made."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    lines = min(len(timeline.names), DRAWN)
    seconds = timeline.seconds or 1.0
    figure = Figure(figsize=(10, 1.9 + 0.42 * lines), layout="constrained")
    axes = figure.subplots()
    known: dict[str, Artist] = {}
    for span in timeline.spans:
        if span.worker < lines:
            colour, hatch, words = LOOKS[span.stage]
            if span.cancelled:
                colour, hatch, words = CANCELLED[span.stage], "xxxx", "for nothing: cancelled or lost"
            known[words] = Patch(facecolor=colour, edgecolor="#777777", hatch=hatch, linewidth=0.4, label=words)
            bar = (span.worker, span.ended - span.began, 0.62, span.began)
            axes.barh(*bar, color=colour, edgecolor="#777777", hatch=hatch, linewidth=0.4)
    thin = 0.8 if len(timeline.updates) < 50 else 0.2
    for time in timeline.updates:
        axes.axvline(time, color="#888888", linewidth=thin, linestyle=(0, (3, 3)), zorder=0.5)
    for gradient in timeline.gradients:
        if gradient.worker >= lines:
            continue
        if gradient.left - gradient.began > 0.045 * seconds:
            _version_read(axes, gradient.began, gradient.worker, gradient.read, gradient.client)
        if gradient.fate in MARKS:
            disc, number, words = MARKS[gradient.fate]
            known[words] = _disc(axes, gradient.left, gradient.worker, gradient.staleness, disc, number, words)
    axes.set_yticks(range(lines), [label(name) for name in timeline.names[:lines]])
    axes.set_ylim(lines - 0.5, -0.5)
    axes.set_xlim(0, 1.015 * seconds)
    axes.locator_params(axis="x", nbins=12, steps=[1, 2, 5, 10])
    axes.set_xlabel(f"seconds; v1, v2, ...: versions made (above) and read (in the bars); staleness in {timeline.unit}")
    axes.set_title(timeline.title, fontsize=11, loc="left", pad=20)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    _version_scale(axes, timeline.updates, seconds)
    figure.legend(handles=list(known.values()), loc="outside lower left", ncols=4, frameon=False, fontsize=9)
    return figure


def schedule(schedule: PipelineSchedule) -> Figure:
    """The passes of a pipeline: a line per stage, a bar per pass with its minibatch, a disc with the staleness at the
    end of every backward pass, where the stage is updated."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(10, 1.9 + 0.42 * schedule.stages), layout="constrained")
    axes = figure.subplots()
    looks = {False: (LOOKS["work"][0], "forward, with its minibatch"), True: (LOOKS["service"][0], "backward")}
    known: dict[str, Artist] = {}
    for task, staleness in schedule.passes:
        colour, words = looks[task.backward]
        known[words] = Patch(facecolor=colour, edgecolor="#777777", linewidth=0.4, label=words)
        where = (task.stage, task.ended - task.began, 0.62, task.began)
        axes.barh(*where, color=colour, edgecolor="#777777", linewidth=0.4)
        if schedule.end <= 80:
            middle = task.began + (0.5 if staleness is None else 0.35) * (task.ended - task.began)
            axes.text(middle, task.stage, f"{task.minibatch + 1}", va="center_baseline", ha="center", fontsize=7.5)
    for task, staleness in schedule.passes:
        if staleness is not None:
            disc, number, _ = MARKS["committed"]
            words = "the stage's update, with its staleness"
            known[words] = _disc(axes, task.ended, task.stage, staleness, disc, number, words)
    axes.set_yticks(range(1, schedule.stages + 1), [f"stage {n}" for n in range(1, schedule.stages + 1)])
    axes.set_ylim(schedule.stages + 0.5, 0.5)
    axes.set_xlim(0, 1.015 * schedule.end)
    axes.locator_params(axis="x", nbins=12, steps=[1, 2, 5, 10], integer=True)
    axes.set_xlabel("time, in passes; staleness in updates of the stage")
    axes.set_title(schedule.title, fontsize=11, loc="left")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(handles=list(known.values()), loc="outside lower left", ncols=4, frameon=False, fontsize=9)
    return figure


def _version_read(axes: Axes, time: float, line: int, version: int, client: str | None) -> None:
    look: dict[str, Any] = {"va": "center", "ha": "left", "fontsize": 7, "color": "#333333"}
    look["bbox"] = {"boxstyle": "square,pad=0.1", "facecolor": "white", "alpha": 0.7, "linewidth": 0}
    words = f"v{version}" if client is None else f"v{version} {client}"
    axes.annotate(words, (time, line), xytext=(8 if time else 2, 0), textcoords="offset points", **look)


def _disc(axes: Axes, time: float, line: int, staleness: int, colour: str, ink: str, words: str) -> Line2D:
    """A disc with the staleness on it; the drawing's entry in the legend."""
    look: dict[str, Any] = {
        "marker": "o",
        "markersize": 12,
        "color": colour,
        "markeredgecolor": "#444444",
        "linestyle": "none",
    }
    (disc,) = axes.plot([time], [line], clip_on=False, zorder=3, label=words, **look)
    axes.text(time, line, f"{staleness}", va="center_baseline", ha="center", fontsize=7.5, color=ink, zorder=4)
    return disc


def _version_scale(axes: Axes, updates: tuple[float, ...], seconds: float) -> None:
    """Label each update with its version above the bars; of crowded labels only the last."""
    shown: list[tuple[float, int]] = []
    for version, time in reversed(list(enumerate(updates, start=1))):
        if not shown or shown[-1][0] - time > 0.035 * seconds:
            shown.append((time, version))
    look: dict[str, Any] = {"ha": "center", "fontsize": 8, "color": "#555555"}
    for time, version in shown:
        where: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "xytext": (0, 3), "textcoords": "offset points"}
        axes.annotate(f"v{version}", (time, 1), **where, **look)
