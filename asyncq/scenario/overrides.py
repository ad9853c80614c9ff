"""Overrides of scenario values by texts ``PATH=VALUE``, with pools addressed by name."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from asyncq.distributions.declaration import items, keys, nearest, shown, table_at, tables_of

__all__ = ["override", "put"]


def override(data: dict[str, Any], text: str, root: type[BaseModel]) -> str:
    """Set a ``PATH=VALUE`` in ``data``, the tables of a ``root``. Return the mistake in words, or an empty text."""
    path, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not all(path.split(".")):
        return f"override {shown(text)} must have the form PATH=VALUE; write for instance run.updates=1000"
    return put(data, path, _toml_value(value), root)


def put(data: dict[str, Any], path: str, value: Any, root: type[BaseModel], *, source: str = "override") -> str:
    """Set the value at a dotted path of ``data``, the tables of a ``root``. Return the mistake in words, or an empty
    text."""
    steps = path.split(".")
    if steps[:2] == ["plan", "vary"] and len(steps) > 2:
        steps = ["plan", "vary", ".".join(steps[2:])]
        if isinstance(plan := data.get("plan"), dict):
            plan.setdefault("vary", {})
    pools = [pool for pool in items(data.get("pool")) if isinstance(pool, dict)]
    by_name = _by_name(pools)
    tables = keys(root)
    here: Any = data
    table = "pool"
    if len(steps) > 1 and steps[0] == "pool":
        if steps[1] not in by_name:
            remedy = nearest(steps[1], list(by_name))
            return f"{source} {path}: there is no such pool (got {shown(steps[1])}); {remedy}"
        here, steps = by_name[steps[1]], steps[2:]
    elif len(steps) > 1 and steps[0] in tables:
        table, here, steps = steps[0], data.setdefault(steps[0], {}), steps[1:]
    elif steps[0] in by_name and steps[0] not in tables:
        here, steps = by_name[steps[0]], steps[1:]
    elif steps[0] not in tables:
        pool_is_near = difflib.get_close_matches(steps[0][:100], by_name, n=1)
        remedy = nearest(steps[0], list(by_name) if pool_is_near else [*by_name, *keys(root)])
        return f"{source} {path}: there is no such pool or table (got {shown(steps[0])}); {remedy}"
    if not steps:
        return f"{source} {path}: must name a key of the pool; write for instance {path}.workers=8"
    for done, step in enumerate(steps[:-1]):
        if isinstance(here, dict) and step not in here and _is_table(root, table, steps[: done + 1]):
            here[step] = {}
        here = (here if isinstance(here, dict) else _by_name(here)).get(step)
        if (named := _by_name(here)) and done + 2 < len(steps):
            if steps[done + 1] not in named:
                remedy = nearest(steps[done + 1], list(named))
                return f"{source} {path}: {step} has none of this name (got {shown(steps[done + 1])}); {remedy}"
        elif not isinstance(here, dict):
            whole = path.rsplit(".", len(steps) - 1 - done)[0]
            return f"{source} {path}: {whole} is not a table here (got {shown(here)}); set {whole} as a whole"
    if not isinstance(here, dict):
        return f"{source} {path}: its table is {shown(here)}; write it as a table"
    here[steps[-1]] = tables_of(value)
    return ""


def _by_name(tables: Any) -> dict[str, Any]:
    """The tables of a list by their names."""
    return {str(table["name"]): table for table in items(tables) if isinstance(table, dict) and "name" in table}


def _is_table(root: type[BaseModel], table: str, steps: Sequence[str]) -> bool:
    """Whether the last of ``steps`` below a top-level ``table`` is a table of a single kind, which may start empty."""
    return table_at(root, [table, *steps]) is not table_at(root, [table, *steps[:-1]])


def _toml_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text
