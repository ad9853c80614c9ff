"""Figures and theorems of the papers, recomputed and judged.

A claim states what a paper shows and holds a function that computes it. To add a claim, add an entry to the ``CLAIMS``
of its paper's module.
"""

from __future__ import annotations

from asyncq.papers.registry import CLAIMS, reproduce

__all__ = ["CLAIMS", "reproduce"]
