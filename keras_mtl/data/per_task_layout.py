"""Each task's own inputs and labels, side by side in one batch."""

import keras
import numpy as np

from keras_mtl.data.batch_dtype import (
    check_exact_as_float,
    float_label_dtype,
    input_dtype,
    label_dtype,
    to_float_labels,
    weight_dtype,
)
from keras_mtl.data.task_arrays import TaskArrays


class PerTaskLayout:
    """Makes `({task: x}, {task: y})` with a fixed number of rows for each task.

    A task that is absent from a batch comes as inputs of zeros and labels of NaN
    in the same shapes (and weights of zero, where any task has weights).
    """

    def __init__(
        self,
        templates: dict[str, TaskArrays],
        rows: np.ndarray,
        tasks_may_be_absent: bool,
    ):
        self._templates = templates
        self._rows = rows
        self._tasks_may_be_absent = tasks_may_be_absent
        self._weighted = any(
            template.sample_weight is not None for template in templates.values()
        )

    def check_labels(self, task: str, labels: np.ndarray) -> None:
        """Raises where a batch could not hold these labels exactly."""
        if self._tasks_may_be_absent:
            check_exact_as_float(task, labels)

    def batch(self, parts: list[TaskArrays], order: np.ndarray) -> tuple:
        """Puts the rows of each task, given in the tasks' order, side by side."""
        del order
        x, y, weights = {}, {}, {}
        for task, rows, part in zip(self._templates, self._rows, parts, strict=True):
            absent = part.rows == 0
            x[task] = keras.tree.map_structure(
                lambda leaf, rows=rows, absent=absent: (
                    np.zeros((rows, *leaf.shape[1:]), input_dtype([leaf.dtype]))
                    if absent
                    else leaf.astype(input_dtype([leaf.dtype]), copy=False)
                ),
                part.x,
            )
            y[task] = (
                np.full((rows, *part.y.shape[1:]), np.nan, float_label_dtype())
                if absent
                else self._labels(task, part.y)
            )
            if self._weighted:
                weights[task] = _weights(part, rows)
        return (x, y, weights) if self._weighted else (x, y)

    def _labels(self, task, labels):
        if self._tasks_may_be_absent:
            return to_float_labels(task, labels)
        return labels.astype(label_dtype([labels.dtype]), copy=False)


def _weights(part, rows):
    if part.sample_weight is None:
        return np.full((rows,), 1.0 if part.rows else 0.0, weight_dtype())
    if part.rows == 0:
        return np.zeros((rows, *part.sample_weight.shape[1:]), weight_dtype())
    return part.sample_weight.astype(weight_dtype(), copy=False)
