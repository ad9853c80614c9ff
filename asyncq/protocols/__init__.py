"""The protocols: their kinds, their rules, and the state that a rule sees and writes."""

from asyncq.protocols.kind import ExactKind, Family, Kind, Parameter
from asyncq.protocols.rules import ALL_KINDS, EXACT_KINDS, KINDS, PARAMETERS, WEIGHTS

__all__ = ["ALL_KINDS", "EXACT_KINDS", "KINDS", "PARAMETERS", "WEIGHTS", "ExactKind", "Family", "Kind", "Parameter"]
