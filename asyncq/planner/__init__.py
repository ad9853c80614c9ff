"""The planner: how many workers, which groups, which momentum, and is asynchrony worth it?"""

from __future__ import annotations

from asyncq.planner.comparison import Plan, Row, plan

__all__ = ["Plan", "Row", "plan"]
