"""The planner: how many workers, which groups, which momentum, and is asynchrony worth it?"""

from __future__ import annotations

from asyncq.errors import old_names
from asyncq.planner.comparison import Plan, PlanRow, plan

__all__ = ["Plan", "PlanRow", "plan"]


__getattr__ = old_names(globals(), Row="PlanRow")
