"""Functions as machine code: how numba compiles them, and keeps them on disk where it can."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pickle import UnpicklingError
from types import FunctionType
from typing import Any, TypeVar

import numba
from numba.core import types
from numba.core.caching import FunctionCache
from numba.core.compiler import Compiler
from numba.extending import intrinsic

__all__ = ["NothingAliases", "bits", "compiled_rule", "inlined", "jit", "kept"]

F = TypeVar("F", bound=Callable[..., Any])


def jit(function: F, **options: Any) -> F:
    """Machine code without reference counts: nothing in it allocates, and counting cost ten times as much."""
    njit: Any = numba.njit  # whose declared options leave out _nrt
    return njit(error_model="numpy", nogil=True, _nrt=False, **options)(function)  # type: ignore[no-any-return]


class _Cache(FunctionCache):
    """numba's disk cache, whose faults (damaged files, a full disk) cost a compilation and stop nothing."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load machine code; None where a file is missing or damaged."""
        with suppress(Exception):  # whatever a damaged file makes of pickle and LLVM
            return self._usual.load_overload(sig, target_context)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save machine code, over a damaged index if need be; say in a line of the log if it cannot be saved."""
        try:
            with suppress(EOFError, UnpicklingError, ValueError, KeyError, ImportError, AttributeError, IndexError):
                return self._usual.save_overload(sig, data)  # type: ignore[no-any-return]
            self._usual.flush()
            self._usual.save_overload(sig, data)
        except Exception as error:
            _say_not_kept(str(self.cache_path), str(getattr(error, "strerror", None) or error))

    @property
    def _usual(self) -> Any:
        return super()


_Kept: Any = _Cache


@cache
def _say_not_kept(path: str, why: str) -> None:
    logging.getLogger("asyncq").warning("machine code cannot be kept in %s (%s): compiled again next time", path, why)


def kept(dispatcher: F) -> F:
    """Keep what a numba function is compiled to on disk, if there is a directory for it."""
    compiled: Any = dispatcher
    with suppress(RuntimeError, OSError):  # no directory to keep it in
        compiled._cache = _Kept(compiled.py_func)
    return dispatcher


class NothingAliases(Compiler):
    """No two arrays of the kernel share memory; knowing that, the compiler may keep their values in registers."""

    def define_pipelines(self) -> Any:
        self.state.flags.noalias = True
        usual: Any = super()
        return usual.define_pipelines()


def inlined(function: F) -> F:
    """Machine code that is always inlined."""
    return jit(function, forceinline=True)


@cache
def compiled_rule(function: Callable[..., Any]) -> Any:
    """A rule as machine code: the same code object, with the rules it calls compiled too."""
    names = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    called = {name: compiled_rule(value) for name, value in names.items() if isinstance(value, FunctionType)}
    return inlined(FunctionType(function.__code__, {**function.__globals__, **called}, function.__name__))


@intrinsic
def bits_of(typing: Any, value: Any) -> Any:
    """The bits of a time as an integer; for times from 0 on, both have the same order."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.uint64))

    return types.uint64(types.float64), generate


bits: Any = bits_of  # which is called without the typing context
