"""Exact laws of staleness and throughput of queueing systems."""
