"""Families of staleness laws, fitted to counts, and how well they fit."""
