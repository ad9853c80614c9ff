"""Results as strict JSON: records, arrays, estimates and whatever they hold; a number that is not finite is null."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from typing import Any

__all__ = ["dumps", "jsonable", "record"]


def jsonable(value: Any) -> Any:
    """The value as JSON holds it.

    An object with a ``to_dict`` decides for itself; any other dataclass or named tuple becomes a dict of its fields,
    arrays and tuples become lists, numpy scalars plain numbers, and nan and infinity None. Raises ``TypeError`` for
    anything else.
    """
    if isinstance(value, float):
        return float(value) if isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "to_dict"):
        return jsonable(value.to_dict())
    if hasattr(value, "tolist"):  # an array or a scalar of numpy
        return jsonable(value.tolist())
    if isinstance(value, Mapping) or is_dataclass(value) or hasattr(value, "_asdict"):
        return record(value)
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    raise TypeError(f"no JSON for a {type(value).__name__}: {value!r}")


def record(value: Any, *, without: Collection[str] = (), **more: Any) -> dict[str, Any]:
    """The items of a mapping, or the fields of a dataclass or named tuple, as JSON: ``without`` some, with ``more``.

    A ``to_dict`` returns this of itself, or of the dict that it builds.
    """
    if isinstance(value, Mapping):
        items = dict(value)
    elif hasattr(value, "_asdict"):
        items = value._asdict()
    else:
        items = {field.name: getattr(value, field.name) for field in fields(value)}
    return {str(name): jsonable(item) for name, item in (items | more).items() if name not in without}


def dumps(value: Any, *, indent: int | None = None) -> str:
    """The text of :func:`jsonable`, on a single line unless an ``indent`` is given."""
    return json.dumps(jsonable(value), allow_nan=False, indent=indent)
