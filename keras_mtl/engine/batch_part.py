"""A part of a batch."""

from typing import Any

import keras
import numpy as np
from keras import ops


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
