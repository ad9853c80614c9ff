"""Exact answers without simulation; never imports an engine."""

from asyncq.errors import NoExactLaw
from asyncq.theory.prediction import Prediction, predict
from asyncq.theory.queueing.staleness_laws import staleness_law
from asyncq.theory.queueing.throughput import Bounds, throughput

__all__ = ["Bounds", "NoExactLaw", "Prediction", "predict", "staleness_law", "throughput"]
