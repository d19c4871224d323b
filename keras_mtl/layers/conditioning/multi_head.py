"""One head for each task, held in stacked kernels."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl.layers.conditioning.independent_initializers import (
    StackedInitializer,
    independent_initializers,
)


@keras.saving.register_keras_serializable("keras_mtl")
class MultiHead(keras.layers.Layer):
    """T heads of one shape, computed together.

    $$ y_t = \\phi(h_t V_t + c_t), \\qquad h_t = \\psi(x W_t + b_t)
       \\quad\\text{(for each hidden layer)} $$

    It computes what T stacks of `keras.layers.Dense` with the same weights do.
    The kernels of all heads lie in one variable, so that a layer of all heads
    is one batched contraction and one variable to update: with many tasks the
    step is much cheaper than with separate heads. Heads share nothing: slice t
    of each variable belongs to task t alone.

    Args:
        units: Integer, the size of each head's output.
        task_names: List of T strings, the keys of the outputs.
        activation: Activation of the outputs, such as `"sigmoid"`. Defaults to
            `None` (linear).
        hidden_units: Tuple of integers, the sizes of the hidden layers of each
            head. `(64,)` makes every head a `Dense(64)` and a `Dense(units)`.
            Defaults to `()`.
        hidden_activation: Activation of the hidden layers. Defaults to `"relu"`.
        use_bias: Boolean, whether the layers have biases. Defaults to `True`.
        kernel_initializer: Initializer of the kernel of one head; every head is
            drawn by itself, with its own fan-in. Defaults to `"glorot_uniform"`.
        bias_initializer: Initializer of the bias of one head. Defaults to
            `"zeros"`.
        kernel_regularizer: Regularizer of the stacked kernels. Defaults to
            `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(B, ..., D)`, so `(B, D)` and sequences `(B, S, D)` alike.

    Output shape:
        Dict of `(B, ..., units)`, one entry for each task name.

    Raises:
        ValueError: If a size is not positive, if `task_names` is empty or has a
            name twice, or if the last axis of the input is not known.

    Example:

    ```python
    inputs = keras.Input((39,))
    h = keras.layers.Dense(128, "relu")(inputs)
    outputs = keras_mtl.layers.MultiHead(
        1, ["income", "married"], activation="sigmoid", hidden_units=(64,)
    )(h)
    model = keras.Model(inputs, outputs)
    assert model(np.zeros((4, 39)))["income"].shape == (4, 1)
    ```

    Reference:
        Caruana, "Multitask Learning", Machine Learning 28, 1997,
        https://doi.org/10.1023/A:1007379606734
    """

    stacked_by_task = True
    """Axis 0 of every variable runs over the tasks."""

    takes_repeated = True
    """Whether `call` takes `repeated`, an input for each task."""

    def __init__(
        self,
        units: int,
        task_names: Sequence[str],
        activation: Any = None,
        hidden_units: Sequence[int] = (),
        hidden_activation: Any = "relu",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(task_names, str) or not task_names:
            raise ValueError(
                "`task_names` must be a list with one name or more. "
                f"Received: {task_names!r}"
            )
        if len(set(task_names)) < len(task_names):
            raise ValueError(
                f"`task_names` must not hold a name twice. Received: {task_names}"
            )
        if isinstance(hidden_units, int):
            raise ValueError(
                f"`hidden_units` must be a tuple, one size for each hidden layer. "
                f"Received: {hidden_units}"
            )
        if min((units, *hidden_units)) < 1:
            raise ValueError(
                "`units` and `hidden_units` must be positive. "
                f"Received: units={units}, hidden_units={tuple(hidden_units)}"
            )
        self.units = units
        self.task_names = list(task_names)
        self.activation = keras.activations.get(activation)
        self.hidden_units = tuple(hidden_units)
        self.hidden_activation = keras.activations.get(hidden_activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.kernels = []
        self.biases = []
        self.supports_masking = True

    @property
    def num_tasks(self) -> int:
        """Number of tasks, T."""
        return len(self.task_names)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates kernels `(T, in, out)` and biases `(T, out)`, layer by layer."""
        self._check_shape(input_shape)
        sizes = (input_shape[-1], *self.hidden_units, self.units)
        depths = len(sizes) - 1
        initializers = independent_initializers(self.kernel_initializer, depths)
        for depth in range(depths):
            size_in, size_out = sizes[depth : depth + 2]
            kernel = self.add_weight(
                name=f"kernel_{depth}",
                shape=(self.num_tasks, size_in, size_out),
                initializer=StackedInitializer(initializers[depth]),
                regularizer=self.kernel_regularizer,
            )
            self.kernels.append(kernel)
            if self.use_bias:
                bias = self.add_weight(
                    name=f"bias_{depth}",
                    shape=(self.num_tasks, size_out),
                    initializer=StackedInitializer(self.bias_initializer),
                )
                self.biases.append(bias)

    def call(self, inputs: Any, repeated: bool = False) -> dict[str, Any]:
        """Returns the dict of the heads' outputs.

        Args:
            inputs: The input of all heads.
            repeated: Whether axis 0 of `inputs` runs over the tasks, so that the
                gradient by them tells the tasks apart, whose inputs are in sorted
                order of the names, as Keras sorts a dict.
        """
        self._check_shape(inputs.shape)
        leading = ops.shape(inputs)[1 if repeated else 0 : -1]
        x = ops.cast(inputs, self.compute_dtype)
        if repeated:
            x = self._first_layer_of_each(
                ops.reshape(x, (self.num_tasks, -1, inputs.shape[-1]))
            )
        else:
            x = self._first_layer(ops.reshape(x, (-1, inputs.shape[-1])))
        for depth in range(1, len(self.kernels)):
            x = self._next_layer(self.hidden_activation(x), depth)
        x = self.activation(ops.reshape(x, (-1, self.num_tasks, self.units)))
        x = ops.reshape(x, (*leading, self.num_tasks, self.units))
        heads = ops.unstack(x, self.num_tasks, axis=-2)
        return dict(zip(self.task_names, heads, strict=True))

    def compute_mask(self, inputs: Any, previous_mask: Any) -> dict[str, Any] | None:
        """Every head has the mask of the input."""
        if previous_mask is None:
            return None
        return dict.fromkeys(self.task_names, previous_mask)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> dict[str, tuple[int | None, ...]]:
        """A dict with that of the input, `units` as last axis, for every task."""
        return dict.fromkeys(self.task_names, (*input_shape[:-1], self.units))

    def compute_output_spec(self, inputs: Any) -> dict[str, keras.KerasTensor]:
        """Checks the input and returns the specs, in the order of the tasks."""
        self._check_shape(inputs.shape)
        return {
            name: keras.KerasTensor(shape, dtype=self.compute_dtype)
            for name, shape in self.compute_output_shape(inputs.shape).items()
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "units": self.units,
            "task_names": self.task_names,
            "activation": keras.activations.serialize(self.activation),
            "hidden_units": self.hidden_units,
            "hidden_activation": keras.activations.serialize(self.hidden_activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }

    def _first_layer(self, x: Any) -> Any:
        """Applies the first layer of all heads, `(rows, T * out)`.

        One wide product: repeated for each head, the rows would fill T times the
        memory, in the gradient too.
        """
        size_in = x.shape[-1]
        kernel = ops.transpose(self.kernels[0], (1, 0, 2))
        return self._add_bias(ops.matmul(x, ops.reshape(kernel, (size_in, -1))), 0)

    def _first_layer_of_each(self, x: Any) -> Any:
        """Applies the first layer: `(T, rows, in)` to `(rows, T * out)`."""
        kernel = ops.convert_to_tensor(self.kernels[0])
        order = np.argsort(np.argsort(self.task_names))
        if list(order) != list(range(self.num_tasks)):
            x = ops.take(x, order, axis=0)
        x = ops.transpose(ops.matmul(x, kernel), (1, 0, 2))
        x = ops.reshape(x, (-1, self.num_tasks * kernel.shape[-1]))
        return self._add_bias(x, 0)

    def _next_layer(self, x: Any, depth: int) -> Any:
        """Applies a later layer: `(rows, T * in)` to `(rows, T * out)`."""
        _, size_in, size_out = self.kernels[depth].shape
        kernel = ops.convert_to_tensor(self.kernels[depth])
        if size_out == 1:
            # A product with a vector, which needs no other order of the axes.
            x = ops.multiply(x, ops.reshape(kernel, (-1,)))
            x = ops.sum(ops.reshape(x, (-1, self.num_tasks, size_in)), axis=-1)
        else:
            x = ops.reshape(x, (-1, self.num_tasks, size_in))
            x = ops.matmul(ops.transpose(x, (1, 0, 2)), kernel)
            x = ops.reshape(ops.transpose(x, (1, 0, 2)), (-1, x.shape[0] * size_out))
        return self._add_bias(x, depth)

    def _add_bias(self, x: Any, depth: int) -> Any:
        if not self.use_bias:
            return x
        return ops.add(x, ops.reshape(self.biases[depth], (-1,)))

    def _check_shape(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise ValueError(
                "The input must have a batch axis and a last axis of known size. "
                f"Received: input of shape {tuple(input_shape)}"
            )
        if self.kernels and input_shape[-1] != self.kernels[0].shape[1]:
            raise ValueError(
                f"The last axis of the input must be {self.kernels[0].shape[1]}, as "
                "when the layer was built. "
                f"Received: input of shape {tuple(input_shape)}"
            )
