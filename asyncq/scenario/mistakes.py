"""What is wrong with a scenario file, in one line a mistake: key, rule, value and remedy."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from asyncq.distributions import LAWS, nearest

__all__ = ["TOLD", "is_plain_name", "items", "keys", "mistakes", "not_toml", "shown", "table_at"]

TOLD = "told"  # the type of a validation error whose line is written by whoever raises it
_NAME = re.compile(r"[\w-]+(?: [\w-]+)*")

_RULES = {  # pydantic's type of error: our rule and remedy
    "missing": ("is missing", "add it"),
    "int_type": ("must be a whole number", "write it without fraction or quotes, such as 200_000"),
    "greater_than": ("must be above {gt:.13g}", "give a larger number"),
    "greater_than_equal": ("must be at least {ge:.13g}", "give {ge:.13g} or more"),
    "less_than": ("must be below {lt:.13g}", "give a smaller number"),
    "less_than_equal": ("must be at most {le:.13g}", "give {le:.13g} or less"),
    "finite_number": ("must be finite", "give a number other than nan and inf"),
    "string_type": ("must be a text", "write it in quotes"),
    "tuple_type": ("must be a list", "write it in [ ]"),
    "too_short": ("must not be empty", "give at least one"),
    "too_long": ("must have at most {max_length}", "give fewer"),
    "model_type": ("must be a table", "write its keys below a [table] heading or in {{ }}: {keys}"),
    "dict_type": ("must be a table", "write it as {{ name = value }}"),
    "literal_error": ("must be {expected}", "pick one of these"),
    "invalid_key": ("has a key that is not a text", "name every key"),
    "recursion_loop": ("is nested too deeply", "flatten it"),
}
_MISSING = {
    "schema": "write schema = 1 on the first line",
    "pool": "add a [[pool]] with name, workers and work_time",
    "name": 'name the pool, as in name = "gpu"',
    "workers": "give the number of workers of the pool",
    "concurrency": "give the number of clients at work at a time",
    "clients": "give the number of clients of the class",
    "work_time": 'give a time such as "250ms" or a law',
    "leaves": "give the number of leaves of the tree",
    "leaf_k": "give the number of pushes in a leaf's message",
    "root_k": "give the number of messages in an update",
    "tree": "add a [tree] table with leaves, leaf_k and root_k",
    "learner": "add a [learner] table with its work_time",
    "after": "give the computing time between failures, such as \"6h\" or a law",
    "repair": "give the time that a repair takes",
    "worker": 'name who it befalls, as in worker = "gpu[7]"',
    "from": "give the time at which it begins",
    "until": "give the time at which it is over",
    "factor": "give how many times as long work takes",
    "every": "give the length of the intervals",
    "count": "give the number of groups",
    "service_time": 'give a time such as "20ms" or a law',
    "mean": 'give the mean time in seconds or as "250ms"',
    "cv": "give cv = sd / mean",
    "momentum": "give the momentum that you use with one worker, 0 if none",
}


def mistakes(error: ValidationError, data: dict[str, Any], root: type[BaseModel]) -> list[str]:
    """One line, ``key rule (got value); remedy``, for each mistake in ``data``, the tables of a ``root``."""
    lines: list[str] = []
    details = [detail for detail in error.errors(include_url=False) if not _echo(detail)]
    misspelt: set[tuple[int | str, ...]] = set()
    for detail in details:
        if detail["type"] == "extra_forbidden":
            steps, law = _walk(detail["loc"][:-1], data)
            remedy = nearest(str(detail["loc"][-1]), keys(LAWS[law] if law else table_at(root, steps)))
            misspelt.update((*steps, key) for key in re.findall(r'^did you mean "(.*)"\?$', remedy))
    for detail in details:
        steps, _ = _walk(detail["loc"], data)
        if detail["type"] == "missing":  # pydantic names the field where it is missed by a validator of ours
            steps[-1] = _spelt(root, steps)
        if detail["type"] != "missing" or tuple(steps) not in misspelt:
            lines.append(_line(detail, steps, data, root))
    return list(dict.fromkeys(lines))


def _echo(detail: ErrorDetails) -> bool:
    """Whether a mistake repeats others: a list counts as too short also when none of its items is valid."""
    return detail["type"] == TOLD or (detail["type"] == "too_short" and bool(detail["input"]))


def _line(detail: ErrorDetails, steps: list[int | str], data: dict[str, Any], root: type[BaseModel]) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    got = kind != "missing"
    if kind == "rule":
        rule, remedy, key = context["rule"], context["remedy"], context["key"]
        if key:
            for step in key.split("."):
                at = int(step) if items(value) else step  # what breaks a rule in a list is there
                steps = [*steps, at]
                got = bool(items(value)) or (isinstance(value, dict) and at in value)
                value = value[at] if got else None
    elif kind == "extra_forbidden":
        parents, law = _walk(detail["loc"][:-1], data)
        steps = [*parents, detail["loc"][-1]]
        table = LAWS[law] if law else table_at(root, parents)
        rule, remedy = "is not a known key", nearest(str(steps[-1]), keys(table))
    else:
        rule, remedy = _RULES.get(kind, ("is not valid", "see the scenario reference"))
        context = {"keys": ", ".join(keys(table_at(root, steps))), **context}
        rule, remedy = rule.format(**context), remedy.format(**context)
        if kind == "missing":
            remedy = _MISSING.get(str(steps[-1]), remedy)
        elif steps == ["pool"]:
            rule, remedy = "must be a list of tables, at least one", "write [[pool]] with name, workers and work_time"
        elif kind == "int_type" and isinstance(value, float) and value.is_integer():
            remedy = f"write {int(value):_}"
    return f"{_address(steps, data)} {rule}{f' (got {shown(value)})' if got else ''}; {remedy}"


def _walk(loc: Sequence[int | str], data: Any) -> tuple[list[int | str], str]:
    """The keys on the way to a mistake, without the law tags that pydantic adds, and the tag it ends with."""
    steps: list[int | str] = []
    law = ""
    for step in loc:
        if steps and not law and isinstance(data, dict) and step in LAWS and data.get("law") == step:
            law = str(step)
        elif isinstance(data, dict | list | tuple) or not steps:
            steps.append(step)
            law = ""
            try:
                data = data[step]
            except (KeyError, IndexError, TypeError):
                data = None
    return steps, law


def _address(steps: Sequence[int | str], data: dict[str, Any]) -> str:
    """``pool "gpu" work_time.mean``; a pool without a usable name goes by its number."""
    words: list[str] = []
    rest = list(steps)
    if len(rest) > 1 and rest[0] == "pool" and isinstance(rest[1], int):
        pool = items(data.get("pool"))[rest[1]]
        name = pool.get("name") if isinstance(pool, dict) else None
        words.append(f'pool "{name}"' if is_plain_name(name) else f"pool number {rest[1] + 1}")
        rest = rest[2:]
    path = ""
    for step in rest:
        plain = isinstance(step, str) and re.fullmatch(r"[\w-]{1,64}", step)
        path += f"[{step}]" if isinstance(step, int) else f".{step if plain else shown(step)}"
    return " ".join([*words, path.lstrip(".")] if path else words) or "scenario"


# -- what there is ----------------------------------------------------------------------------------------------------


def table_at(root: type[BaseModel], steps: Sequence[int | str]) -> type[BaseModel]:
    """The innermost table on the way from a ``root`` along ``steps``, by the types of its fields."""
    table = root
    for step in steps:
        field = next((field for name, field in table.model_fields.items() if step == (field.alias or name)), None)
        inner = _tables(field.annotation) if field else []
        if len(inner) == 1:  # none: a value or the number of an item; several: laws
            table = inner[0]
    return table


def _spelt(root: type[BaseModel], steps: Sequence[int | str]) -> int | str:
    """The last of the steps as a file spells it."""
    field = table_at(root, steps[:-1]).model_fields.get(str(steps[-1]))
    return steps[-1] if field is None or field.alias is None else field.alias


def _tables(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for part in get_args(annotation) for table in _tables(part)]


def keys(table: type[BaseModel]) -> list[str]:
    """The keys of a table as a file spells them."""
    return [field.alias or name for name, field in table.model_fields.items()]


def is_plain_name(name: Any) -> bool:
    """Whether a pool may be called so."""
    return isinstance(name, str) and len(name) <= 64 and _NAME.fullmatch(name) is not None


def not_toml(text: str, error: Exception) -> str:
    """What a parser says of a ``text`` that is not TOML, with the line it means and what is wrong most often."""
    what = " ".join(str(error).split())[:200]
    if not (at := re.search(r" \(at (line (\d+), column (\d+))\)$", what)):
        return f"is not TOML: {what}; correct it there"
    column = int(at[3])
    line = text.split("\n")[int(at[2]) - 1 : int(at[2])]
    near = " ".join(line[0][max(0, column - 40) : column + 20].split()) if line else ""
    remedy = 'correct it there: numbers as in 0.1, no percent sign, texts and times with a unit in quotes, as in "15ms"'
    return f"is not TOML: {what[: at.start()]} at {at[1]}{f', near {shown(near)}' if near else ''}; {remedy}"


# -- how a value is shown ---------------------------------------------------------------------------------------------


def items(value: Any) -> Sequence[Any]:
    """A list as it is, anything else as an empty one."""
    return value if isinstance(value, list | tuple) else ()


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60
_short.maxlist = _short.maxtuple = _short.maxdict = 6
_short.maxlevel = 3


def shown(value: Any) -> str:
    """A value in one short line."""
    try:
        if isinstance(value, str):
            return json.dumps(value if len(value) <= 60 else f"{value[:57]}...")
        return str(value).lower() if isinstance(value, bool) else " ".join(_short.repr(value).split())
    except ValueError:
        return "a number of very many digits"
