"""Compiled engine (numba): the rules of the protocols in machine code, with the rows of the SimPy engine."""
