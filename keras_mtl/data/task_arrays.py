"""The rows of one task: inputs, labels and sample weights as arrays."""

from typing import Any, NamedTuple

import keras
import numpy as np


class TaskArrays(NamedTuple):
    """Inputs (any nest of arrays), labels and sample weights of the same rows.

    Every array has the rows on its first axis; `sample_weight` may be `None`.
    """

    x: Any
    y: np.ndarray
    sample_weight: np.ndarray | None

    @classmethod
    def from_data(cls, task: str, data: Any) -> "TaskArrays":
        """Makes the arrays of `task` from `(x, y)` or `(x, y, sample_weight)`.

        Numpy arrays are kept as they are (a memory map stays on disk).

        Raises:
            ValueError: for anything but such a tuple, for arrays of differing
                lengths or without a row axis, and where `y` holds no numbers.
        """
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
            raise ValueError(
                f"The data of task '{task}' must be a tuple (x, y) or "
                "(x, y, sample_weight) of arrays, or a keras.utils.PyDataset or "
                f"tf.data.Dataset of such batches. Received: {_describe(data)}"
            )
        x = keras.tree.map_structure(_as_array, data[0])
        y = _as_array(data[1])
        weight = data[2] if len(data) == 3 else None
        arrays = cls(x, y, None if weight is None else _as_array(weight))
        arrays._check(task)
        return arrays

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.y)

    def take(self, index) -> "TaskArrays":
        """The rows at `index` (a slice, or an array of positions)."""

        def rows_of(leaf):
            return np.asarray(leaf[index])

        return TaskArrays(
            keras.tree.map_structure(rows_of, self.x),
            rows_of(self.y),
            None if self.sample_weight is None else rows_of(self.sample_weight),
        )

    def _check(self, task):
        leaves = {f"x{suffix}": leaf for suffix, leaf in _named_leaves(self.x)}
        leaves["y"] = self.y
        if self.sample_weight is not None:
            leaves["sample_weight"] = self.sample_weight
        for name, leaf in leaves.items():
            if leaf.ndim == 0:
                raise ValueError(
                    f"Every array of task '{task}' must have its rows on the first "
                    "axis (a dataset must hand out batches, not single points: "
                    f"call `.batch(...)` on it). Received: {name} without any axis"
                )
        lengths = {name: len(leaf) for name, leaf in leaves.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"All arrays of task '{task}' must have the same number of rows. "
                f"Received: {lengths}"
            )
        for name in ("y", "sample_weight"):
            leaf = leaves.get(name)
            # numpy sees bfloat16 as kind "V".
            if leaf is not None and leaf.dtype.kind not in "biufV":
                raise ValueError(
                    f"{name} of task '{task}' must hold numbers. "
                    f"Received: dtype {leaf.dtype}"
                )


def concatenate(parts: list[TaskArrays]) -> TaskArrays:
    """Joins rows of one task, in order."""
    if len(parts) == 1:
        return parts[0]
    weights = [part.sample_weight for part in parts]
    return TaskArrays(
        keras.tree.map_structure(
            lambda *leaves: np.concatenate(leaves), *[part.x for part in parts]
        ),
        np.concatenate([part.y for part in parts]),
        None if weights[0] is None else np.concatenate(weights),
    )


def _as_array(value):
    if isinstance(value, np.ndarray):
        return value
    if keras.ops.is_tensor(value):
        return keras.ops.convert_to_numpy(value)
    return np.asarray(value)


def _named_leaves(nest):
    if isinstance(nest, dict):
        items = [(f"[{key!r}]", value) for key, value in nest.items()]
    elif isinstance(nest, (tuple, list)):
        items = [(f"[{position}]", value) for position, value in enumerate(nest)]
    else:
        yield "", nest
        return
    for prefix, value in items:
        for suffix, leaf in _named_leaves(value):
            yield prefix + suffix, leaf


def _describe(data):
    if isinstance(data, (tuple, list)):
        return f"{type(data).__name__} of {len(data)} items"
    return type(data).__name__
