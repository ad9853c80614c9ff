"""Functions as machine code: the ways in which the compiled engine has numba compile them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any, TypeVar

import numba
from numba.core import types
from numba.core.compiler import Compiler
from numba.extending import intrinsic

__all__ = ["NothingAliases", "bits", "compiled_rule", "inlined", "jit"]

F = TypeVar("F", bound=Callable[..., Any])


def jit(function: F, **options: Any) -> F:
    """Machine code without reference counts: nothing in it allocates, and counting cost ten times as much."""
    njit: Any = numba.njit  # whose declared options leave out _nrt
    return njit(error_model="numpy", nogil=True, _nrt=False, **options)(function)  # type: ignore[no-any-return]


class NothingAliases(Compiler):
    """No two arrays of the kernel share memory; knowing that, the compiler may keep their values in registers."""

    def define_pipelines(self) -> Any:
        self.state.flags.noalias = True
        usual: Any = super()
        return usual.define_pipelines()


def inlined(function: F) -> F:
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
