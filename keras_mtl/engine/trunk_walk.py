"""Passes down the trunk: from gradients by its tensors to those by its variables."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from keras_mtl.engine.gradient_plan import GradientPlan
from keras_mtl.engine.stages import Backward, Key, add_to
from keras_mtl.engine.task_rows import Rows


def walk_down(
    plan: GradientPlan,
    backward: Backward,
    cotangents: Mapping[Key, Any],
    positions: Collection[int],
    keys: Collection[Key] = (),
    stop: Collection[Key] = (),
) -> tuple[dict[int, Any], dict[Key, Any]]:
    """Takes gradients by tensors of the trunk down to variables.

    Args:
        plan: Where the variables are.
        backward: The differentiated forward pass.
        cotangents: Gradients by tensors.
        positions: Variables whose gradients are wanted.
        keys: Tensors by which gradients are wanted.
        stop: Tensors that nothing is passed on to.
    """
    positions, keys, stop = set(positions), set(keys), set(stop)
    by_key, found = dict(cotangents), {}
    for index, stage, pull in backward.stages_from_last():
        given = {k: by_key[k] for k in stage.outputs if by_key.get(k) is not None}
        own = [p for p in plan.of_stages[index] if p in positions]
        through = [
            key
            for key in stage.floating
            if key not in stop
            and (plan.behind[key] & positions or plan.parting_behind[key] & keys)
        ]
        if given and (own or through):
            by_position, further = pull(given, own, through)
            add_to(found, by_position)
            add_to(by_key, further)
    return found, {k: by_key[k] for k in keys if by_key.get(k) is not None}


def rows_by_shared(
    plan: GradientPlan, backward: Backward, shapes: Mapping[int, Sequence[int]]
) -> dict[int, Rows]:
    """Returns the gradients of all tasks by the shared variables, by position.

    Args:
        plan: Where the variables are.
        backward: The differentiated forward pass.
        shapes: Shapes of the shared variables by position.
    """
    rows: dict[int, list[Any]] = {p: [None] * len(backward.by_key) for p in plan.shared}
    for task, cotangents in enumerate(backward.by_key):
        found, _ = walk_down(plan, backward, cotangents, plan.shared_by(task))
        for position, gradient in found.items():
            rows[position][task] = gradient
    return {p: Rows(by_task, tuple(shapes[p])) for p, by_task in rows.items()}
