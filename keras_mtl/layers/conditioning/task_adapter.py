"""A small residual network for each task, beside shared features."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.layers.conditioning.task_descriptor import (
    align_descriptor,
    check_descriptor_shape,
    check_index_range,
    check_task,
    task_indicator,
)
from keras_mtl.layers.independent_initializers import StackedInitializer


@keras.saving.register_keras_serializable("keras_mtl")
class TaskAdapter(keras.layers.Layer):
    """Adds to shared features what a bottleneck of the row's own task computes.

    $$ y = x + \\sum_t 1(z = t) \\left( \\phi(x D_t + b_t) \\, U_t + c_t \\right) $$

    `U` and `c` start at zero, so the layer starts as the identity: put it after
    the layers of a trunk to give each task some parameters of its own. Rows of
    one batch may belong to different tasks. The bottlenecks of all tasks are
    computed for all rows and gated: the cost is that of one bottleneck of size
    T times `bottleneck`.

    Args:
        num_tasks: Integer, the number of tasks T.
        bottleneck: Integer, the size of the bottleneck of one task.
        activation: Activation of the bottleneck. Defaults to `"relu"`.
        use_bias: Boolean, whether the two layers have biases. Defaults to `True`.
        kernel_initializer: Initializer of `D` for one task; every task is drawn
            by itself, with its own fan-in. Defaults to `"glorot_uniform"`.
        kernel_regularizer: Regularizer of `D` and `U`. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Features of shape `(B, ..., D)`.
        task: Integer index of shape `(B,)` or `(B, 1)`, or one-hot or soft float
            descriptor of shape `(B, T)`. One with inner axes, which must be the
            first inner axes of `x`, names a task for each position.

    Output shape:
        That of `x`.

    Raises:
        ValueError: If a size is not positive, if `task` has another shape or
            dtype than these, or if an index given as a list or NumPy array is out
            of range. An index in a tensor cannot be checked in a compiled step:
            out of range it is no task, and the row passes unchanged.

    Example:

    ```python
    adapter = keras_mtl.layers.TaskAdapter(num_tasks=3, bottleneck=4)
    x = np.ones((4, 8), "float32")
    y = adapter(x, np.array([0, 2, 2, 1]))
    assert np.array_equal(ops.convert_to_numpy(y), x)
    ```

    Reference:
        Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML
        2019, https://arxiv.org/abs/1902.00751
    """

    stacked_by_task = True
    """Axis 0 of every variable runs over the tasks."""

    def __init__(
        self,
        num_tasks: int,
        bottleneck: int,
        activation: Any = "relu",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if min(num_tasks, bottleneck) < 1:
            raise ValueError(
                "`num_tasks` and `bottleneck` must be positive. "
                f"Received: num_tasks={num_tasks}, bottleneck={bottleneck}"
            )
        self.num_tasks = num_tasks
        self.bottleneck = bottleneck
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.down_kernel = None
        self.down_bias = None
        self.up_kernel = None
        self.up_bias = None
        self.supports_masking = True

    def __call__(self, x: Any, task: Any, *args: Any, **kwargs: Any) -> Any:
        """Checks an index that is not yet a tensor, then calls the layer."""
        check_index_range(task, self.num_tasks)
        return super().__call__(x, task, *args, **kwargs)

    def build(
        self, x_shape: tuple[int | None, ...], task_shape: tuple[int | None, ...]
    ) -> None:
        """Creates the stacked kernels and biases, axis 0 for the task."""
        features = x_shape[-1]
        if len(x_shape) < 2 or features is None:
            raise ValueError(
                "The features `x` must have a batch axis and a last axis of known "
                f"size. Received: x of shape {tuple(x_shape)}"
            )
        self.down_kernel = self.add_weight(
            name="down_kernel",
            shape=(self.num_tasks, features, self.bottleneck),
            initializer=StackedInitializer(self.kernel_initializer),
            regularizer=self.kernel_regularizer,
        )
        self.up_kernel = self.add_weight(
            name="up_kernel",
            shape=(self.num_tasks, self.bottleneck, features),
            initializer="zeros",
            regularizer=self.kernel_regularizer,
        )
        if self.use_bias:
            self.down_bias = self.add_weight(
                name="down_bias",
                shape=(self.num_tasks, self.bottleneck),
                initializer="zeros",
            )
            self.up_bias = self.add_weight(
                name="up_bias", shape=(self.num_tasks, features), initializer="zeros"
            )

    def call(self, x: Any, task: Any) -> Any:
        """Returns `x` plus the output of the bottleneck of each row's task."""
        self._check(x, task)
        x = ops.cast(x, self.compute_dtype)
        gate = task_indicator(task, self.num_tasks, self.compute_dtype)
        gate = align_descriptor(gate, len(x.shape))
        # The bottlenecks side by side make two plain matrix products. An einsum with
        # an ellipsis would say the same, but in half precision TensorFlow on a CPU
        # computes that one wrongly.
        width = self.num_tasks * self.bottleneck
        down = ops.reshape(ops.transpose(self.down_kernel, (1, 0, 2)), (-1, width))
        hidden = ops.matmul(x, down)  # (..., T * bottleneck)
        if self.use_bias:
            hidden = ops.add(hidden, ops.reshape(self.down_bias, (width,)))
        hidden = self.activation(hidden) * ops.repeat(gate, self.bottleneck, axis=-1)
        update = ops.matmul(hidden, ops.reshape(self.up_kernel, (width, -1)))
        if self.use_bias:
            update = ops.add(update, ops.matmul(gate, self.up_bias))
        return ops.add(x, update)

    def compute_output_shape(
        self, x_shape: tuple[int | None, ...], task_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """That of `x`."""
        return tuple(x_shape)

    def compute_output_spec(self, x: Any, task: Any) -> keras.KerasTensor:
        """Checks the arguments and returns the spec of the output."""
        self._check(x, task)
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_tasks": self.num_tasks,
            "bottleneck": self.bottleneck,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }

    def _check(self, x: Any, task: Any) -> None:
        check_task(task, self.num_tasks)
        task_shape: Sequence[int | None] = tuple(task.shape)
        if len(task_shape) == 1:
            task_shape = (*task_shape, 1)
        check_descriptor_shape(x.shape, task_shape)
