"""From a task index, a one-hot descriptor or metadata to a descriptor vector."""

from typing import Any

import keras
from keras import ops

from keras_mtl.layers.conditioning.task_descriptor import (
    check_index_range,
    check_task,
    index_axes,
    task_indicator,
)


@keras.saving.register_keras_serializable("keras_mtl")
class TaskEmbedding(keras.layers.Layer):
    """Turns what names a task into the descriptor `z` that conditions a network.

    $$ z = \\sum_j 1(\\text{task} = j) \\, E_j $$

    with one row `E_j` of the learned table for each task. In place of the
    indicator it takes a one-hot or soft descriptor, which mixes the rows.
    `dim=None` has no table and returns the one-hot descriptor itself;
    `num_tasks=None, dim=None` returns a raw descriptor (any metadata about the
    task) unchanged, so that metadata can stand where an index would.

    Args:
        num_tasks: Integer, the number of tasks T, or `None` for raw descriptors.
            Defaults to `None`.
        dim: Integer, the size of `z`, or `None` for no table. Defaults to `None`.
        embeddings_initializer: Initializer of the table. Defaults to `"uniform"`,
            as in `keras.layers.Embedding`.
        embeddings_regularizer: Regularizer of the table. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        task: Integer index of shape `(B,)` or `(..., 1)`, or one-hot or soft
            float descriptor of shape `(..., T)`; with `num_tasks=None` a float
            descriptor of shape `(..., metadata)`.

    Input shape:
        `(B,)`, `(..., 1)` or `(..., T)`.

    Output shape:
        `(B, dim)` or `(..., dim)`. `dim` is T for the one-hot form and the size
        of the metadata for the raw form.

    Raises:
        ValueError: If `task` has another shape or dtype than these; if an index
            given as a list or NumPy array is out of range. An index in a tensor
            cannot be checked in a compiled step: out of range it is no task, the
            sum above is empty and `z` is zero.

    Example:

    ```python
    embedding = keras_mtl.layers.TaskEmbedding(num_tasks=3, dim=16)
    z = ops.convert_to_numpy(embedding(np.array([0, 2, 2, 1])))
    assert z.shape == (4, 16)

    soft = embedding(np.array([[0.5, 0.5, 0.0]], "float32"))
    assert np.allclose(ops.convert_to_numpy(soft)[0], (z[0] + z[3]) / 2, atol=1e-6)
    ```
    """

    def __init__(
        self,
        num_tasks: int | None = None,
        dim: int | None = None,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (("num_tasks", num_tasks), ("dim", dim)):
            if value is not None and value < 1:
                raise ValueError(
                    f"`{name}` must be a positive integer or None. Received: {value}"
                )
        if num_tasks is None and dim is not None:
            raise ValueError(
                "`dim` needs `num_tasks`: without it the descriptor passes through. "
                f"Received: num_tasks=None, dim={dim}"
            )
        self.num_tasks = num_tasks
        self.dim = dim
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.embeddings_regularizer = keras.regularizers.get(embeddings_regularizer)
        self.embeddings = None
        self.supports_masking = True

    def __call__(self, task: Any, *args: Any, **kwargs: Any) -> Any:
        """Checks an index that is not yet a tensor, then calls the layer."""
        if self.num_tasks is not None:
            check_index_range(task, self.num_tasks)
        return super().__call__(task, *args, **kwargs)

    def build(self, task_shape: tuple[int | None, ...]) -> None:
        """Creates the table `(T, dim)`."""
        if self.dim is not None:
            self.embeddings = self.add_weight(
                name="embeddings",
                shape=(self.num_tasks, self.dim),
                initializer=self.embeddings_initializer,
                regularizer=self.embeddings_regularizer,
            )

    def call(self, task: Any) -> Any:
        """Returns `z`."""
        self._check(task)
        if self.num_tasks is None:
            return task
        if self.dim is None:
            return task_indicator(task, self.num_tasks, self.compute_dtype)
        table = ops.cast(self.embeddings, self.compute_dtype)
        if not self._is_index(task):
            return ops.matmul(ops.cast(task, self.compute_dtype), table)
        index = index_axes(task)
        valid = ops.logical_and(index >= 0, index < self.num_tasks)
        rows = ops.take(table, ops.where(valid, index, 0), axis=0)
        return ops.where(ops.expand_dims(valid, -1), rows, ops.zeros_like(rows))

    def compute_output_shape(
        self, task_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """`(B,)` becomes `(B, dim)`, `(..., n)` becomes `(..., dim)`."""
        task_shape = tuple(task_shape)
        if self.num_tasks is None:
            return task_shape
        dim = self.num_tasks if self.dim is None else self.dim
        leading = task_shape if len(task_shape) == 1 else task_shape[:-1]
        return (*leading, dim)

    def compute_output_spec(self, task: Any) -> keras.KerasTensor:
        """Checks `task` and returns the spec of `z`."""
        self._check(task)
        return keras.KerasTensor(
            self.compute_output_shape(task.shape), dtype=self.compute_dtype
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_tasks": self.num_tasks,
            "dim": self.dim,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
            "embeddings_regularizer": keras.regularizers.serialize(
                self.embeddings_regularizer
            ),
        }

    def _is_index(self, task: Any) -> bool:
        return "int" in keras.backend.standardize_dtype(task.dtype)

    def _check(self, task: Any) -> None:
        if self.num_tasks is not None:
            check_task(task, self.num_tasks)
        elif self._is_index(task) or len(task.shape) < 2:
            raise ValueError(
                "Without `num_tasks` the layer takes a float descriptor of shape "
                "(batch, dim); an index needs `num_tasks`. Received: task of shape "
                f"{tuple(task.shape)}, dtype "
                f"{keras.backend.standardize_dtype(task.dtype)}"
            )
