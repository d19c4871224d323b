"""Which gradients of which task an aggregated step needs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from keras_mtl.engine.stages import Key, Stages


@dataclass(frozen=True)
class LayerUse:
    """A layer, or a part of one, and the tasks that it serves.

    Attributes:
        layer: The layer.
        tasks: Names of the tasks.
        stacked: Whether it holds parameters for each of them.
    """

    layer: Any
    tasks: tuple[str, ...]
    stacked: bool

    @property
    def kind(self) -> str:
        """The kind of sharing: "shared", "private", "stacked" or "unused"."""
        if not self.tasks:
            return "unused"
        if len(self.tasks) == 1:
            return "private"
        return "stacked" if self.stacked else "shared"


@dataclass
class GradientPlan:
    """The trainable variables of a model by whom they serve and where they are.

    Attributes:
        shared: By position in `trainable_variables`, the tasks (by position) that a
            variable serves, two or more: their gradients are aggregated.
        own: By position, the one task that a variable serves.
        rest: Positions of the others, which have the gradient of the summed loss:
            those of the weighting, those that hold parameters for each task, and
            those that serve none.
        of_stages: For each stage of the trunk, the positions of its variables.
        of_heads: Positions of the variables of the heads, and of those outside.
        behind: By tensor of the trunk, the positions of the variables that it
            depends on.
        parting_behind: By tensor of the trunk, the tensors where tasks part that it
            is or depends on.
    """

    shared: dict[int, tuple[int, ...]]
    own: dict[int, int]
    rest: list[int]
    of_stages: list[list[int]] = field(default_factory=list)
    of_heads: list[int] = field(default_factory=list)
    behind: dict[Key, set[int]] = field(default_factory=dict)
    parting_behind: dict[Key, set[Key]] = field(default_factory=dict)

    def shared_by(self, task: int) -> set[int]:
        """Positions of the shared variables that serve a task."""
        return {p for p, tasks in self.shared.items() if task in tasks}

    def private_to(self, task: int) -> set[int]:
        """Positions of the variables whose gradient by one task is not aggregated."""
        return {p for p, owner in self.own.items() if owner == task} | set(self.rest)


def make_plan(
    variables: Sequence[Any],
    uses: Sequence[LayerUse],
    task_names: Sequence[str],
) -> GradientPlan:
    """Sorts the trainable variables of a model.

    Args:
        variables: Its trainable variables.
        uses: Its layers with the tasks that they serve.
        task_names: The tasks that are trained.
    """
    served: dict[int, set[int]] = {}
    for use in uses:
        if use.stacked:
            continue
        indices = {task_names.index(task) for task in use.tasks if task in task_names}
        for variable in use.layer.trainable_variables:
            served.setdefault(id(variable), set()).update(indices)
    plan = GradientPlan({}, {}, [])
    for position, variable in enumerate(variables):
        tasks = served.get(id(variable), set())
        if len(tasks) > 1:
            plan.shared[position] = tuple(sorted(tasks))
        elif len(tasks) == 1:
            (plan.own[position],) = tasks
        else:
            plan.rest.append(position)
    return plan


def place_in_stages(
    plan: GradientPlan, variables: Sequence[Any], stages: Stages
) -> None:
    """Notes in a plan in which stage the variables are."""

    def positions_of(part):
        found = {id(variable) for variable in part.variables()}
        return [p for p, variable in enumerate(variables) if id(variable) in found]

    plan.of_stages = [positions_of(stage) for stage in stages.trunk]
    placed = {p for of_stage in plan.of_stages for p in of_stage}
    in_heads = set(positions_of(stages.heads))
    plan.of_heads = [
        p for p in range(len(variables)) if p in in_heads or p not in placed
    ]
    for stage, own in zip(stages.trunk, plan.of_stages, strict=True):
        behind = set(own).union(*(plan.behind[key] for key in stage.floating))
        parting = set().union(*(plan.parting_behind[key] for key in stage.floating))
        for key in stage.outputs:
            plan.behind[key] = behind
            here = {key} if key in stage.parting else set()
            plan.parting_behind[key] = parting | here
