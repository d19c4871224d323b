"""Checks that an aggregator can be used with a model, and prepares both for it."""

from collections.abc import Sequence
from typing import Any

from keras_mtl.aggregation.aggregator import Aggregator
from keras_mtl.argument_checks import check_count, check_number
from keras_mtl.engine.gradient_plan import GradientPlan
from keras_mtl.engine.stages import Stages
from keras_mtl.engine.task_gradients import AggregationOptions
from keras_mtl.metrics.gradient_statistics import KINDS
from keras_mtl.weighting.weighting import Weighting

PARAMETERS = "parameters"
REPRESENTATION = "representation"


def check_options(
    aggregator: Aggregator | None,
    aggregate_at: str,
    chunk_size: int | None,
    gramian_fraction: float,
    gradient_logs: Any,
) -> AggregationOptions | None:
    """Returns the options of `compile`, or raises an error that names one."""
    given = {
        "aggregate_at": aggregate_at != PARAMETERS,
        "chunk_size": chunk_size is not None,
        "gramian_fraction": gramian_fraction != 1.0,
        "gradient_logs": bool(gradient_logs),
    }
    if aggregator is None:
        if any(given.values()):
            names = [name for name, there in given.items() if there]
            raise ValueError(
                f"{names} go with an aggregator. Received: aggregator=None"
            )
        return None
    if not isinstance(aggregate_at, str):
        raise ValueError(
            "`aggregate_at` must be 'parameters', 'representation' or the name of a "
            f"layer. Received: aggregate_at={aggregate_at!r}"
        )
    if chunk_size is not None:
        chunk_size = check_count("chunk_size", chunk_size)
    gramian_fraction = check_number(
        "gramian_fraction", gramian_fraction, above=0, at_most=1
    )
    at_representation = aggregate_at != PARAMETERS
    for name in ("chunk_size", "gramian_fraction"):
        if given[name] and not aggregator.is_gramian:
            raise ValueError(
                f"`{name}` goes with aggregators that need the Gramian alone. "
                f"Received: aggregator={aggregator!r}, which needs the gradients"
            )
    if given["chunk_size"] and at_representation:
        raise ValueError(
            "`chunk_size` bounds the gradients by parameters; those by the "
            "representation come by one pass. "
            f"Received: aggregate_at={aggregate_at!r}, chunk_size={chunk_size!r}"
        )
    if at_representation and aggregator.keeps_gradients:
        raise ValueError(
            f"{type(aggregator).__name__} keeps averages of gradients, and those by "
            "the representation are of other rows in every batch: aggregate at "
            f"'parameters'. Received: aggregate_at={aggregate_at!r}"
        )
    return AggregationOptions(at_representation, chunk_size, gramian_fraction)


def log_kinds(gradient_logs: bool | Sequence[str]) -> tuple[str, ...]:
    """Returns what `gradient_logs` asks for."""
    if isinstance(gradient_logs, bool):
        return KINDS if gradient_logs else ()
    return (gradient_logs,) if isinstance(gradient_logs, str) else tuple(gradient_logs)


def check_weighting(aggregator: Aggregator, weighting: Weighting) -> None:
    """Refuses weightings that want a training step of their own."""
    if weighting.needs_gradient_norms or weighting.needs_losses_after_step:
        raise ValueError(
            f"An aggregator cannot be combined with {type(weighting).__name__}, "
            "which wants a training step of its own. "
            f"Received: weighting={weighting!r}, aggregator={aggregator!r}"
        )


def build_aggregator(
    aggregator: Aggregator,
    tasks: list[str],
    plan: GradientPlan,
    stages: Stages,
    variables: Sequence[Any],
    at_representation: bool,
) -> None:
    """Checks that tasks meet where they are to be aggregated, and builds the state."""
    if not plan.shared:
        raise ValueError(
            f"{type(aggregator).__name__} aggregates gradients of variables that "
            f"tasks share. Received: a model whose tasks {tasks} share none"
        )
    if at_representation:
        read = _check_representation(plan, stages, variables)
        shapes = [()] * len(read)
    else:
        shapes = [tuple(variables[p].shape) for p in plan.shared]
    aggregator.set_task_names(tasks)
    if not aggregator.built:
        aggregator.build_parts(len(tasks), shapes)
    elif aggregator.num_tasks != len(tasks):
        raise ValueError(
            f"`aggregator` was built for {aggregator.num_tasks} tasks, but the "
            f"model is compiled for {len(tasks)}: {tasks}. Pass a new one. "
            f"Received: aggregator={aggregator!r}"
        )


def _check_representation(
    plan: GradientPlan, stages: Stages, variables: Sequence[Any]
) -> list[int]:
    """Returns the tensors where tasks part, those that any task reads."""
    readers: dict[int, set[Any]] = {key: set() for key in stages.parting}
    for item in stages.heads.inputs:
        if item.key in readers and not item.rows:
            readers[item.key] |= {task for task in item.tasks if task is not None}
    for stage in stages.trunk:
        for key in stage.floating:
            readers.get(key, set()).update(stage.tasks)
    if not any(len(tasks) > 1 for tasks in readers.values()):
        raise ValueError(
            "At 'representation' the gradients of tasks are compared by a tensor that "
            "two of them read. Here no two read one: each task has rows of its own. "
            "Aggregate at 'parameters'. Received: aggregate_at='representation'"
        )
    behind = set().union(*(plan.behind[key] for key in readers))
    alone = {
        position
        for stage, positions in zip(stages.trunk, plan.of_stages, strict=True)
        if len(stage.tasks) == 1
        for position in positions
    }
    outside = [variables[p].path for p in plan.shared if p not in behind or p in alone]
    if outside:
        raise ValueError(
            "At 'representation' what tasks share must lie before the tensors where "
            f"they part. The variables {outside} are shared by layers that each task "
            "calls by itself: aggregate at 'parameters'. "
            "Received: aggregate_at='representation'"
        )
    return [key for key, tasks in readers.items() if tasks]
