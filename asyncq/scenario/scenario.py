"""A scenario: how long work takes, where it travels and what happens when it arrives, as declared in a TOML file.

Whatever is wrong with a file is reported at once, in one :class:`~asyncq.errors.ScenarioError`, one line a mistake.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, model_validator

from asyncq.distributions import Law, broken_rule
from asyncq.errors import ScenarioError
from asyncq.scenario.checks import between_pools, fits_together
from asyncq.scenario.mistakes import items, mistakes, not_toml, shown
from asyncq.scenario.overrides import override
from asyncq.scenario.plan import PlanTable
from asyncq.scenario.tables import (
    Client,
    Groups,
    Learner,
    Network,
    Optimizer,
    Outage,
    Pool,
    Protocol,
    RunTable,
    Server,
    Slowdown,
    Slowness,
    Table,
    Tree,
)

__all__ = ["Scenario"]


def _schema_one(value: Any) -> Any:
    if value != 1 or not isinstance(value, int) or isinstance(value, bool):
        raise broken_rule("must be 1, the only version there is", "write schema = 1")
    return value


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
        fits_together(self)
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
            lines = [*between_pools(pools), *mistakes(error, data, cls)]
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
