"""Whether code can be compiled in this process; SimPy and numpy do the same without."""

from __future__ import annotations

import logging
from functools import cache

__all__ = ["can_compile"]


@cache
def can_compile() -> bool:
    """Whether numba is installed and not told to leave Python as it is (``NUMBA_DISABLE_JIT``).

    Says so once, in a line of the log, where numba is missing.
    """
    try:
        import numba
    except ImportError:
        logging.getLogger("asyncq").warning("numba is not installed: SimPy and numpy do the work, far more slowly")
        return False
    return not getattr(numba.config, "DISABLE_JIT", 0)
