"""A function of one task, of all tasks of a batch at once."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops


def for_each_task(function: Callable[[Any], Any], tasks: Any) -> Any:
    """Returns `ops.vectorized_map` of a function over the first axis of tensors.

    On TensorFlow a batch of one task, in a graph that does not know the size of its
    batches, is mapped with a copy of that task beside it. Keras adds biases there by
    `tf.squeeze`, which when it is mapped takes away the axis of tasks as well, if that
    has size 1: the bias of a convolution then has wrong gradients, or wrong shapes.

    Args:
        function: A function of a nest of tensors of one task, that returns a tensor.
        tasks: The nest with a first axis of tasks `(B, ...)`.
    """
    first = keras.tree.flatten(tasks)[0]
    count = ops.shape(first)[0]
    if isinstance(count, int):
        return ops.vectorized_map(function, tasks)
    lacking = ops.maximum(2 - count, 0)
    tasks = keras.tree.map_structure(
        lambda tensor: ops.concatenate([tensor, tensor[:lacking]], axis=0), tasks
    )
    return ops.vectorized_map(function, tasks)[:count]
