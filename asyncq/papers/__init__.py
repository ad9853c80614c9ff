"""The papers' own figures and theorems, computed again and judged.

A claim is a small object: what a paper shows, and a function that computes it. Adding one adds an entry to the
``CLAIMS`` of its paper's module, nothing else.
"""

from __future__ import annotations

from asyncq.papers.registry import CLAIMS, reproduce

__all__ = ["CLAIMS", "reproduce"]
