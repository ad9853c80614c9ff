"""Figures of results; computes nothing. Drawn on canvases of their own, without pyplot and its global state."""

from asyncq.plots.runs import autocorrelation, schedule, staleness, survival, timeline, warm_up, workers
from asyncq.plots.theory import law, momentum

__all__ = [
    "autocorrelation",
    "law",
    "momentum",
    "schedule",
    "staleness",
    "survival",
    "timeline",
    "warm_up",
    "workers",
]
