"""Lowered scenario: workers and their routes, machines, clients, random streams."""
