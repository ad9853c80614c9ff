"""Calendars that know time and nothing else: one on SimPy, one compiled."""
