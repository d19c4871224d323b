"""Linear combinations of the features of all tasks."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl.argument_checks import check_number
from keras_mtl.layers.sharing.sharing_layer import SharingLayer
from keras_mtl.layers.task_structure import same_shape, shape_of_each


@keras.saving.register_keras_serializable("keras_mtl")
class CrossStitch(SharingLayer):
    """Gives each task a learned combination of the features of all tasks.

    $$ \\tilde x_t = \\sum_s A_{ts} \\, x_s $$

    Put it between the layers of networks of each task's own. It starts near the
    identity, where it keeps the networks apart: `A` has `own` on its diagonal and the
    rest in equal parts beside it, so that each row sums to one. With `own=1` the
    networks are separate at the start.

    Args:
        task_names: List of T strings: the keys of the inputs, or for a list their
            order. Defaults to `None`, the tasks of the input.
        own: Float in (0, 1], the initial weight of a task's own features. Defaults to
            0.9.
        per_channel: Boolean, whether every channel (last axis) has a matrix of its
            own. Defaults to `False`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        Dict or list with one tensor `(B, ..., C)` of the same shape for each task.

    Output shape:
        As the input.

    Raises:
        ValueError: If there is one tensor for all tasks, or if inputs differ in shape.

    Example:

    ```python
    photo, sketch = keras.Input((8,)), keras.Input((8,))
    h = {"photo": keras.layers.Dense(4)(photo), "sketch": keras.layers.Dense(4)(sketch)}
    stitch = keras_mtl.layers.CrossStitch()
    h = stitch(h)
    outputs = {task: keras.layers.Dense(1)(x) for task, x in h.items()}
    model = keras.Model([photo, sketch], outputs)
    print(ops.convert_to_numpy(stitch.matrix))  # [[0.9, 0.1], [0.1, 0.9]]
    ```

    Reference:
        Misra et al., "Cross-Stitch Networks for Multi-task Learning", CVPR 2016,
        https://arxiv.org/abs/1604.03539
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        own: float = 0.9,
        per_channel: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_names, **kwargs)
        self.own = check_number("own", own, above=0, at_most=1)
        self.per_channel = per_channel
        self.matrix = None

    def build(self, input_shape: Any) -> None:
        """Creates the matrix `(T, T)`, or `(C, T, T)` if each channel has one."""
        structure = self.structure_of(input_shape)
        shape = shape_of_each(structure, input_shape)
        tasks = len(structure.names)
        channels = (shape[-1],) if self.per_channel else ()
        if None in channels:
            raise ValueError(
                "With `per_channel` the last axis must be known. "
                f"Received: input of shape {shape}"
            )
        self.matrix = self.add_weight(
            name="matrix",
            shape=(*channels, tasks, tasks),
            initializer=keras.initializers.Constant(
                np.broadcast_to(
                    near_identity(tasks, self.own), (*channels, tasks, tasks)
                )
            ),
        )

    def call(self, inputs: Any) -> Any:
        """Returns the combination for each task."""
        structure = self.structure_of(inputs)
        stacked = ops.stack(structure.values(inputs))
        stacked = ops.cast(stacked, self.compute_dtype)
        shape = ops.shape(stacked)
        if self.per_channel:
            flat = ops.reshape(stacked, (shape[0], -1, shape[-1]))
            mixed = ops.matmul(self.matrix, ops.transpose(flat, (2, 0, 1)))
            mixed = ops.transpose(mixed, (1, 2, 0))
        else:
            mixed = ops.matmul(self.matrix, ops.reshape(stacked, (shape[0], -1)))
        mixed = ops.reshape(mixed, shape)
        return structure.nest(ops.unstack(mixed, len(structure.names)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the input."""
        structure = self.structure_of(input_shape)
        shape = same_shape(structure, input_shape)
        return structure.nest([shape] * len(structure.names))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "own": self.own,
            "per_channel": self.per_channel,
        }


def near_identity(size: int, own: float) -> np.ndarray:
    """Returns a matrix with `own` on the diagonal, whose rows sum to one."""
    if size == 1:
        return np.ones((1, 1))
    matrix = np.full((size, size), (1 - own) / (size - 1))
    np.fill_diagonal(matrix, own)
    return matrix
