"""Figures of results, drawn without pyplot and its global state. Nothing is computed here."""

from asyncq.plots.runs import autocorrelation, schedule, staleness, survival, timeline, warmup, workers
from asyncq.plots.stability import contraction, momentum_budget, stability_map
from asyncq.plots.theory import law, momentum
from asyncq.plots.wall_clock import over_time

__all__ = [
    "autocorrelation",
    "contraction",
    "law",
    "momentum",
    "momentum_budget",
    "over_time",
    "schedule",
    "stability_map",
    "staleness",
    "survival",
    "timeline",
    "warmup",
    "workers",
]
