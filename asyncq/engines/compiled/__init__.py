"""The compiled engine (numba): the rules of the protocols in machine code, bit for bit as on SimPy."""
