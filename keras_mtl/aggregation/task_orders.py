"""Random orders of the tasks."""

from typing import Any

import keras
from keras import ops


def random_orders(num_tasks: int, seed_generator: Any) -> Any:
    """Returns one random order of all tasks for each task.

    Returns:
        Float tensor `(T, T, T)`: at `[step, task, other]` 1 for the task that
        `task` meets at that step, else 0.
    """
    keys = keras.random.uniform((num_tasks, num_tasks), seed=seed_generator)
    orders = ops.transpose(ops.argsort(keys, axis=1))
    return ops.one_hot(orders, num_tasks, dtype="float32")
