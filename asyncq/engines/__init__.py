"""Calendars that know time and nothing else."""
