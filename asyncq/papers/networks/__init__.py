"""A bench of real training: small networks, asynchronous SGD on staleness traces, many replicas a call."""
