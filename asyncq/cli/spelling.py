"""Staleness laws on the command line: ``name:numbers`` or ``file:path``."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from asyncq.distributions.declaration import nearest, read_text, shown
from asyncq.errors import ScenarioError
from asyncq.staleness import StalenessLaw

__all__ = ["EXAMPLES", "SPELLINGS", "spelled_law"]

MOST_BYTES = 10**7
MOST = 100_000  # updates or workers: laws are then at most some four million cells long


def _geometric(workers: float) -> StalenessLaw:
    if workers < 1:
        raise ValueError(f"workers must be 1 or more (got {workers:g})")
    return StalenessLaw.geometric(workers=workers)


def _negative_binomial(mean: float, r: float) -> StalenessLaw:
    if r > 0 and mean > MOST * r:
        raise ValueError(f"mean / r must be at most {MOST:,} (got {mean / r:g})")
    return StalenessLaw.negative_binomial(mean, r)


SPELLINGS: dict[str, tuple[tuple[str, ...], Callable[..., StalenessLaw]]] = {
    "constant": (("staleness",), StalenessLaw.constant),
    "geometric": (("workers",), _geometric),
    "uniform": (("low", "high"), StalenessLaw.uniform),
    "discrete-normal": (("mean", "sd"), StalenessLaw.discrete_normal),
    "poisson": (("mean",), StalenessLaw.poisson),
    "negative-binomial": (("mean", "r"), _negative_binomial),
}
"""The names with their numbers and what they build; and ``file:PATH``, the staleness.csv that ``--out`` writes."""

EXAMPLES = {
    "constant": "constant:32",
    "geometric": "geometric:8",
    "uniform": "uniform:0,15",
    "discrete-normal": "discrete-normal:16,2",
    "poisson": "poisson:31",
    "negative-binomial": "negative-binomial:7,0.5",
}


def spelled_law(text: str) -> StalenessLaw:
    """Parse a law such as ``constant:32``, ``uniform:0,15`` or ``file:results/staleness.csv``.

    Raises :class:`~asyncq.errors.ScenarioError`, in one line, for anything else."""
    name, colon, rest = (part.strip() for part in text.partition(":"))
    if name == "file" and rest:
        return _from_file(rest)
    if name not in SPELLINGS:
        wrong = f"law {shown(text)} must be NAME:NUMBERS or file:PATH, such as constant:32 or file:staleness.csv"
        raise ScenarioError(f"{wrong}; {nearest(name, [*SPELLINGS, 'file'])}")
    names, build = SPELLINGS[name]
    form = f"{name}:{','.join(names)}"
    words = rest.split(",") if colon else []
    if len(words) != len(names):
        got = f"got {len(words)} number{'' if len(words) == 1 else 's'}"
        raise ScenarioError(f"law {shown(text)} must have the form {form} ({got}); for instance {EXAMPLES[name]}")
    numbers = [_number(word, text, of) for word, of in zip(words, names, strict=True)]
    try:
        return build(*numbers)
    except ValueError as error:
        raise ScenarioError(f"law {shown(text)}: {error}; the form is {form}") from None


def _number(word: str, text: str, name: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not abs(value) <= MOST:  # nor is nan
        rule = f"{name} must be a number of at most {MOST:,} (got {shown(word.strip())})"
        raise ScenarioError(f"law {shown(text)}: {rule}; correct it")
    return value


def _from_file(path: str) -> StalenessLaw:
    """Read a law from a CSV file with columns ``staleness`` and ``share`` (or counts)."""
    try:
        reader = csv.DictReader(io.StringIO(read_text(path, MOST_BYTES), newline=""))
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or "it is not a CSV file in UTF-8"
        raise ScenarioError(f"{path}: cannot be read ({why}); name the staleness.csv that --out writes") from None
    columns = list(reader.fieldnames or ())
    if not rows or columns.count("staleness") != 1 or columns.count("share") != 1:
        remedy = "name the staleness.csv that --out writes"
        raise ScenarioError(f"{path}: must have one column staleness, one share, and a row for each; {remedy}")
    shares: dict[int, float] = {}
    for line, row in enumerate(rows, start=2):
        try:
            staleness, share = int(row["staleness"]), float(row["share"])
        except (TypeError, ValueError):
            staleness, share = -1, math.nan
        if not (0 <= staleness <= MOST and 0 <= share < math.inf):
            got = f"got {shown(row['staleness'])} and {shown(row['share'])}"
            rule = f"a staleness must be a whole number from 0 to {MOST:,} and its share not negative ({got})"
            raise ScenarioError(f"{path}: line {line}: {rule}; correct it")
        if staleness in shares:
            raise ScenarioError(f"{path}: line {line}: staleness {staleness} stands there twice; remove one")
        shares[staleness] = share
    total = sum(shares.values())
    if not 0 < total < math.inf:
        raise ScenarioError(f"{path}: its shares must have a positive and finite sum (got {total:g}); correct them")
    pmf = np.zeros(max(shares) + 1)
    pmf[list(shares)] = list(shares.values())
    return StalenessLaw(pmf / pmf.sum(), source="measured", name=Path(path).name)
