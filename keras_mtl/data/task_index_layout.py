"""Rows of all tasks in one batch, each with the index of its task as an input."""

import numpy as np

from keras_mtl.data.batch_dtype import (
    check_exact_as_float,
    label_dtype,
    to_float_labels,
    weight_dtype,
)
from keras_mtl.data.mixed_rows import check_same_inputs, mixed_inputs
from keras_mtl.data.task_arrays import TaskArrays


class TaskIndexLayout:
    """Makes `({"x": rows, task_input: index}, y)`, with weights where there are any.

    Inputs that are a dict keep their keys, and get that of the task besides.
    """

    def __init__(self, templates: dict[str, TaskArrays], task_input: str):
        check_same_inputs(templates, "task_index")
        shapes = {task: rows.y.shape[1:] for task, rows in templates.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(
                "In the layout 'task_index' all tasks share one output, so their "
                "labels must have the same shape. Received shapes without the row "
                f"axis: {shapes}"
            )
        x = next(iter(templates.values())).x
        if isinstance(x, (tuple, list)):
            raise ValueError(
                "In the layout 'task_index' the inputs of a task must be an array "
                "or a dict of arrays, to which the task's index is added. "
                f"Received: x of type {type(x).__name__}"
            )
        if isinstance(x, dict) and task_input in x:
            raise ValueError(
                "`task_input` must not be a key of the inputs already. "
                f"Received: task_input={task_input!r} and inputs with keys {list(x)}"
            )
        self._tasks = list(templates)
        self._task_input = task_input
        self._label_dtype = label_dtype([rows.y.dtype for rows in templates.values()])
        weights = [
            rows.sample_weight
            for rows in templates.values()
            if rows.sample_weight is not None
        ]
        self._weight_shape = weights[0].shape[1:] if weights else None
        if any(weight.shape[1:] != self._weight_shape for weight in weights):
            raise ValueError(
                "In the layout 'task_index' the sample weights of all tasks must "
                "have the same shape. Received shapes without the row axis: "
                f"{[weight.shape[1:] for weight in weights]}"
            )

    def check_labels(self, task: str, labels: np.ndarray) -> None:
        """Raises where a batch could not hold these labels exactly."""
        if self._label_dtype.kind == "f":
            check_exact_as_float(task, labels)

    def batch(self, parts: list[TaskArrays], order: np.ndarray) -> tuple:
        """Puts the rows of each task, given in the tasks' order, into one batch."""
        inputs = mixed_inputs(parts, order)
        inputs = dict(inputs) if isinstance(inputs, dict) else {"x": inputs}
        index = np.repeat(
            np.arange(len(parts), dtype="int32"), [part.rows for part in parts]
        )
        inputs[self._task_input] = index[order]
        labels = [
            self._labels(task, part.y)
            for task, part in zip(self._tasks, parts, strict=True)
        ]
        y = np.concatenate(labels)[order]
        if self._weight_shape is None:
            return inputs, y
        weights = np.concatenate([self._weights(part) for part in parts])
        return inputs, y, weights[order].astype(weight_dtype(), copy=False)

    def _labels(self, task, labels):
        if self._label_dtype.kind == "f":
            return to_float_labels(task, labels)
        return labels.astype(self._label_dtype, copy=False)

    def _weights(self, part):
        if part.sample_weight is None:
            return np.ones((part.rows, *self._weight_shape))
        return part.sample_weight
