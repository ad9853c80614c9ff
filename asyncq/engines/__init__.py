"""Engines: the SimPy engine and the compiled engine, both driven by the rules of the protocols."""
