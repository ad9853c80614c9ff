"""Descent under a staleness law: stability, noise, time to a target."""
