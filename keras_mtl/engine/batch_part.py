"""A part of a batch."""

from typing import Any

import keras
import numpy as np
from keras import ops


def spread_rows(batch: Any, fraction: float) -> Any:
    """Returns rows at even distances of every tensor in a nest, rounded up.

    So that tasks whose rows are in blocks all have some.
    """
    if fraction == 1.0:
        return batch

    def cut(tensor):
        if tensor is None:
            return None
        rows = ops.shape(tensor)[0]
        if isinstance(rows, int):
            count = int(np.ceil(rows * fraction))
            return ops.take(tensor, np.arange(count) * rows // count, axis=0)
        count = ops.cast(ops.ceil(ops.cast(rows, "float32") * fraction), "int32")
        return ops.take(tensor, ops.arange(count) * rows // count, axis=0)

    return keras.tree.map_structure(cut, batch)


def first_rows(batch: Any, fraction: float) -> Any:
    """Returns the first rows of every tensor in a nest, rounded up.

    Batches are shuffled, so the first rows are as good as any.
    """

    def cut(tensor):
        if tensor is None:
            return None
        rows = ops.shape(tensor)[0]
        if isinstance(rows, int):
            count = int(np.ceil(rows * fraction))
        else:
            count = ops.cast(ops.ceil(ops.cast(rows, "float32") * fraction), "int32")
        return tensor[:count]

    return keras.tree.map_structure(cut, batch)
