"""Checks of what a model, `compile` and `fit` are given."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops


def check_tasks(
    inputs: Any, outputs: Any, task_names: Any, task_input: str | None
) -> tuple[str, ...] | None:
    """Returns the names of the tasks, from `task_names` or the keys of outputs."""
    if task_names is not None:
        task_names = tuple(task_names)
        if len(set(task_names)) != len(task_names) or not task_names:
            raise ValueError(
                f"`task_names` must be unique. Received: task_names={task_names}"
            )
    if isinstance(outputs, Mapping):
        if task_input is not None:
            raise ValueError(
                "`task_input` is for one output conditioned on the task; a dict of "
                f"outputs has an output for each. Received: task_input={task_input!r} "
                f"with outputs {sorted(outputs)}"
            )
        if task_names is None:
            return tuple(outputs)
        if set(task_names) != set(outputs):
            raise ValueError(
                f"`task_names` must be the keys of `outputs`, {sorted(outputs)}. "
                f"Received: task_names={task_names}"
            )
        return task_names
    if outputs is not None and (task_names is None or task_input is None):
        raise ValueError(
            "`outputs` must be a dict by task, or one tensor together with "
            "`task_names` and `task_input`. Received: "
            f"outputs={outputs!r}, task_names={task_names}, task_input={task_input!r}"
        )
    if task_input is not None and task_names is None:
        raise ValueError("`task_input` needs `task_names`. Received: task_names=None")
    if inputs is not None and task_input is not None:
        names = [tensor.name for tensor in keras.tree.flatten(inputs)]
        if task_input not in names:
            raise ValueError(
                f"`task_input` must name an input, one of {names}. "
                f"Received: task_input={task_input!r}"
            )
    return task_names


def check_keys(given: Mapping[str, Any], known: Any, argument: str) -> None:
    """Refuses keys that are no tasks."""
    unknown = [key for key in given if key not in known]
    if unknown:
        raise ValueError(
            f"Keys of `{argument}` must be tasks, of {list(known)}. Received: {unknown}"
        )


def check_numbers(
    given: Any, tasks: Any, argument: str, negative: bool = False
) -> dict[str, float]:
    """Returns numbers by task, finite and, but for `negative`, not negative."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(
            f"`{argument}` must be a dict by task. Received: {argument}={given!r}"
        )
    check_keys(given, tasks, argument)
    values = {}
    for task, value in given.items():
        if value is None:
            continue
        values[task] = float(value)
        if not np.isfinite(values[task]) or (values[task] < 0 and not negative):
            raise ValueError(
                f"`{argument}` of task '{task}' must be finite"
                f"{'' if negative else ' and not negative'}. Received: {value!r}"
            )
    return values


def plain_numbers(given: Any, argument: str) -> Any:
    """Returns numbers of any NumPy type as Python's, which can be saved."""
    if isinstance(given, Mapping):
        return {task: plain_numbers(value, argument) for task, value in given.items()}
    if given is None:
        return None
    if np.ndim(given):
        raise ValueError(
            f"`{argument}` must be a dict by task. Received: {argument}={given!r}"
        )
    return float(given)


def weights_by_task(sample_weight: Any, y: Mapping[str, Any]) -> dict[str, Any]:
    """Returns sample weights by task; one array is for every task."""
    if sample_weight is None:
        return {}
    if isinstance(sample_weight, Mapping):
        check_keys(sample_weight, y, "sample_weight")
        return dict(sample_weight)
    return dict.fromkeys(y, sample_weight)


def plain_logs(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns numbers for scalars, which older Keras leaves as tensors."""
    arrays = {key: ops.convert_to_numpy(value) for key, value in logs.items()}
    return {k: v.item() if np.ndim(v) == 0 else v for k, v in arrays.items()}


def copies(given: Any, first: bool) -> Any:
    """Metric objects given for every task: the first task keeps the originals."""
    if isinstance(given, list | tuple):
        return [copies(item, first) for item in given]
    if isinstance(given, keras.metrics.Metric) and not first:
        return type(given).from_config(given.get_config())
    return given


def kind(value: Any) -> str:
    """Returns what something is, for an error."""
    if isinstance(value, Mapping):
        return f"a dict with keys {sorted(value)}"
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"shape {tuple(shape)}"
