"""What every conditioning layer asks of a task descriptor, and how it is read."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


def check_descriptor(x: Any, z: Any) -> None:
    """Refuses a descriptor `z` that cannot condition the features `x`.

    Args:
        x: Features, of shape `(B, ..., D)`.
        z: Descriptor, of shape `(B, dim)`, or with inner axes of its own that
            are the first inner axes of `x`.

    Raises:
        ValueError: If a rank, an axis or the dtype of `z` does not fit.
    """
    check_descriptor_shape(tuple(x.shape), tuple(z.shape))
    if "int" in keras.backend.standardize_dtype(z.dtype):
        raise ValueError(
            "The descriptor `z` must be of float dtype: an integer task index goes "
            "through keras_mtl.layers.TaskEmbedding first, other integers are cast "
            f"to float. Received: z of dtype {keras.backend.standardize_dtype(z.dtype)}"
        )


def check_descriptor_shape(
    x_shape: Sequence[int | None], z_shape: Sequence[int | None]
) -> None:
    """The part of `check_descriptor` that needs the shapes alone."""
    x_shape, z_shape = tuple(x_shape), tuple(z_shape)
    if len(x_shape) < 2:
        raise ValueError(
            "The features `x` must have a batch axis and at least one more. "
            f"Received: x of shape {x_shape}"
        )
    if len(z_shape) < 2:
        raise ValueError(
            "The descriptor `z` must be of shape (batch, dim): a task index goes "
            "through keras_mtl.layers.TaskEmbedding first. "
            f"Received: z of shape {z_shape}"
        )
    if len(z_shape) > len(x_shape):
        raise ValueError(
            "The descriptor `z` must not have more axes than the features `x`. "
            f"Received: x of shape {x_shape}, z of shape {z_shape}"
        )
    if z_shape[-1] is None:
        raise ValueError(
            "The last axis of the descriptor `z` must be known. "
            f"Received: z of shape {z_shape}"
        )
    for x_size, z_size in zip(x_shape, z_shape[:-1], strict=False):
        if None not in (x_size, z_size) and z_size not in (1, x_size):
            raise ValueError(
                "The axes of the descriptor `z` before its last must be the first "
                "axes of the features `x`, or 1. "
                f"Received: x of shape {x_shape}, z of shape {z_shape}"
            )


def align_descriptor(z: Any, rank: int) -> Any:
    """Puts axes of size 1 before the last of `z`, so that it has `rank` axes."""
    for _ in range(rank - len(z.shape)):
        z = ops.expand_dims(z, -2)
    return z


def check_task(task: Any, num_tasks: int) -> None:
    """Refuses what is neither a task index nor a descriptor over the tasks.

    Args:
        task: Integer index of shape `(B,)` or `(..., 1)`, or one-hot or soft
            descriptor of shape `(..., num_tasks)`.
        num_tasks: Number of tasks.

    Raises:
        ValueError: If the dtype or the shape fits neither form.
    """
    dtype = keras.backend.standardize_dtype(task.dtype)
    shape = tuple(task.shape)
    expected = (
        "`task` must be an integer index of shape (batch,) or (..., 1), or a one-hot "
        f"or soft float descriptor of shape (..., {num_tasks}). "
    )
    if "int" in dtype:
        fits = len(shape) == 1 or (len(shape) > 1 and shape[-1] == 1)
    else:
        fits = len(shape) > 1 and shape[-1] == num_tasks
    if not fits:
        raise ValueError(f"{expected}Received: task of shape {shape}, dtype {dtype}")


def check_index_range(task: Any, num_tasks: int) -> None:
    """Refuses an index out of range where it is a value and not yet a tensor.

    The values of a tensor are not looked at: in a compiled step they are not
    known, and on an accelerator they would be waited for.

    Args:
        task: What the user gave: an array, a list, a number, or a tensor.
        num_tasks: Number of tasks.

    Raises:
        ValueError: If an integer lies outside `[0, num_tasks)`.
    """
    if not isinstance(task, (np.ndarray, np.generic, list, tuple, int)):
        return
    values = np.asarray(task)
    if values.size and np.issubdtype(values.dtype, np.integer):
        if values.min() < 0 or values.max() >= num_tasks:
            raise ValueError(
                f"A task index must lie in [0, {num_tasks}). Received: indices "
                f"from {values.min()} to {values.max()}"
            )


def index_axes(task: Any) -> Any:
    """Returns an index as `int32`, without its last axis where that is a 1."""
    if len(task.shape) > 1:
        task = ops.squeeze(task, axis=-1)
    return ops.cast(task, "int32")


def task_indicator(task: Any, num_tasks: int, dtype: str) -> Any:
    """Returns `1(z = j)` for each task `j`, or the soft weights given instead.

    An index out of range is no task: its row is zero.

    Args:
        task: What `check_task` accepts.
        num_tasks: Number of tasks, T.
        dtype: Float dtype of the result.

    Returns:
        Tensor of shape `(..., T)`.
    """
    check_task(task, num_tasks)
    if "int" not in keras.backend.standardize_dtype(task.dtype):
        return ops.cast(task, dtype)
    index = ops.expand_dims(index_axes(task), -1)
    return ops.cast(ops.equal(index, ops.arange(num_tasks, dtype="int32")), dtype)
