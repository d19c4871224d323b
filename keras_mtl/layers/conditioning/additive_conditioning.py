"""Conditioning by addition."""

from typing import Any

import keras
from keras import ops

from keras_mtl.layers.conditioning.task_descriptor import (
    align_descriptor,
    check_descriptor,
    check_descriptor_shape,
)


@keras.saving.register_keras_serializable("keras_mtl")
class AdditiveConditioning(keras.layers.Layer):
    """Adds a linear map of the task descriptor to the features.

    $$ y = x + z V \\qquad\\text{or, with } units, \\qquad y = x W + b + z V $$

    It equals concatenation followed by a linear layer: that layer's kernel
    `[W; V]`, split after the features of `x`, gives the same `y`. So
    `AdditiveConditioning(units)(x, z)` is `Dense(units)` of `[x; z]`, and
    `AdditiveConditioning()(Dense(units)(x), z)` is the same with the layer of
    `x` kept apart.

    Args:
        units: Integer, the size of `y`, for a linear layer of `x` as well, or
            `None` to add to `x` as it is. Defaults to `None`.
        use_bias: Boolean, whether the linear layer of `x` has a bias. Without
            `units` there is no such layer and no bias. Defaults to `True`.
        kernel_initializer: Initializer of `W`. Defaults to `"glorot_uniform"`.
        bias_initializer: Initializer of `b`. Defaults to `"zeros"`.
        descriptor_initializer: Initializer of `V`. Defaults to
            `"glorot_uniform"`; `"zeros"` starts from a network that does not
            know its task.
        kernel_regularizer: Regularizer of `W`. Defaults to `None`.
        descriptor_regularizer: Regularizer of `V`. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Features of shape `(B, ..., D)`.
        z: Float descriptor of shape `(B, dim)`. One with inner axes, which must
            be the first inner axes of `x`, conditions each position by its own.

    Output shape:
        `(B, ..., D)`, or `(B, ..., units)`.

    Raises:
        ValueError: If `z` is an integer index, or its axes do not fit `x`.

    Example:

    ```python
    layer = keras_mtl.layers.AdditiveConditioning(descriptor_initializer="zeros")
    x, z = np.ones((4, 5), "float32"), np.ones((4, 2), "float32")
    assert np.array_equal(ops.convert_to_numpy(layer(x, z)), x)
    ```
    """

    def __init__(
        self,
        units: int | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        descriptor_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        descriptor_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if units is not None and units < 1:
            raise ValueError(
                f"`units` must be a positive integer or None. Received: {units}"
            )
        self.units = units
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.descriptor_initializer = keras.initializers.get(descriptor_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.descriptor_regularizer = keras.regularizers.get(descriptor_regularizer)
        self.kernel = None
        self.bias = None
        self.descriptor_kernel = None
        self.supports_masking = True

    def build(
        self, x_shape: tuple[int | None, ...], z_shape: tuple[int | None, ...]
    ) -> None:
        """Creates `V` of shape `(dim, units)` and, with `units`, `W` and `b`."""
        check_descriptor_shape(x_shape, z_shape)
        if x_shape[-1] is None:
            raise ValueError(
                "The last axis of the features `x` must be known. "
                f"Received: x of shape {tuple(x_shape)}"
            )
        units = x_shape[-1] if self.units is None else self.units
        self.descriptor_kernel = self.add_weight(
            name="descriptor_kernel",
            shape=(z_shape[-1], units),
            initializer=self.descriptor_initializer,
            regularizer=self.descriptor_regularizer,
        )
        if self.units is not None:
            self.kernel = self.add_weight(
                name="kernel",
                shape=(x_shape[-1], units),
                initializer=self.kernel_initializer,
                regularizer=self.kernel_regularizer,
            )
            if self.use_bias:
                self.bias = self.add_weight(
                    name="bias", shape=(units,), initializer=self.bias_initializer
                )

    def call(self, x: Any, z: Any) -> Any:
        """Returns `x + z V`, or `x W + b + z V`."""
        check_descriptor(x, z)
        x = ops.cast(x, self.compute_dtype)
        if self.kernel is not None:
            x = ops.matmul(x, self.kernel)
        if self.bias is not None:
            x = ops.add(x, self.bias)
        shift = ops.matmul(ops.cast(z, self.compute_dtype), self.descriptor_kernel)
        return ops.add(x, align_descriptor(shift, len(x.shape)))

    def compute_output_shape(
        self, x_shape: tuple[int | None, ...], z_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """That of `x`, with `units` as its last axis where they are given."""
        return (*x_shape[:-1], x_shape[-1] if self.units is None else self.units)

    def compute_output_spec(self, x: Any, z: Any) -> keras.KerasTensor:
        """Checks the arguments and returns the spec of the output."""
        check_descriptor(x, z)
        return keras.KerasTensor(
            self.compute_output_shape(x.shape, z.shape), dtype=self.compute_dtype
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "units": self.units,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "descriptor_initializer": keras.initializers.serialize(
                self.descriptor_initializer
            ),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "descriptor_regularizer": keras.regularizers.serialize(
                self.descriptor_regularizer
            ),
        }
