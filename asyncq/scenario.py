"""A scenario: how long work takes, where it travels and what happens when it arrives, as declared in a TOML file.

The models below *are* the file format: their validation, their JSON form and their JSON schema are one declaration.
Whatever is wrong with a file is reported at once, in one :class:`~asyncq.errors.ScenarioError`, one line a mistake.
"""

from __future__ import annotations

import copy
import json
import re
import reprlib
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from asyncq.distributions import LAWS, AnyLaw, Law, Number, Seconds, broken_rule, nearest
from asyncq.errors import ScenarioError
from asyncq.protocols import KINDS, PARAMETERS, Parameter

__all__ = ["Groups", "Network", "Optimizer", "Pool", "Protocol", "RunTable", "Scenario", "Server"]

MAX_WORKERS = 1_000_000
_NAME = re.compile(r"[\w-]+(?: [\w-]+)*")

# What the design foresees and this version does not do: refused by name, never ignored.
_NOT_YET = {
    "": ("learner", "plan", "slowdown"),
    "pool": ("failure",),
    "server": ("shards",),
    "run": ("until", "precision"),
    "protocol": ("batch", "stages", "staleness_budget", "discard_older_than", "read"),
}
_KINDS_NOT_YET = ("actor-learner", "pipeline")


def _positive_mean(law: Law) -> Law:
    if law.mean <= 0:
        raise broken_rule("must have a positive mean", 'give a time such as "250ms"')
    return law


def _plain_name(name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > 64:
        raise broken_rule('must be letters, digits, "-", "_" or inner spaces, 1 to 64 of them', "pick a plain name")
    return name


def _warmup(value: Any) -> Any:
    if value in ("auto", "none") or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise broken_rule('must be "auto", "none" or a number of updates, 0 or more', 'write warmup = "auto"')


def _schema_one(value: Any) -> Any:
    if value != 1 or not isinstance(value, int) or isinstance(value, bool):
        raise broken_rule("must be 1, the only version there is", "write schema = 1")
    return value


Whole = Annotated[int, Field(strict=True, ge=0)]
Positive = Annotated[int, Field(strict=True, ge=1)]
PositiveLaw = Annotated[AnyLaw, AfterValidator(_positive_mean)]


class Table(BaseModel):
    """A table of a scenario file: immutable, with no keys but its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Pool(Table):
    """``workers`` alike: the law of their work (seconds), and of the wire where it differs from ``[network]``."""

    name: Annotated[str, AfterValidator(_plain_name)]
    workers: Annotated[Positive, Field(le=MAX_WORKERS)]
    work_time: PositiveLaw
    pull: AnyLaw | None = None
    push: AnyLaw | None = None


class Network(Table):
    """The wire of the pools that say nothing of theirs (seconds), and whether a gradient's version is that of the
    start or the end of its pull."""

    pull: AnyLaw | None = None
    push: AnyLaw | None = None
    version_fixed: Literal["pull_start", "pull_end"] = "pull_start"


class Server(Table):
    """One first-come-first-served queue with ``seats`` that each serve one gradient at a time (seconds)."""

    service_time: PositiveLaw
    seats: Annotated[Positive, Field(le=MAX_WORKERS)] = 1


class _Protocol(Table):
    """What happens when a gradient arrives: a ``kind`` of :data:`asyncq.protocols.KINDS` with its parameters."""

    kind: str = "asynchronous"

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in KINDS:
            if kind in _KINDS_NOT_YET:
                raise broken_rule("is not yet supported in this version", f"use one of: {', '.join(KINDS)}")
            raise broken_rule("is not a known protocol", nearest(kind, list(KINDS)))
        return kind

    @field_validator(*PARAMETERS, check_fields=False)
    @classmethod
    def _wanted(cls, value: Any, info: ValidationInfo) -> Any:
        kind = info.data.get("kind")
        if value is not None and kind is not None and info.field_name not in (known := KINDS[kind].parameters):
            keys = f"its keys are: {', '.join(known)}" if known else "it has no parameters"
            raise broken_rule(f"does not go with kind {kind}", f"remove it; {keys}")
        return value

    @model_validator(mode="after")
    def _complete(self) -> _Protocol:
        for key in KINDS[self.kind].required:
            if key not in self.parameters:
                summary = PARAMETERS[key].summary
                raise broken_rule("is missing", f"kind {self.kind} needs it ({summary})", key)
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that are given, by key."""
        return self.model_dump(exclude={"kind"}, exclude_none=True)


def _parameter(parameter: Parameter) -> Any:
    if parameter.choices:
        return Literal[parameter.choices] | None, Field(None, description=parameter.summary)
    whole = Annotated[int, Field(strict=True, ge=parameter.minimum, le=parameter.maximum)]
    return whole | None, Field(None, description=parameter.summary)


if TYPE_CHECKING:
    Protocol = _Protocol
else:  # its keys are declared where the rules are, so that a new protocol is one edit
    fields = {key: _parameter(parameter) for key, parameter in PARAMETERS.items()}
    Protocol = create_model("Protocol", __base__=_Protocol, __doc__=_Protocol.__doc__, **fields)


class Groups(Table):
    """Compute groups: the machines, in the order of the pools, form ``count`` groups of equal size, synchronous within
    and asynchronous between. A ``batch`` is split among the members or replicated; ``all_reduce`` takes seconds."""

    count: Positive
    batch: Literal["split", "replicated"] = "split"
    all_reduce: Seconds = 0.0


class Optimizer(Table):
    """What one worker runs today: ``momentum`` (target, in (-1, 1)) and, if given, ``learning_rate``."""

    momentum: Annotated[Number, Field(gt=-1, lt=1)]
    learning_rate: Annotated[Number, Field(gt=0)] | None = None


class RunTable(Table):
    """How long to simulate: ``updates`` kept or thrown away, the first ``warmup`` of which are thrown away."""

    updates: Annotated[Positive, Field(le=10**12)] = 200_000
    seed: Whole | None = None
    warmup: Annotated[int | Literal["auto", "none"], BeforeValidator(_warmup)] = "auto"


class Scenario(Table):
    """A whole scenario. Two scenarios are equal if they declare the same, wherever they come from."""

    schema_version: Annotated[int, BeforeValidator(_schema_one)] = Field(alias="schema")
    pool: Annotated[tuple[Pool, ...], Field(min_length=1)]
    network: Network = Network()
    server: Server | None = None
    groups: Groups | None = None
    protocol: Protocol = Protocol()
    optimizer: Optimizer | None = None
    run: RunTable = RunTable()
    _name: str = PrivateAttr(default="scenario")
    _source: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _fits_together(self) -> Scenario:
        for _, rule, remedy in _pool_problems([(pool.name, pool.workers) for pool in self.pool]):
            raise PydanticCustomError("pools", "{rule}; {remedy}", {"rule": rule, "remedy": remedy})
        many, what = self.workers, "workers"
        if self.groups is not None:
            if self.workers % self.groups.count:
                rule = f"must divide the number of workers, {self.workers}"
                raise broken_rule(rule, "groups have equal sizes: pick a divisor", "groups.count")
            many, what = self.groups.count, "groups"
        if KINDS[self.protocol.kind].distinct and self.protocol.parameters["k"] > many:
            rule = f"must be at most the number of {what}, {many}, or no update can ever be made"
            raise broken_rule(rule, "lower it", "protocol.k")
        return self

    @property
    def name(self) -> str:
        """The file's name without its ending, or the name given."""
        return self._name

    @property
    def source(self) -> Path | None:
        """The file that the scenario was read from."""
        return self._source

    @property
    def workers(self) -> int:
        """How many workers there are in all pools together."""
        return sum(pool.workers for pool in self.pool)

    def pull_of(self, pool: Pool) -> Law | None:
        """The law of a pull by a worker of ``pool``; None where it takes no time."""
        return _unless_zero(pool.pull if pool.pull is not None else self.network.pull)

    def push_of(self, pool: Pool) -> Law | None:
        """The law of a push by a worker of ``pool``; None where it takes no time."""
        return _unless_zero(pool.push if pool.push is not None else self.network.push)

    @classmethod
    def from_toml(cls, path: str | Path, *, overrides: Sequence[str] = ()) -> Scenario:
        """Read a scenario file. ``overrides`` are ``PATH=VALUE`` texts such as ``gpu.work_time.cv=0.5``.

        Raises :class:`~asyncq.errors.ScenarioError` with every mistake in it."""
        try:
            text = Path(path).read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            raise ScenarioError(f"{path}: does not exist; check the path") from None
        except IsADirectoryError:
            raise ScenarioError(f"{path}: is a directory; name a scenario file") from None
        except UnicodeDecodeError as error:
            raise ScenarioError(f"{path}: is not UTF-8 text (byte {error.start + 1}); save it in UTF-8") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ScenarioError(f"{path}: cannot be read ({reason}); name a readable scenario file") from None
        try:
            data = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            what = re.sub(r" \(at ([^()]*)\)$", r" at \1", " ".join(str(error).split())[:200])
            raise ScenarioError(f"{path}: is not TOML: {what}; correct it there") from None
        if not data:
            raise ScenarioError(f"{path}: is empty; write schema = 1 and at least one [[pool]]")
        scenario = cls._validated(data, str(path), Path(path).parent, overrides)
        scenario._name, scenario._source = Path(path).stem, Path(path)
        return scenario

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        *,
        name: str = "scenario",
        folder: str | Path | None = None,
        overrides: Sequence[str] = (),
    ) -> Scenario:
        """A scenario from tables as in a file; relative CSV paths start at ``folder`` (default: working directory).

        Raises :class:`~asyncq.errors.ScenarioError` with every mistake in it."""
        scenario = cls._validated(data, name, Path(folder or "."), overrides)
        scenario._name = name
        return scenario

    @classmethod
    def _validated(cls, data: Any, origin: str, folder: Path, overrides: Sequence[str]) -> Scenario:
        if not isinstance(data, Mapping):
            raise ScenarioError(f"{origin}: must be a table (got {_shown(data)}); give a dict of tables")
        try:
            data = copy.deepcopy(dict(data)) if overrides else dict(data)
            if wrong := [problem for text in overrides if (problem := _override(data, text))]:
                raise ScenarioError([f"{origin}: {problem}" for problem in wrong])
            return cls.model_validate(data, context={"folder": folder})
        except ValidationError as error:
            raise ScenarioError([f"{origin}: {line}" for line in _problems(error, data)]) from None
        except RecursionError:
            raise ScenarioError(f"{origin}: is nested too deeply; flatten its tables") from None

    def to_dict(self) -> dict[str, Any]:
        """The tables as JSON would hold them, defaults filled in, times in seconds; ``from_dict`` reads them back."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scenario) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.pool, self.network, self.server, self.protocol, self.optimizer, self.run))


def _unless_zero(law: Law | None) -> Law | None:
    return None if law is None or law.mean == 0 else law


# -- overrides --------------------------------------------------------------------------------------------------------


def _override(data: dict[str, Any], text: str) -> str:
    """Set one ``PATH=VALUE`` in the tables; what is wrong with it, or an empty text."""
    path, equals, value = (part.strip() for part in text.partition("="))
    steps = path.split(".")
    if not equals or not all(steps):
        return f"override {_shown(text)} must have the form PATH=VALUE; write for instance run.updates=1000"
    pools = [pool for pool in _list(data.get("pool")) if isinstance(pool, dict)]
    by_name = {str(pool.get("name")): pool for pool in pools}
    tables = [*_keys(Scenario), *_NOT_YET[""]]
    here: Any = data
    if len(steps) > 1 and steps[0] == "pool":
        if steps[1] not in by_name:
            remedy = nearest(steps[1], list(by_name))
            return f"override {path}: there is no such pool (got {_shown(steps[1])}); {remedy}"
        here, steps = by_name[steps[1]], steps[2:]
    elif len(steps) > 1 and steps[0] in tables:
        here, steps = data.setdefault(steps[0], {}), steps[1:]
    elif len(steps) > 1 and steps[0] in by_name:
        here, steps = by_name[steps[0]], steps[1:]
    elif steps[0] not in tables:
        remedy = nearest(steps[0], [*by_name, *_keys(Scenario)])
        return f"override {path}: there is no such pool or table (got {_shown(steps[0])}); {remedy}"
    if not steps:
        return f"override {path}: must name a key of the pool; write for instance {path}.workers=8"
    for done, step in enumerate(steps[:-1]):
        here = here.get(step) if isinstance(here, dict) else None
        if not isinstance(here, dict):
            whole = path.rsplit(".", len(steps) - 1 - done)[0]
            return f"override {path}: {whole} is not a table here (got {_shown(here)}); set {whole} as a whole"
    if not isinstance(here, dict):
        return f"override {path}: its table is {_shown(here)}; write it as a table"
    here[steps[-1]] = _toml_value(value)
    return ""


def _toml_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text


# -- what is wrong, in one line a mistake -----------------------------------------------------------------------------

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
    "model_type": ("must be a table", "write its keys below a [table] heading"),
    "literal_error": ("must be {expected}", "pick one of these"),
    "invalid_key": ("has a key that is not a text", "name every key"),
    "recursion_loop": ("is nested too deeply", "flatten it"),
}
_MISSING = {
    "schema": "write schema = 1 on the first line",
    "pool": "add a [[pool]] with name, workers and work_time",
    "name": 'name the pool, as in name = "gpu"',
    "workers": "give the number of workers of the pool",
    "work_time": 'give a time such as "250ms" or a law',
    "service_time": 'give a time such as "20ms" or a law',
    "mean": 'give the mean time in seconds or as "250ms"',
    "cv": "give cv = sd / mean",
    "momentum": "give the momentum that you use with one worker, 0 if none",
}


def _pool_problems(pools: Sequence[tuple[Any, Any]]) -> Iterator[tuple[str, str, str]]:
    """Key, rule and remedy for what is wrong between pools, given their names and workers."""
    for name, times in Counter(name for name, _ in pools if isinstance(name, str)).items():
        if times > 1:
            yield "pool", f"must have different names (got {times} named {_shown(name)})", "rename all but one"
    total = sum(workers for _, workers in pools if type(workers) is int and 0 < workers <= MAX_WORKERS)
    if total > MAX_WORKERS:
        yield "pool", f"must have at most {MAX_WORKERS} workers in total (got {total})", "make the pools smaller"


def _problems(error: ValidationError, data: dict[str, Any]) -> list[str]:
    """One line, ``key rule (got value); remedy``, for each mistake."""
    raw = [(pool.get("name"), pool.get("workers")) for pool in _list(data.get("pool")) if isinstance(pool, dict)]
    lines = [f"{key} {rule}; {remedy}" for key, rule, remedy in _pool_problems(raw)]
    details = [detail for detail in error.errors(include_url=False) if not _echo(detail)]
    misspelt: set[tuple[int | str, ...]] = set()
    for detail in details:
        if detail["type"] == "extra_forbidden":
            steps, law = _walk(detail["loc"][:-1], data)
            remedy = nearest(str(detail["loc"][-1]), _known_keys(steps, law))
            misspelt.update((*steps, key) for key in re.findall(r'^did you mean "(.*)"\?$', remedy))
    for detail in details:
        steps, _ = _walk(detail["loc"], data)
        if detail["type"] != "missing" or tuple(steps) not in misspelt:
            lines.append(_line(detail, steps, data))
    return list(dict.fromkeys(lines))


def _echo(detail: ErrorDetails) -> bool:
    """Whether a mistake repeats others: a list counts as too short when none of its items is valid."""
    return detail["type"] == "pools" or (detail["type"] == "too_short" and bool(detail["input"]))


def _line(detail: ErrorDetails, steps: list[int | str], data: dict[str, Any]) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    got = kind != "missing"
    if kind == "rule":
        rule, remedy, key = context["rule"], context["remedy"], context["key"]
        if key:
            steps = [*steps, *key.split(".")]
            for step in key.split("."):
                value, got = (value[step], True) if isinstance(value, dict) and step in value else (None, False)
    elif kind == "extra_forbidden":
        parents, law = _walk(detail["loc"][:-1], data)
        steps = [*parents, detail["loc"][-1]]
        table = str(parents[0]) if parents else ""
        if len(parents) <= 2 and not law and steps[-1] in _NOT_YET.get(table, ()):
            rule, remedy = "is not yet supported in this version", "remove it"
        else:
            rule, remedy = "is not a known key", nearest(str(steps[-1]), _known_keys(parents, law))
    else:
        rule, remedy = _RULES.get(kind, ("is not valid", "see the scenario reference"))
        rule, remedy = rule.format(**context), remedy.format(**context)
        if kind == "missing":
            remedy = _MISSING.get(str(steps[-1]), remedy)
        elif steps == ["pool"]:
            rule, remedy = "must be a list of tables, at least one", "write [[pool]] with name, workers and work_time"
        elif kind == "int_type" and isinstance(value, float) and value.is_integer():
            remedy = f"write {int(value):_}"
    return f"{_address(steps, data)} {rule}{f' (got {_shown(value)})' if got else ''}; {remedy}"


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


def _known_keys(steps: Sequence[int | str], law: str) -> list[str]:
    """The keys of the table at ``steps``, or of ``law`` there."""
    if law:
        return _keys(LAWS[law])
    models: dict[str, type[BaseModel]] = {
        "pool": Pool,
        "network": Network,
        "server": Server,
        "groups": Groups,
        "protocol": Protocol,
        "optimizer": Optimizer,
        "run": RunTable,
    }
    return _keys(models.get(str(steps[0]), Scenario) if steps else Scenario)


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _address(steps: Sequence[int | str], data: dict[str, Any]) -> str:
    """``pool "gpu" work_time.mean``; a pool without a usable name goes by its number."""
    words: list[str] = []
    rest = list(steps)
    if len(rest) > 1 and rest[0] == "pool" and isinstance(rest[1], int):
        pool = _list(data.get("pool"))[rest[1]]
        name = pool.get("name") if isinstance(pool, dict) else None
        named = isinstance(name, str) and len(name) <= 64 and _NAME.fullmatch(name)
        words.append(f'pool "{name}"' if named else f"pool number {rest[1] + 1}")
        rest = rest[2:]
    path = ""
    for step in rest:
        plain = isinstance(step, str) and re.fullmatch(r"[\w-]{1,64}", step)
        path += f"[{step}]" if isinstance(step, int) else f".{step if plain else _shown(step)}"
    return " ".join([*words, path.lstrip(".")] if path else words) or "scenario"


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60
_short.maxlist = _short.maxtuple = _short.maxdict = 6
_short.maxlevel = 3


def _shown(value: Any) -> str:
    """A value in one short line."""
    try:
        if isinstance(value, str):
            return json.dumps(value if len(value) <= 60 else f"{value[:57]}...")
        return str(value).lower() if isinstance(value, bool) else " ".join(_short.repr(value).split())
    except ValueError:
        return "a number of very many digits"
