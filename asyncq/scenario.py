"""A scenario: how long work takes, where it travels and what happens when it arrives, as declared in a TOML file.

The models below *are* the file format: their validation, their JSON form and their JSON schema are one declaration.
What the design foresees and this version does not do is refused by name (``not_yet``), never ignored. Whatever is wrong
with a file is reported at once, in one :class:`~asyncq.errors.ScenarioError`, one line a mistake.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

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
from pydantic_core import PydanticCustomError

from asyncq.distributions import SHORTEST, AnyLaw, Law, Seconds, as_number, broken_rule, nearest
from asyncq.errors import ScenarioError
from asyncq.mistakes import TOLD, is_plain_name, items, mistakes, shown
from asyncq.overrides import override
from asyncq.plan_table import PlanTable
from asyncq.protocols import ALL_KINDS, MOST_SAMPLES, PARAMETERS, Parameter

__all__ = ["Groups", "Learner", "Network", "Optimizer", "Pool", "Protocol", "RunTable", "Scenario", "Server"]

MAX_WORKERS = 1_000_000
CAP = 100_000_000  # updates, where a precision is asked for and no number of updates

def _positive_mean(law: Law) -> Law:
    if law.mean <= 0:
        raise broken_rule("must have a positive mean", 'give a time such as "250ms"')
    return law


def _plain_name(name: str) -> str:
    if not is_plain_name(name):
        raise broken_rule('must be letters, digits, "-", "_" or inner spaces, 1 to 64 of them', "pick a plain name")
    return name


def known_kind(kind: str) -> str:
    """``kind``, if it is a protocol of this version; a broken rule otherwise."""
    if kind not in ALL_KINDS:
        raise broken_rule("is not a known protocol", nearest(kind, list(ALL_KINDS)))
    return kind


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
    not_yet: ClassVar[tuple[str, ...]] = ()


class Pool(Table):
    """``workers`` alike: the law of their work (seconds), and of the wire where it differs from ``[network]``."""

    not_yet = ("failure",)
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

    not_yet = ("shards",)
    service_time: PositiveLaw
    seats: Annotated[Positive, Field(le=MAX_WORKERS)] = 1


class _Protocol(Table):
    """What happens when a gradient arrives: a ``kind`` of :data:`asyncq.protocols.ALL_KINDS` with its parameters."""

    kind: Annotated[str, AfterValidator(known_kind), Field(json_schema_extra={"enum": [*ALL_KINDS]})] = "asynchronous"

    @field_validator(*PARAMETERS, check_fields=False)
    @classmethod
    def _wanted(cls, value: Any, info: ValidationInfo) -> Any:
        kind = info.data.get("kind")
        if value is not None and kind is not None and info.field_name not in (known := ALL_KINDS[kind].parameters):
            keys = f"its keys are: {', '.join(known)}" if known else "it has no parameters"
            raise broken_rule(f"does not go with kind {kind}", f"remove it; {keys}")
        return value

    @field_validator("weight", check_fields=False)
    @classmethod
    def _with_downweight(cls, weight: Any, info: ValidationInfo) -> Any:
        if weight is not None and info.data.get("policy", "downweight") != "downweight":
            raise broken_rule('goes with policy = "downweight" only', "remove it, or set that policy")
        return weight

    @model_validator(mode="after")
    def _complete(self) -> _Protocol:
        for key in ALL_KINDS[self.kind].required:
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


class Learner(Table):
    """Who learns from the samples of an actor-learner: ``work_time`` for a batch (seconds)."""

    work_time: PositiveLaw


class Optimizer(Table):
    """What one worker runs today: ``momentum`` (target, in (-1, 1)) and, if given, ``learning_rate``."""

    momentum: Annotated[float, Field(gt=-1, lt=1), BeforeValidator(as_number)]
    learning_rate: Annotated[float, Field(gt=0), BeforeValidator(as_number)] | None = None


class RunTable(Table):
    """How long to simulate: ``updates`` kept or thrown away, the first ``warmup`` of which are thrown away; with a
    ``precision``, only until intervals (95 %) are that narrow, relative to their means, and ``updates`` is a cap."""

    not_yet = ("until",)
    updates: Annotated[Positive, Field(le=10**12)] = 200_000
    seed: Whole | None = None
    warmup: Annotated[int | Literal["auto", "none"], BeforeValidator(_warmup)] = "auto"
    precision: Annotated[float, Field(gt=0, lt=1), BeforeValidator(as_number)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _capped(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("precision") is not None and "updates" not in data:
            return {**data, "updates": CAP}
        return data


class Scenario(Table):
    """A whole scenario. Two scenarios are equal if they declare the same, wherever they come from."""

    not_yet = ("slowdown",)
    schema_version: Annotated[int, BeforeValidator(_schema_one)] = Field(alias="schema", json_schema_extra={"const": 1})
    pool: Annotated[tuple[Pool, ...], Field(min_length=1)]
    network: Network = Network()
    server: Server | None = None
    groups: Groups | None = None
    learner: Learner | None = None
    protocol: Protocol = Protocol()
    optimizer: Optimizer | None = None
    run: RunTable = RunTable()
    plan: PlanTable | None = None
    _name: str = PrivateAttr(default="scenario")
    _source: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _fits_together(self) -> Scenario:
        if any(_between_pools([(pool.name, pool.workers) for pool in self.pool])):
            raise PydanticCustomError(TOLD, "the pools do not fit together")
        self._has_its_table()
        if self.protocol.kind == "pipeline":
            self._is_a_pipeline()
        if self.protocol.kind == "actor-learner":
            self._is_an_actor_learner()
        many, what = self.workers, "workers"
        if self.groups is not None:
            if self.workers % self.groups.count:
                rule = f"must divide the number of workers, {self.workers}"
                raise broken_rule(rule, "groups have equal sizes: pick a divisor", "groups.count")
            size = self.workers // self.groups.count
            if self.groups.batch == "split" and min(pool.work_time.mean for pool in self.pool) < size * SHORTEST:
                rule = f"leaves a member less than {SHORTEST:g} seconds of work"
                raise broken_rule(rule, "check the unit of work_time, or make more groups", "groups.count")
            many, what = self.groups.count, "groups"
        if ALL_KINDS[self.protocol.kind].distinct and self.protocol.parameters["k"] > many:
            rule = f"must be at most the number of {what}, {many}, or no update can ever be made"
            raise broken_rule(rule, "lower it", "protocol.k")
        return self

    def _has_its_table(self) -> None:
        """Some kinds need a table of their own, which goes with no other."""
        needed = ALL_KINDS[self.protocol.kind].table
        for table, kind in {kind.table: name for name, kind in ALL_KINDS.items() if kind.table}.items():
            given = getattr(self, table) is not None
            if table == needed and not given:
                raise broken_rule("is missing", f"kind {kind} needs a [{table}] table", table)
            if given and table != needed:
                raise broken_rule(f"goes with kind {kind} only", "remove it, or choose that kind", table)

    def _is_an_actor_learner(self) -> None:
        """Nothing but generators and a learner; the queue of samples has a size that memory can hold."""
        parameters = self.protocol.parameters
        if parameters.get("limit", 1) > self.workers:
            rule = f"must be at most the number of generators, {self.workers}"
            raise broken_rule(rule, "lower it, or leave it out for no limit", "protocol.limit")
        if (parameters["staleness_budget"] + 1) * parameters["batch"] > MOST_SAMPLES:
            rule = f"lets more than {MOST_SAMPLES:,} samples wait: batch times the budget and one"
            raise broken_rule(rule, "lower it, or the batch", "protocol.staleness_budget")
        self._goes_without("a generator's way is part of its work_time: remove what does not apply")

    def _is_a_pipeline(self) -> None:
        """One worker a stage, who keeps that stage's weights: nothing is pulled, pushed or served."""
        if self.protocol.parameters["stages"] != self.workers:
            rule = f"must be the number of workers, {self.workers}: a stage has one worker"
            raise broken_rule(rule, "make the two equal", "protocol.stages")
        self._goes_without("every stage keeps its weights where they are used: remove what does not apply")

    def _goes_without(self, remedy: str) -> None:
        """No wire, server or groups."""
        given = {
            "network": self.network != Network(),
            "pull": any(pool.pull is not None for pool in self.pool),
            "push": any(pool.push is not None for pool in self.pool),
            "server": self.server is not None,
            "groups": self.groups is not None,
        }
        if foreign := [name for name, there in given.items() if there]:
            raise broken_rule(f"does not go with {', '.join(foreign)}", remedy, "protocol.kind")

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
            raise ScenarioError(f"{origin}: must be a table (got {shown(data)}); give a dict of tables")
        try:
            data = copy.deepcopy(dict(data)) if overrides else dict(data)
            if wrong := [problem for text in overrides if (problem := override(data, text, cls))]:
                raise ScenarioError([f"{origin}: {problem}" for problem in wrong])
            return cls.model_validate(data, context={"folder": folder})
        except ValidationError as error:
            pools = [
                (pool.get("name"), pool.get("workers")) for pool in items(data.get("pool")) if isinstance(pool, dict)
            ]
            lines = [*_between_pools(pools), *mistakes(error, data, cls)]
            raise ScenarioError([f"{origin}: {line}" for line in lines]) from None
        except RecursionError:
            raise ScenarioError(f"{origin}: is nested too deeply; flatten its tables") from None

    def to_dict(self) -> dict[str, Any]:
        """The tables as JSON would hold them, defaults filled in, times in seconds; ``from_dict`` reads them back."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scenario) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        tables = (self.server, self.groups, self.learner, self.protocol, self.optimizer, self.run)
        return hash((self.pool, self.network, *tables))


def _unless_zero(law: Law | None) -> Law | None:
    return None if law is None or law.mean == 0 else law


def _between_pools(pools: Sequence[tuple[Any, Any]]) -> Iterator[str]:
    """What is wrong between pools, given their names and workers, in one line a mistake."""
    for name, times in Counter(name for name, _ in pools if isinstance(name, str)).items():
        if times > 1:
            yield f"pool must have different names (got {times} named {shown(name)}); rename all but one"
    total = sum(workers for _, workers in pools if type(workers) is int and 0 < workers <= MAX_WORKERS)
    if total > MAX_WORKERS:
        yield f"pool must have at most {MAX_WORKERS} workers in total (got {total}); make the pools smaller"
