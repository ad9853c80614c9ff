"""What happens when a gradient arrives: the kinds of protocols, their rules, and what a rule sees and writes."""

from asyncq.protocols.kind import ExactKind, Family, Kind, Parameter
from asyncq.protocols.rules import ALL_KINDS, EXACT_KINDS, KINDS, PARAMETERS, WEIGHTS

__all__ = ["ALL_KINDS", "EXACT_KINDS", "KINDS", "PARAMETERS", "WEIGHTS", "ExactKind", "Family", "Kind", "Parameter"]
