"""Results as files: written under another name first and then renamed, so that none is ever half-written."""

from __future__ import annotations

import contextlib
import csv
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncq.errors import ScenarioError
from asyncq.jsonable import dumps
from asyncq.protocols.state import FATES
from asyncq.staleness import StalenessLaw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from asyncq.papers.claim import Reproduction
    from asyncq.results.run import Run
    from asyncq.results.timeline import Timeline
    from asyncq.statistics.fit.fitting import Fitted
    from asyncq.theory.prediction import Prediction
    from asyncq.theory.queueing.pipeline import PipelineSchedule
    from asyncq.theory.recommendation.landscape import Budget, Landscape
    from asyncq.theory.recommendation.recommendation import Recommendation
    from asyncq.theory.stability import StepSizes

__all__ = [
    "write_prediction",
    "write_recommendation",
    "write_reproduction",
    "write_run",
    "write_schedule",
    "write_stability",
    "write_summary",
    "write_timeline",
    "written",
]


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """A name to write to that becomes ``path`` when all went well; raises ``ScenarioError`` if it cannot."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        os.chmod(name, 0o644)
        try:
            yield Path(name)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ScenarioError(f"{path} cannot be written: {error.strerror}; give another place") from None


def write_summary(summary: dict[str, Any], folder: Path) -> None:
    """summary.json: a report as it is printed by ``--json``."""
    _write_json(summary, folder / "summary.json")


def write_run(run: Run, folder: Path, *, laws: Sequence[Fitted] = ()) -> None:
    """summary.json, staleness.csv, the figures, and trace.csv if the run kept its rows."""
    from asyncq import plots

    write_summary(run.to_dict(laws=laws), folder)
    _write_law(run.staleness.law, folder)
    figures = {
        "staleness": plots.staleness(run, laws),
        "momentum": plots.momentum(run.scenario.name, run.momentum),
        "survival": plots.survival(run, laws),
        "autocorrelation": plots.autocorrelation(run),
        "warm-up": plots.warmup(run),
        "workers": plots.workers(run),
    }
    if run.over_time is not None:
        figures["over-time"] = plots.over_time(run.over_time, run.scenario.name)
    for name, figure in figures.items():
        _write_figure(figure, folder, name)
    if run.trace is not None:
        trace = run.trace
        fates = (FATES[fate] for fate in trace.fate.tolist())
        columns = {
            "seconds": trace.time.tolist(),
            "worker": trace.worker.tolist(),
            "staleness": trace.staleness.tolist(),
            "read": trace.read.tolist(),
            "kind": fates,
            **{name: column.tolist() for name, column in trace.topology().items()},
        }
        _write_csv(folder / "trace.csv", tuple(columns), zip(*columns.values(), strict=True))


def write_prediction(found: Prediction, folder: Path) -> None:
    """summary.json, and where the law is known staleness.csv and its figure."""
    from asyncq import plots

    write_summary(found.to_dict(), folder)
    if found.law is not None:
        _write_law(found.law.cut(found.law.error), folder)
        _write_figure(plots.law(found), folder, "staleness")
    if found.momentum is not None:
        _write_figure(plots.momentum(found.scenario.name, found.momentum), folder, "momentum")


def write_recommendation(
    found: Recommendation,
    near: Landscape,
    against_workers: Budget,
    workers: int | None,
    summary: dict[str, Any],
    folder: Path,
) -> None:
    """recommendation.json, the map of stable pairs and the momentum budget against the number of workers."""
    from asyncq import plots

    _write_json(summary, folder / "recommendation.json")
    _write_figure(plots.stability_map(near, found), folder, "stability-map")
    _write_figure(plots.momentum_budget(against_workers, workers), folder, "momentum-budget")


def write_stability(dense: StepSizes, summary: dict[str, Any], folder: Path) -> None:
    """stability.json, and the contraction against the step."""
    from asyncq import plots

    _write_json(summary, folder / "stability.json")
    _write_figure(plots.contraction(dense), folder, "contraction")


def write_timeline(timeline: Timeline, folder: Path) -> None:
    """timeline.png and timeline.svg."""
    from asyncq import plots

    _write_figure(plots.timeline(timeline), folder, "timeline")


def write_schedule(schedule: PipelineSchedule, folder: Path) -> None:
    """timeline.png and timeline.svg of a pipeline."""
    from asyncq import plots

    _write_figure(plots.schedule(schedule), folder, "timeline")


def _write_law(law: StalenessLaw, folder: Path) -> None:
    """staleness.csv: the law cell by cell, beside the geometric law of its mean."""
    geometric = StalenessLaw.geometric(mean=law.mean).pmf
    rows = (
        (staleness, share, geometric[staleness] if staleness < geometric.size else 0.0)
        for staleness, share in enumerate(law.pmf.tolist())
    )
    _write_csv(folder / "staleness.csv", ("staleness", "share", "geometric"), rows)


def write_reproduction(seen: Reproduction, folder: Path) -> None:
    """The numbers of a claim as NAME.json, its figure as NAME.png and NAME.svg."""
    from asyncq.plots import panels

    _write_json(seen.to_dict(), folder / f"{seen.claim.name}.json")
    _write_figure(panels.draw(seen), folder, seen.claim.name)


def _write_json(content: dict[str, Any], path: Path) -> None:
    with written(path) as name:
        name.write_text(dumps(content, indent=1) + "\n", encoding="utf-8")


def _write_figure(figure: Figure, folder: Path, name: str) -> None:
    for suffix in ("png", "svg"):
        with written(folder / f"{name}.{suffix}") as path:
            figure.savefig(path, format=suffix, dpi=144)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with written(path) as name, name.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
