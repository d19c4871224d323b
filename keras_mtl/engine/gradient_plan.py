"""Which gradients of which task an aggregated step needs, and what becomes of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras import ops

from keras_mtl.aggregation.aggregator import Aggregator


@dataclass
class GradientPlan:
    """The trainable variables of a model by whom they serve.

    Attributes:
        shared: By position in `trainable_variables`, the tasks (by position) that a
            variable serves, two or more: their gradients are aggregated.
        own: By position, the one task that a variable serves.
        rest: Positions of the others, which have the gradient of the summed loss:
            those of the weighting, those that hold parameters for each task, and
            those that serve none.
    """

    shared: dict[int, tuple[int, ...]]
    own: dict[int, int]
    rest: list[int]

    def positions_of(self, task: int) -> list[int]:
        """Positions of the variables whose gradient by one task is wanted."""
        shared = [p for p, tasks in self.shared.items() if task in tasks]
        return shared + [p for p, owner in self.own.items() if owner == task]


def make_plan(
    variables: Sequence[Any],
    layer_tasks: Sequence[tuple[Any, Sequence[str]]],
    task_names: Sequence[str],
    is_stacked: Any,
) -> GradientPlan:
    """Sorts the trainable variables of a model.

    Args:
        variables: Its trainable variables.
        layer_tasks: Each layer with the tasks that it serves.
        task_names: The tasks that are trained.
        is_stacked: Tells whether a layer holds parameters for each task.
    """
    served: dict[int, set[int]] = {}
    for layer, tasks in layer_tasks:
        if is_stacked(layer):
            continue
        indices = {task_names.index(task) for task in tasks if task in task_names}
        for variable in layer.trainable_variables:
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


def aggregated_gradients(
    plan: GradientPlan,
    aggregator: Aggregator,
    variables: Sequence[Any],
    by_task: Sequence[Mapping[int, Any]],
    by_sum: Mapping[int, Any],
    by_extras: Mapping[int, Any],
    losses: Any,
    present: Any,
    unit: Any,
    replicas: int = 1,
    sum_over_replicas: Callable[[Any], Any] = lambda tensor: tensor,
) -> list[Any]:
    """Returns the gradients that the optimiser is given, None where there is none.

    Args:
        plan: The sorted variables.
        aggregator: The aggregator.
        variables: Values of the trainable variables.
        by_task: For each task, its gradients by position, times `unit`.
        by_sum: Gradients of the summed loss by position, times `unit`.
        by_extras: Gradients of `add_loss` and regularisers, times `unit`.
        losses: The unweighted task losses `(T,)`.
        present: 1 for tasks with labels, else 0, `(T,)`.
        unit: The factor of the loss scaling.
        replicas: Number of replicas that train in step. The gradients given are parts
            that sum to those of the global batch, and so are those returned.
        sum_over_replicas: Sums a tensor over the replicas.
    """
    jacobians = []
    for position in plan.shared:
        zero = ops.zeros(variables[position].shape, "float32")
        rows = [gradients.get(position) for gradients in by_task]
        rows = [zero if r is None else ops.cast(r, "float32") / unit for r in rows]
        jacobians.append(sum_over_replicas(ops.stack(rows)))
    gradients = dict(by_sum)
    for position, task in plan.own.items():
        gradients[position] = by_task[task].get(position)
    updates = aggregator.combine(jacobians, losses, present, True) if jacobians else []
    for position, update in zip(plan.shared, updates, strict=True):
        gradients[position] = ops.cast(
            update * unit / replicas, variables[position].dtype
        )
    for position, extra in by_extras.items():
        if extra is not None:
            one = gradients.get(position)
            gradients[position] = extra if one is None else one + extra
    return [gradients.get(position) for position in range(len(variables))]
