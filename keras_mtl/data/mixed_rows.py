"""Rows of several tasks put into one batch, one after the other."""

import keras
import numpy as np

from keras_mtl.data.batch_dtype import input_dtype
from keras_mtl.data.task_arrays import TaskArrays


def check_same_inputs(templates: dict[str, TaskArrays], layout: str) -> None:
    """Raises where the inputs of the tasks cannot be rows of one batch."""
    described = {
        task: keras.tree.map_structure(lambda leaf: leaf.shape[1:], rows.x)
        for task, rows in templates.items()
    }
    first, *others = described.values()
    if any(other != first for other in others):
        raise ValueError(
            f"In the layout '{layout}' rows of all tasks share one batch, so their "
            "inputs must have the same structure and shapes; for tasks with inputs "
            'of their own use layout="per_task". Received shapes without the row '
            f"axis: {described}"
        )


def mixed_inputs(parts: list[TaskArrays], order: np.ndarray):
    """The inputs of all parts as one nest, its rows in the given order."""

    def mix(*leaves):
        dtype = input_dtype([leaf.dtype for leaf in leaves])
        return np.concatenate(leaves).astype(dtype, copy=False)[order]

    return keras.tree.map_structure(mix, *[part.x for part in parts])
