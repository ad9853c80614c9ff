"""Bench of real training: small networks, asynchronous SGD on staleness traces, many replicas per call."""
