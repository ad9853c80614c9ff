"""Pipelined SGD with weight stashing (PipeDream's 1F1B): a constant staleness per stage, known without a simulation.

Each of S stages holds a part of the weights and has one worker. A minibatch goes forward through the stages 1 .. S and
backward through S .. 1; as its backward at a stage ends, that stage updates its own part, with the gradient at the
weights that the minibatch's forward used there (they were stashed). Stage s lets S - s minibatches in and then
alternates: one forward, one backward (1F1B). So S - s other minibatches are always between a forward and its backward,
each of them makes one update in between, and the staleness is S - s, whatever the times are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncq import __version__
from asyncq.errors import ScenarioError, old_names
from asyncq.jsonable import record
from asyncq.staleness import StalenessLaw
from asyncq.theory.momentum import MomentumLine

if TYPE_CHECKING:
    from asyncq.scenario import Scenario

__all__ = [
    "DRAWN",
    "UNIT",
    "Pipeline",
    "PipelineSchedule",
    "Task",
    "one_forward_one_backward",
    "stage_law",
    "updates_seen",
]

UNIT = "updates of the stage"
DRAWN = 64  # stages that a drawing shows at most


def stage_law(stage: int, stages: int) -> StalenessLaw:
    """The staleness at ``stage`` (1 .. ``stages``): always ``stages`` - ``stage``, exact, for so many intervals between
    a forward and its backward survive every update of the stage (docs/protocols/pipeline.md).

    Raises ``ValueError`` if there is no such stage."""
    if not 1 <= stage <= stages:
        raise ValueError(f"stage must lie between 1 and the number of stages, {stages} (got {stage!r})")
    return replace(StalenessLaw.constant(stages - stage), unit=UNIT)


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A pipeline scenario and what is known of it: for every stage its staleness and, to first order, its momentum."""

    scenario: Scenario

    @classmethod
    def of(cls, scenario: Scenario) -> Pipeline:
        """The pipeline of a scenario; raises ``ScenarioError`` for one with another protocol."""
        if scenario.protocol.kind != "pipeline":
            rule = f"protocol.kind must be pipeline (got {scenario.protocol.kind}); call asyncq.simulate"
            raise ScenarioError(f"{scenario.name}: {rule}")
        return cls(scenario)

    @property
    def stages(self) -> int:
        """How many stages, and workers, there are."""
        return int(self.scenario.protocol.parameters["stages"])

    def law(self, stage: int) -> StalenessLaw:
        """The staleness of a stage (1 .. S), in updates of that stage."""
        return stage_law(stage, self.stages)

    @property
    def mean(self) -> float:
        """The mean staleness over the stages, (S - 1)/2."""
        return (self.stages - 1) / 2

    def momentum(self, stage: int) -> MomentumLine:
        """The momentum budget of a stage (1 .. S), as in the report of a simulation: right to first order in the step
        size only, for a constant staleness is a delay. The first stage's is the worst."""
        late = self.stages - stage
        target = None if self.scenario.optimizer is None else self.scenario.optimizer.momentum
        return MomentumLine.of(late, target, geometric=False, is_delay=late > 0)

    @property
    def title(self) -> str:
        """The scenario and its protocol in one line."""
        return f"{self.scenario.name}: {self.stages} worker{'s' * (self.stages > 1)}, pipeline stages={self.stages}"

    def schedule(self, updates: int = 20) -> PipelineSchedule:
        """The 1F1B schedule up to the first stage's update number ``updates``, each pass taking one unit of time.

        Raises ``ScenarioError`` for a bad number of updates and for a pipeline too long to be drawn."""
        if not isinstance(updates, int) or updates < 1:
            raise ScenarioError(f"updates must be a whole number, 1 or more (got {updates!r})")
        if self.stages > DRAWN:
            rule = f"protocol.stages must be at most {DRAWN} to be drawn (got {self.stages})"
            raise ScenarioError(f"{self.scenario.name}: {rule}; draw a shorter pipeline, it looks the same")
        tasks = one_forward_one_backward(self.stages, updates + self.stages)
        end = next(t.ended for t in tasks if (t.stage, t.minibatch, t.backward) == (1, updates - 1, True))
        late = updates_seen(tasks)
        passes = [(task, late[task.stage, task.minibatch] if task.backward else None) for task in tasks]
        return PipelineSchedule(self.title, self.stages, end, tuple(one for one in passes if one[0].ended <= end))

    def to_dict(self) -> dict[str, Any]:
        """As JSON, schema 1."""
        return {
            "schema": 1,
            "version": __version__,
            "scenario": self.scenario.to_dict(),
            "engine": "exact",
            "staleness": {"mean": self.mean, "unit": UNIT},
            "stages": [
                {"stage": stage, "staleness": self.stages - stage, "momentum": record(self.momentum(stage))}
                for stage in range(1, self.stages + 1)
            ],
        }


class Task(NamedTuple):
    """One pass of one minibatch (0, 1, ...) through one stage (1, 2, ...), forward or backward, in units of time."""

    stage: int
    minibatch: int
    backward: bool
    began: int
    ended: int


class PipelineSchedule(NamedTuple):
    """The passes of a pipeline that end by ``end`` (units of time), each backward with its gradient's staleness."""

    title: str
    stages: int
    end: int
    passes: tuple[tuple[Task, int | None], ...]


def one_forward_one_backward(stages: int, minibatches: int, *, forward: int = 1, backward: int = 1) -> list[Task]:
    """The 1F1B schedule, in the order in which passes end, for passes that take ``forward`` and ``backward`` units of
    time at every stage: each stage makes its passes in a fixed order, each as soon as it and its input are there.

    Raises ``ValueError`` unless all are 1 or more."""
    if min(stages, minibatches, forward, backward) < 1:
        raise ValueError("stages, minibatches and the times of the passes must be 1 or more")
    orders = [deque(_order(stages - stage, minibatches)) for stage in range(1, stages + 1)]
    ended: dict[tuple[int, int, bool], int] = {}
    free = [0] * stages
    tasks: list[Task] = []
    while any(orders):
        for stage, order in enumerate(orders, start=1):
            while order:
                minibatch, back = order[0]
                if back:
                    before = (stage, minibatch, False) if stage == stages else (stage + 1, minibatch, True)
                else:
                    before = (stage - 1, minibatch, False)
                if before[0] and before not in ended:
                    break  # its input has no time yet; the neighbours come first
                began = max(free[stage - 1], ended.get(before, 0))
                free[stage - 1] = ended[stage, minibatch, back] = began + (backward if back else forward)
                tasks.append(Task(stage, minibatch, back, began, free[stage - 1]))
                order.popleft()
    return sorted(tasks, key=lambda task: (task.ended, task.stage))


def _order(ahead: int, minibatches: int) -> list[tuple[int, bool]]:
    """The passes of a stage: ``ahead`` minibatches go forward, then one forward and one backward in turn."""
    order: list[tuple[int, bool]] = []
    for step in range(minibatches + ahead):
        if step < minibatches:
            order.append((step, False))
        if step >= ahead:
            order.append((step - ahead, True))
    return order


def updates_seen(tasks: Sequence[Task]) -> dict[tuple[int, int], int]:
    """The staleness of every gradient, by (stage, minibatch), counted from a schedule: backward passes that ended at
    the stage after the minibatch's forward began there and before its own backward did."""
    ends: dict[int, list[int]] = {}
    began: dict[tuple[int, int], int] = {}
    for task in tasks:
        if task.backward:
            ends.setdefault(task.stage, []).append(task.ended)
        else:
            began[task.stage, task.minibatch] = task.began
    return {
        (task.stage, task.minibatch): sum(
            began[task.stage, task.minibatch] < end <= task.began for end in ends[task.stage]
        )
        for task in tasks
        if task.backward
    }


__getattr__ = old_names(globals(), Schedule="PipelineSchedule")
