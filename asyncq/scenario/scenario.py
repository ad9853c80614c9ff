"""A scenario: how long work takes, where it travels and what happens when it arrives, as declared in a TOML file.

The models below *are* the file format: their validation, their JSON form and their JSON schema are one declaration.
Whatever is wrong with a file is reported at once, in one :class:`~asyncq.errors.ScenarioError`, one line a mistake.
"""

from __future__ import annotations

import copy
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    WithJsonSchema,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, PydanticKnownError

from asyncq.distributions import (
    SHORTEST,
    AnyLaw,
    Law,
    Mixture,
    PositiveSeconds,
    Seconds,
    as_number,
    broken_rule,
    nearest,
)
from asyncq.errors import ScenarioError
from asyncq.protocols import ALL_KINDS, KINDS, PARAMETERS, Parameter
from asyncq.protocols.graphs import GRAPHS, edges_of, neighbours
from asyncq.protocols.state import MOST_WAITING
from asyncq.scenario.mistakes import TOLD, is_plain_name, items, mistakes, not_toml, shown
from asyncq.scenario.overrides import override
from asyncq.scenario.plan import PlanTable

__all__ = [
    "Client",
    "Failure",
    "Groups",
    "Learner",
    "Network",
    "Optimizer",
    "Outage",
    "Pool",
    "Protocol",
    "RunTable",
    "Scenario",
    "Server",
    "Slowdown",
    "Slowness",
    "Tree",
]

MAX_WORKERS = 1_000_000
MAX_CLIENTS = 10**12
MAX_CLASSES = 1000  # a call looks through all
MAX_SHARDS = 256
MAX_PARTS = 10_000_000  # workers times shards
CAP = 100_000_000  # updates, where a precision is asked for and no number of updates
_OTHER_NAMES = {  # what a kind is called elsewhere, for the remedy
    "async": "asynchronous",
    "sync": "synchronous",
    "bsp": "synchronous",
    "ssp": "stale-synchronous",
    "fedbuff": "k-batch-async",
    "softsync": "k-batch-async",
    "n-softsync": "k-batch-async",
}


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
        name = _OTHER_NAMES.get(kind.lower().replace("_", "-"), kind)
        raise broken_rule("is not a known protocol", nearest(name, list(ALL_KINDS)))
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


class Failure(Table):
    """A machine fails ``after`` so much computing (seconds), loses what it computes, and is under ``repair``."""

    after: PositiveLaw
    repair: PositiveLaw


class Client(Table):
    """A class of ``clients`` alike: the law of their work (seconds), their wire where it differs from their pool's, the
    ``availability`` (a share) with which an idle one can be called, and how long a called one ``stays`` (seconds)."""

    name: Annotated[str, AfterValidator(_plain_name)]
    clients: Annotated[Positive, Field(le=MAX_CLIENTS)]
    work_time: PositiveLaw
    pull: AnyLaw | None = None
    push: AnyLaw | None = None
    availability: Annotated[float, Field(gt=0, le=1), BeforeValidator(as_number)] = 1.0
    stays: PositiveLaw | None = None


class Pool(Table):
    """``workers`` alike: the law of their work (seconds), and of the wire where it differs from ``[network]``. Or a
    ``population`` of clients, of whom ``concurrency`` are at work at a time, called anew for every gradient."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["workers", "work_time"]}, {"required": ["concurrency", "population"]}]
        }
    )
    name: Annotated[str, AfterValidator(_plain_name)]
    population: Annotated[tuple[Client, ...], Field(min_length=1, max_length=MAX_CLASSES)] | None = None
    concurrency: Annotated[Positive, Field(le=MAX_WORKERS)] | None = Field(None, validate_default=True)
    own_workers: Annotated[Positive, Field(le=MAX_WORKERS)] | None = Field(None, alias="workers", validate_default=True)
    own_work: PositiveLaw | None = Field(None, alias="work_time", validate_default=True)
    pull: AnyLaw | None = None
    push: AnyLaw | None = None
    failure: Failure | None = None

    @field_validator("concurrency", "own_workers", "own_work")
    @classmethod
    def _of_its_shape(cls, value: Any, info: ValidationInfo) -> Any:
        """The keys of one shape, and none of the other."""
        if "population" in info.data and info.field_name is not None:  # else what is wrong with it is told
            called, key = info.data["population"] is not None, cls.model_fields[info.field_name].alias or "concurrency"
            if called == (key == "concurrency"):
                if value is None:
                    raise PydanticKnownError("missing")
            elif value is not None:
                if not called:
                    raise broken_rule("goes with population only", "write workers, or give the population")
                instead = "concurrency" if key == "workers" else "the work_time of every class"
                raise broken_rule("does not go with population", f"give {instead} instead")
        return value

    @model_validator(mode="after")
    def _is_a_population(self) -> Pool:
        if self.population is None or self.concurrency is None:
            return self
        for name, times in Counter(one.name for one in self.population).items():
            if times > 1:
                raise broken_rule(f"has {times} classes named {shown(name)}", "rename all but one", "population")
        if self.concurrency > (most := sum(one.clients for one in self.population)):
            rule = f"must be at most the number of clients, {most}: each computes one gradient at a time"
            raise broken_rule(rule, "lower it", "concurrency")
        if self.failure is not None:
            rule = "does not go with population: a client is called for one gradient only"
            raise broken_rule(rule, "say how long a client of a class stays", "failure")
        return self

    def with_work(self, change: Callable[[Law], Law]) -> Pool:
        """The pool with another law of its work, of that of every class."""
        if self.population is None:
            return self.model_copy(update={"own_work": change(self.work_time)})
        classes = tuple(one.model_copy(update={"work_time": change(one.work_time)}) for one in self.population)
        return self.model_copy(update={"population": classes})

    @property
    def workers(self) -> int:
        """How many gradients are in progress at a time: of as many workers, or clients."""
        many = self.own_workers if self.population is None else self.concurrency
        assert many is not None
        return many

    @property
    def work_time(self) -> Law:
        """The law of a gradient's work; of a population that of a client called while all are idle."""
        if self.population is None:
            assert self.own_work is not None
            return self.own_work
        if len(self.population) == 1:
            return self.population[0].work_time
        weights = [one.clients * one.availability for one in self.population]
        shares = tuple(weight / sum(weights) for weight in weights)
        return Mixture(weights=shares, laws=tuple(one.work_time for one in self.population))


class Network(Table):
    """The wire of the pools that say nothing of theirs (seconds), and whether a gradient's version is that of the
    start or the end of its pull."""

    pull: AnyLaw | None = None
    push: AnyLaw | None = None
    version_fixed: Literal["pull_start", "pull_end"] = "pull_start"


class Server(Table):
    """A first-come-first-served queue with ``seats`` that each serve one gradient at a time (seconds); of ``shards``,
    each has such a queue and a part of the model, and a gradient goes to all of them at once."""

    service_time: PositiveLaw
    seats: Annotated[Positive, Field(le=MAX_WORKERS)] = 1
    shards: Annotated[Positive, Field(le=MAX_SHARDS)] = 1


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
    if parameter.edges:
        pairs = {"type": "array", "minItems": 1, "items": {"type": "array", "items": {"type": "integer", "minimum": 0},
                 "minItems": 2, "maxItems": 2}}  # fmt: skip
        schema = WithJsonSchema({"anyOf": [{"enum": [*parameter.choices]}, pairs]})
        return Annotated[Any, BeforeValidator(edges_of), schema] | None, Field(None, description=parameter.summary)
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


class Tree(Table):
    """Aggregation in two levels: the workers, in the order of the pools, push to ``leaves`` in blocks of equal size.
    ``leaf_k`` pushes make a leaf's message, which takes ``forward`` (seconds) to the root, and ``root_k`` messages make
    an update. While a leaf holds ``buffers`` messages, who pushes to it waits."""

    leaves: Annotated[Positive, Field(le=MAX_WORKERS)]
    leaf_k: Annotated[Positive, Field(le=MAX_WORKERS)]
    root_k: Annotated[Positive, Field(le=MAX_WORKERS)]
    forward: AnyLaw | None = None
    buffers: Annotated[Positive, Field(le=MAX_WORKERS)] | None = None


class Optimizer(Table):
    """What one worker runs today: ``momentum`` (target, in (-1, 1)) and, if given, ``learning_rate``."""

    momentum: Annotated[float, Field(gt=-1, lt=1), BeforeValidator(as_number)]
    learning_rate: Annotated[float, Field(gt=0), BeforeValidator(as_number)] | None = None


class _Window(Table):
    """Something that befalls a ``worker`` ("gpu[7]", or "gpu" for all of the pool) between two instants (seconds)."""

    worker: Annotated[str, Field(strict=True)]
    begins: Seconds = Field(alias="from")
    until: Seconds

    @model_validator(mode="after")
    def _in_order(self) -> _Window:
        if self.until <= self.begins:
            raise broken_rule("must be later than from", "give the time at which it is over", "until")
        return self


class Slowdown(_Window):
    """Work takes ``factor`` times as long, work in progress too; the factors of several at a time are multiplied."""

    factor: Annotated[float, Field(ge=1e-9, le=1e9), BeforeValidator(as_number)]


class Outage(_Window):
    """The machine is away: what it computes is lost when it goes, and its worker reads again when it is back."""


def _without_unit(value: Any) -> Any:
    if isinstance(value, str):
        raise broken_rule("must be a number or a law", "a factor has no unit: write it without quotes")
    return value


class Slowness(Table):
    """Intervals of wall-clock time of ``every`` seconds, in which all work takes a ``factor`` times as long that is
    drawn for each of them."""

    every: PositiveSeconds
    factor: Annotated[PositiveLaw, BeforeValidator(_without_unit)]


class RunTable(Table):
    """How long to simulate: ``updates`` kept or thrown away, the first ``warmup`` of which are thrown away; with a
    ``precision``, only until intervals (95 %) are that narrow, relative to their means, and ``updates`` is a cap.
    With ``until`` (seconds of simulated time) the run ends there, or after the ``updates`` if they come first."""

    updates: Annotated[Positive, Field(le=10**12)] = 200_000
    until: PositiveSeconds | None = None
    seed: Whole | None = None
    warmup: Annotated[int | Literal["auto", "none"], BeforeValidator(_warmup)] = "auto"
    precision: Annotated[float, Field(gt=0, lt=1), BeforeValidator(as_number)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _capped(cls, data: Any) -> Any:
        if isinstance(data, dict) and "updates" not in data and (data.keys() & {"precision", "until"}):
            return {**data, "updates": CAP}
        return data


class Scenario(Table):
    """A whole scenario. Two scenarios are equal if they declare the same, wherever they come from."""

    schema_version: Annotated[int, BeforeValidator(_schema_one)] = Field(alias="schema", json_schema_extra={"const": 1})
    pool: Annotated[tuple[Pool, ...], Field(min_length=1)]
    network: Network = Network()
    server: Server | None = None
    groups: Groups | None = None
    learner: Learner | None = None
    tree: Tree | None = None
    slowdown: tuple[Slowdown, ...] = ()
    outage: tuple[Outage, ...] = ()
    slowness: Slowness | None = None
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
        if self.tree is not None:
            self._is_a_tree(self.tree)
        if self.has_population:
            self._can_call_clients()
        kind = KINDS.get(self.protocol.kind)
        if kind is not None and kind.peers and (self.outage or any(pool.failure for pool in self.pool)):
            rule = "does not go with failures or outages: neighbours would average with a copy that is not there"
            raise broken_rule(rule, "remove them; slowdowns and slow intervals go with it", "protocol.kind")
        for table in ("slowdown", "outage"):
            for number, window in enumerate(getattr(self, table)):
                self._is_there(window.worker, f"{table}.{number}.worker")
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
        if self.server is not None and self.server.shards > 1:
            self._can_be_sharded(self.server.shards, many)
        if (kind := KINDS.get(self.protocol.kind)) is not None and kind.peers:
            self._has_no_server()
            neighbours(self.protocol.parameters.get("graph", GRAPHS[0]), many)
        if ALL_KINDS[self.protocol.kind].distinct and self.protocol.parameters["k"] > many:
            rule = f"must be at most the number of {what}, {many}, or no update can ever be made"
            raise broken_rule(rule, "lower it", "protocol.k")
        return self

    def _can_call_clients(self) -> None:
        """What makes no sense where clients are called for one gradient."""
        kind = self.protocol.kind
        if kind == "pipeline" or KINDS[kind].peers:
            rule = f"{kind} does not go with a population: a client that is called once keeps no weights"
            raise broken_rule(rule, "choose a kind with a server's weights, such as asynchronous", "protocol.kind")
        if self.groups is not None:
            rule = "does not go with a population: clients that are called one by one make no group"
            raise broken_rule(rule, "remove it, or the population", "groups")
        if self.server is not None and self.server.shards > 1:
            rule = "does not go with a population: its classes are counted gradient by gradient, not part by part"
            raise broken_rule(rule, "set shards = 1", "server.shards")

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
        if (parameters["staleness_budget"] + 1) * parameters["batch"] > MOST_WAITING:
            rule = f"lets more than {MOST_WAITING:,} samples wait: batch times the budget and one"
            raise broken_rule(rule, "lower it, or the batch", "protocol.staleness_budget")
        self._goes_without("a generator's way is part of its work_time: remove what does not apply")

    def _is_a_tree(self, tree: Tree) -> None:
        """Leaves of equal size, and no server: the root takes no time."""
        if self.workers % tree.leaves:
            rule = f"must divide the number of workers, {self.workers}"
            raise broken_rule(rule, "leaves have equally many workers: pick a divisor", "tree.leaves")
        if tree.leaves * tree.leaf_k * (tree.buffers or 1) > MOST_WAITING:
            rule = f"lets more than {MOST_WAITING:,} gradients wait: leaves times leaf_k times buffers"
            raise broken_rule(rule, "lower it, or one of the others", "tree.buffers" if tree.buffers else "tree.leaf_k")
        if tree.leaf_k * tree.root_k > MOST_WAITING:
            rule = f"puts more than {MOST_WAITING:,} gradients into an update: leaf_k times root_k"
            raise broken_rule(rule, "lower it, or leaf_k", "tree.root_k")
        self._goes_without("a leaf's link takes the time of tree.forward: remove what does not apply", wires=True)

    def _is_there(self, worker: str, key: str) -> None:
        by_number = next((pool for pool in self.pool if pool.population and worker.startswith(f"{pool.name}[")), None)
        if by_number is not None:
            rule = "names one of a population, whose clients have no numbers"
            raise broken_rule(rule, f'name the pool, "{by_number.name}"', key)
        if not self.machines_of(worker):
            names = [pool.name for pool in self.pool]
            remedy = f'name a pool ({", ".join(names)}), or one of its workers as in "{names[0]}[0]"'
            raise broken_rule("is not a worker of this scenario", remedy, key)

    def machines_of(self, worker: str) -> range:
        """The places, counted through all pools, of the machines called "gpu" (a whole pool) or "gpu[7]"; none if there
        is no such worker."""
        name, _, number = worker.removesuffix("]").partition("[")
        before = 0
        for pool in self.pool:
            if worker == pool.name:
                return range(before, before + pool.workers)
            if worker == f"{name}[{number}]" and name == pool.name and number.isascii() and number.isdigit():
                return range(before + int(number), before + int(number) + 1) if int(number) < pool.workers else range(0)
            before += pool.workers
        return range(0)

    def _is_a_pipeline(self) -> None:
        """One worker a stage, who keeps that stage's weights: nothing is pulled, pushed or served."""
        if self.protocol.parameters["stages"] != self.workers:
            rule = f"must be the number of workers, {self.workers}: a stage has one worker"
            raise broken_rule(rule, "make the two equal", "protocol.stages")
        if self.is_disturbed:
            rule = "does not go with failures, slowdowns, outages or slow intervals"
            raise broken_rule(rule, "its staleness is a matter of order, not of time: remove them", "protocol.kind")
        self._goes_without("every stage keeps its weights where they are used: remove what does not apply")

    def _goes_without(self, remedy: str, *, wires: bool = False) -> None:
        """No server or groups, nor wires."""
        given = {
            "network": self.network != Network() and not wires,
            "pull": any(pool.pull is not None for pool in self.pool) and not wires,
            "push": any(pool.push is not None for pool in self.pool) and not wires,
            "server": self.server is not None,
            "groups": self.groups is not None,
        }
        if foreign := [name for name, there in given.items() if there]:
            raise broken_rule(f"does not go with {', '.join(foreign)}", remedy, "protocol.kind")

    def _has_no_server(self) -> None:
        """Workers that keep a copy each read it where it is."""
        pulls = (self.network.pull, *(pool.pull for pool in self.pool))
        given = {
            "server": self.server is not None,
            "pull": any(law is not None for law in pulls),
            "version_fixed": self.network.version_fixed != "pull_start",
        }
        if foreign := [name for name, there in given.items() if there]:
            remedy = "remove what does not apply; push is the time of the exchange with a neighbour"
            raise broken_rule(f"does not go with {', '.join(foreign)}: workers keep copies", remedy, "protocol.kind")

    def _can_be_sharded(self, shards: int, many: int) -> None:
        """A worker needs one rule for all shards, and a place for its part of each."""
        kind = KINDS[self.protocol.kind]
        if kind.joined is None:
            able = ", ".join(name for name, kind in KINDS.items() if kind.joined is not None)
            rule = f"does not go with kind {self.protocol.kind}: {kind.why_one}"
            raise broken_rule(rule, f"set shards = 1, or a kind that knows shards: {able}", "server.shards")
        if shards * many > MAX_PARTS:
            rule = f"must be at most {MAX_PARTS // many} for so many workers"
            raise broken_rule(rule, "make fewer shards or workers", "server.shards")

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

    @property
    def is_disturbed(self) -> bool:
        """Whether a machine can be slowed, taken away or fail."""
        fails = any(pool.failure is not None for pool in self.pool)
        return fails or bool(self.slowdown or self.outage or self.slowness is not None)

    @property
    def has_population(self) -> bool:
        """Whether any pool calls clients."""
        return any(pool.population is not None for pool in self.pool)

    @property
    def crew(self) -> str:
        """Who is at work, in words: "8 workers", "64 of 1,000,000 clients" at a time, or both."""
        workers = sum(pool.workers for pool in self.pool if pool.population is None)
        clients = sum(one.clients for pool in self.pool for one in pool.population or ())
        words = [f"{workers} worker{'s' * (workers > 1)}"] if workers else []
        return " and ".join(words + ([f"{self.workers - workers} of {clients:,} clients"] if clients else []))

    @property
    def parameters(self) -> dict[str, Any]:
        """Those of the protocol that are given, by key, and the sizes of the tree."""
        sizes = {} if self.tree is None else self.tree.model_dump(exclude={"forward"}, exclude_none=True)
        return {**self.protocol.parameters, **sizes}

    @property
    def rule(self) -> str:
        """The protocol's kind and its parameters in a few words."""
        brief = {key: value if isinstance(value, int | str) else f"{len(value)} edges"
                 for key, value in self.parameters.items() if (key, value) != ("read", "start")}  # fmt: skip
        if "staleness_budget" in brief:
            brief["staleness_budget"] = f"{brief['staleness_budget']} (mean)"
        return " ".join([self.protocol.kind, *(f"{key}={value}" for key, value in brief.items())])

    @property
    def forward(self) -> Law | None:
        """The law of a leaf's link; None where it takes no time."""
        return None if self.tree is None else _unless_zero(self.tree.forward)

    def classes_of(self, pool: Pool) -> tuple[Client, ...]:
        """The classes of a pool's population, with their wires; a pool without one is one class, always there."""
        wires = {"pull": self.pull_of(pool), "push": self.push_of(pool)}
        if pool.population is None:
            table: dict[str, Any] = {"name": pool.name, "clients": pool.workers, "work_time": pool.work_time, **wires}
            return (Client.model_construct(**table),)
        return tuple(
            one.model_copy(
                update={
                    leg: _unless_zero(own) if (own := getattr(one, leg)) is not None else wire
                    for leg, wire in wires.items()
                }
            )
            for one in pool.population
        )

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
            raise ScenarioError(f"{path}: {not_toml(text, error)}") from None
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
                (pool.get("name"), pool.get("workers", pool.get("concurrency")))
                for pool in items(data.get("pool"))
                if isinstance(pool, dict)
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
        tables = (self.server, self.groups, self.learner, self.tree, self.protocol, self.optimizer, self.run)
        befalls = (self.slowdown, self.outage, self.slowness)
        return hash((self.pool, self.network, *tables, *befalls))


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
