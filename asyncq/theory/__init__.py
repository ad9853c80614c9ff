"""Exact answers without simulation; never imports an engine."""
