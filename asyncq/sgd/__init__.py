"""Descent on a trace: what a schedule of stale gradients does to an objective."""
