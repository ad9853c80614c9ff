"""Descent of an objective under a schedule of stale gradients."""
