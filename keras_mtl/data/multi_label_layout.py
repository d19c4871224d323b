"""Rows of all tasks in one batch, each labelled for its own task only."""

import numpy as np

from keras_mtl.data.batch_dtype import (
    check_exact_as_float,
    float_label_dtype,
    to_float_labels,
    weight_dtype,
)
from keras_mtl.data.mixed_rows import check_same_inputs, mixed_inputs
from keras_mtl.data.task_arrays import TaskArrays


class MultiLabelLayout:
    """Makes `(x, {task: y})` with NaN in the rows of other tasks.

    Where any task has sample weights every task gets them: zero in the rows of
    other tasks, one in its own where it came without.
    """

    def __init__(self, templates: dict[str, TaskArrays]):
        check_same_inputs(templates, "multi_label")
        self._templates = templates
        self._weighted = any(
            rows.sample_weight is not None for rows in templates.values()
        )

    def check_labels(self, task: str, labels: np.ndarray) -> None:
        """Raises where a batch could not hold these labels exactly."""
        check_exact_as_float(task, labels)

    def batch(self, parts: list[TaskArrays], order: np.ndarray) -> tuple:
        """Puts the rows of each task, given in the tasks' order, into one batch."""
        y, weights = {}, {}
        begin = 0
        for (task, template), part in zip(self._templates.items(), parts, strict=True):
            own = slice(begin, begin + part.rows)
            begin += part.rows
            labels = np.full(
                (len(order), *template.y.shape[1:]), np.nan, float_label_dtype()
            )
            labels[own] = to_float_labels(task, part.y)
            y[task] = labels[order]
            if self._weighted:
                weights[task] = _own_weights(part, own, len(order))[order]
        x = mixed_inputs(parts, order)
        return (x, y, weights) if self._weighted else (x, y)


def _own_weights(part, own, rows):
    given = part.sample_weight
    shape = () if given is None else given.shape[1:]
    weights = np.zeros((rows, *shape), weight_dtype())
    weights[own] = 1.0 if given is None else given
    return weights
