"""Running means of one number a task, in two variables however many tasks."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_mtl")
class TaskMeans(keras.metrics.Metric):
    """Weighted means of a vector with one value a task.

    $$ m_k = \\frac{\\sum_b c_{bk} v_{bk}}{\\sum_b c_{bk}} $$

    A task without any weight so far has a mean of 0, as `keras.metrics.Mean`.

    Args:
        task_names: Names of the T tasks.
        suffix: String, what the values are: results are named `<task>_<suffix>`.
        name: String, optional.

    Example:

    ```python
    losses = keras_mtl.metrics.TaskMeans(["a", "b"], "loss")
    losses.update_state(np.array([1.0, 4.0]), np.array([1.0, 0.0]))
    losses.result()  # {"a_loss": 1.0, "b_loss": 0.0}
    ```
    """

    def __init__(
        self,
        task_names: Sequence[str],
        suffix: str,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name or f"task_{suffix}", dtype=dtype)
        self.task_names = list(task_names)
        self.suffix = suffix
        shape = (len(self.task_names),)
        self.total = self.add_variable(shape, initializer="zeros", name="total")
        self.count = self.add_variable(shape, initializer="zeros", name="count")

    @property
    def result_names(self) -> list[str]:
        """Keys of the result, in the order of the tasks."""
        return [f"{name}_{self.suffix}" for name in self.task_names]

    def update_state(self, values: Any, counts: Any) -> None:
        """Adds finite values `(T,)`, weighted by counts `(T,)`."""
        values = ops.cast(values, self.dtype)
        counts = ops.cast(counts, self.dtype)
        self.total.assign_add(values * counts)
        self.count.assign_add(counts)

    def result_vector(self) -> Any:
        """Returns the means in the order of the tasks, `(T,)`."""
        return ops.divide_no_nan(
            ops.convert_to_tensor(self.total), ops.convert_to_tensor(self.count)
        )

    def result(self) -> dict[str, Any]:
        """Returns the means by `<task>_<suffix>`."""
        means = ops.unstack(self.result_vector())
        return dict(zip(self.result_names, means, strict=True))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            **super().get_config(),
            "task_names": self.task_names,
            "suffix": self.suffix,
        }
