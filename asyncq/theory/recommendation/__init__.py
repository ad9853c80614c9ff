"""Which momentum and step size to use, given a staleness law."""

from asyncq.theory.recommendation.recommendation import Recommendation, recommend

__all__ = ["Recommendation", "recommend"]
