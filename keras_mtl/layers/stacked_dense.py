"""Dense layers of one shape side by side, held in stacked kernels."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.layers.independent_initializers import (
    StackedInitializer,
    independent_initializers,
)

_ELEMENTWISE = {
    getattr(keras.activations, name)
    for name in ("linear", "relu", "gelu", "silu", "elu", "tanh", "sigmoid")
}
"""Activations that look at one number at a time."""


@keras.saving.register_keras_serializable("keras_mtl")
class StackedDense(keras.layers.Layer):
    """S stacks of `keras.layers.Dense` of one shape, computed together.

    $$ y_s = \\phi(h_s V_s + c_s), \\qquad h_s = \\psi(x W_s + b_s)
       \\quad\\text{(for each hidden layer)} $$

    Axis 0 of every variable runs over the stacks, unless `inputs_first`.

    Args:
        num_stacks: Integer, S.
        layer_units: Tuple of integers, the sizes of the layers of one stack.
        activation: Activation of the outputs. Defaults to `None` (linear).
        hidden_activation: Activation of the layers before. Defaults to `"relu"`.
        use_bias: Boolean, whether the layers have biases. Defaults to `True`.
        kernel_initializer: Initializer of the kernel of one stack; each is drawn by
            itself, with its own fan-in. Defaults to `"glorot_uniform"`.
        bias_initializer: Initializer of the bias of one stack. Defaults to `"zeros"`.
        kernel_regularizer: Regularizer of the stacked kernels. Defaults to `None`.
        inputs_first: Boolean, whether the first kernel is `(in, S, out)`: then the
            first layer of all stacks is a plain product of matrices, without another
            order of the axes before it. For stacks that belong to no task, on one
            input. Defaults to `False`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(B, ..., D)`, or with `repeated` `(G, B, ..., D)`: G inputs, each for S / G
        stacks in a row.

    Output shape:
        `(B, ..., S, layer_units[-1])`.

    Raises:
        ValueError: If the last axis of the input is not known.
    """

    def __init__(
        self,
        num_stacks: int,
        layer_units: Sequence[int],
        activation: Any = None,
        hidden_activation: Any = "relu",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        inputs_first: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_stacks = num_stacks
        self.layer_units = tuple(layer_units)
        self.activation = keras.activations.get(activation)
        self.hidden_activation = keras.activations.get(hidden_activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.inputs_first = inputs_first
        self.kernels = []
        self.biases = []
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the kernels and biases `(S, out)`, layer by layer."""
        self._check_shape(input_shape)
        sizes = (input_shape[-1], *self.layer_units)
        depths = len(self.layer_units)
        initializers = independent_initializers(self.kernel_initializer, depths)
        for depth in range(depths):
            size_in, size_out = sizes[depth : depth + 2]
            shape = [self.num_stacks, size_in, size_out]
            axis = 1 if self.inputs_first and depth == 0 else 0
            shape.insert(axis, shape.pop(0))
            kernel = self.add_weight(
                name=f"kernel_{depth}",
                shape=tuple(shape),
                initializer=StackedInitializer(initializers[depth], axis),
                regularizer=self.kernel_regularizer,
            )
            self.kernels.append(kernel)
            if self.use_bias:
                bias = self.add_weight(
                    name=f"bias_{depth}",
                    shape=(self.num_stacks, size_out),
                    initializer=StackedInitializer(self.bias_initializer),
                )
                self.biases.append(bias)

    def call(self, inputs: Any, repeated: bool = False) -> Any:
        """Returns the outputs of all stacks.

        Args:
            inputs: The input of all stacks.
            repeated: Whether axis 0 of `inputs` runs over stacks, or groups of them.
        """
        return self.compute_stacks(inputs, repeated)

    def compute_stacks(self, inputs: Any, repeated: bool = False) -> Any:
        """Returns the outputs of all stacks, as `call`.

        A layer of the same dtype policy that holds this one may call it in its own
        `call`: a call of a layer costs as much as a small product where operations run
        one by one.
        """
        self._check_shape(inputs.shape)
        leading = ops.shape(inputs)[1 if repeated else 0 : -1]
        x = ops.cast(inputs, self.compute_dtype)
        if repeated:
            groups = inputs.shape[0]
            x = self._first_layer_of_each(
                ops.reshape(x, (groups, -1, inputs.shape[-1])), groups
            )
        else:
            x = self._first_layer(ops.reshape(x, (-1, inputs.shape[-1])))
        return self._after_first_layer(x, leading)

    def stacks_of_own_inputs(self, inputs: Any) -> Any:
        """Returns the outputs of all stacks on an input of each, both `(..., S, n)`."""
        self._check_shape((None, inputs.shape[-1]))
        leading = ops.shape(inputs)[:-2]
        x = ops.cast(inputs, self.compute_dtype)
        x = ops.reshape(x, (-1, self.num_stacks * inputs.shape[-1]))
        return self._after_first_layer(self._next_layer(x, 0), leading)

    def stacks_of_mixtures(self, experts: Any, weights: Any) -> Any:
        """Returns the outputs of all stacks, each on a mixture of its own.

        Args:
            experts: Outputs of experts, `(..., E, in)`.
            weights: How much each stack has of each, `(..., S, E)`.
        """
        if self.layer_units[0] > 1:
            return self.stacks_of_own_inputs(ops.matmul(weights, experts))
        # A first layer of one unit goes before the sum, which is linear: one product
        # of matrices, and no mixture of as many features for each stack.
        self._check_shape((None, experts.shape[-1]))
        leading = ops.shape(experts)[:-2]
        kernel = ops.reshape(self.kernels[0], (self.num_stacks, -1))
        x = ops.cast(experts, self.compute_dtype)
        x = ops.matmul(ops.reshape(x, (-1, x.shape[-1])), ops.transpose(kernel))
        x = ops.reshape(x, (-1, experts.shape[-2], self.num_stacks))
        weights = ops.reshape(weights, (-1, self.num_stacks, experts.shape[-2]))
        x = ops.sum(ops.multiply(ops.transpose(weights, (0, 2, 1)), x), axis=1)
        return self._after_first_layer(self._add_bias(x, 0), leading)

    def _after_first_layer(self, x: Any, leading: Any) -> Any:
        """Applies the layers after the first, and the activation of the outputs."""
        for depth in range(1, len(self.kernels)):
            x = self._next_layer(self._activated(x, self.hidden_activation), depth)
        x = self._activated(x, self.activation)
        return ops.reshape(x, (*leading, self.num_stacks, self.layer_units[-1]))

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """That of one input, with the stacks and the outputs as last axes."""
        return (*input_shape[:-1], self.num_stacks, self.layer_units[-1])

    def compute_output_spec(
        self, inputs: Any, repeated: bool = False
    ) -> keras.KerasTensor:
        """Checks the input and returns the spec of the outputs."""
        self._check_shape(inputs.shape)
        shape = tuple(inputs.shape)[1:] if repeated else tuple(inputs.shape)
        return keras.KerasTensor(
            StackedDense.compute_output_shape(self, shape), dtype=self.compute_dtype
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_stacks": self.num_stacks,
            "layer_units": self.layer_units,
            "inputs_first": self.inputs_first,
            **self.get_dense_config(),
        }

    def get_dense_config(self) -> dict[str, Any]:
        """Returns those arguments that a layer of `keras.layers` has as well."""
        return {
            "activation": keras.activations.serialize(self.activation),
            "hidden_activation": keras.activations.serialize(self.hidden_activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }

    def _first_layer(self, x: Any) -> Any:
        """Applies the first layer of all stacks, `(rows, S * out)`.

        One wide product: repeated for each stack, the rows would fill S times the
        memory, in the gradient too.
        """
        size_in = x.shape[-1]
        kernel = self.kernels[0]
        if not self.inputs_first:
            kernel = ops.transpose(kernel, (1, 0, 2))
        return self._add_bias(ops.matmul(x, ops.reshape(kernel, (size_in, -1))), 0)

    def _first_layer_of_each(self, x: Any, groups: int) -> Any:
        """Applies the first layer: `(G, rows, in)` to `(rows, S * out)`."""
        kernel = ops.convert_to_tensor(self.kernels[0])
        _, size_in, size_out = kernel.shape
        if groups < self.num_stacks:
            kernel = ops.reshape(kernel, (groups, -1, size_in, size_out))
            kernel = ops.transpose(kernel, (0, 2, 1, 3))
            kernel = ops.reshape(kernel, (groups, size_in, -1))
        x = ops.transpose(ops.matmul(x, kernel), (1, 0, 2))
        x = ops.reshape(x, (-1, self.num_stacks * size_out))
        return self._add_bias(x, 0)

    def _next_layer(self, x: Any, depth: int) -> Any:
        """Applies a later layer: `(rows, S * in)` to `(rows, S * out)`."""
        _, size_in, size_out = self.kernels[depth].shape
        kernel = ops.convert_to_tensor(self.kernels[depth])
        if size_out == 1:
            # A product with a vector, which needs no other order of the axes.
            x = ops.multiply(x, ops.reshape(kernel, (-1,)))
            x = ops.sum(ops.reshape(x, (-1, self.num_stacks, size_in)), axis=-1)
        else:
            x = ops.reshape(x, (-1, self.num_stacks, size_in))
            x = ops.matmul(ops.transpose(x, (1, 0, 2)), kernel)
            x = ops.reshape(ops.transpose(x, (1, 0, 2)), (-1, x.shape[0] * size_out))
        return self._add_bias(x, depth)

    @property
    def _size_in(self) -> int:
        return self.kernels[0].shape[0 if self.inputs_first else 1]

    def _activated(self, x: Any, activation: Any) -> Any:
        """Applies an activation, by stack if it may run along an axis."""
        if activation in _ELEMENTWISE:
            # Right after the bias, where TensorFlow makes one operation of them.
            return activation(x)
        shape = ops.shape(x)
        x = ops.reshape(x, (-1, self.num_stacks, x.shape[-1] // self.num_stacks))
        return ops.reshape(activation(x), shape)

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
        if self.kernels and input_shape[-1] != self._size_in:
            raise ValueError(
                f"The last axis of the input must be {self._size_in}, as "
                "when the layer was built. "
                f"Received: input of shape {tuple(input_shape)}"
            )
