"""Feature-wise linear modulation."""

from typing import Any

import keras
from keras import ops

from keras_mtl.layers.conditioning.task_descriptor import (
    align_descriptor,
    check_descriptor,
    check_descriptor_shape,
)
from keras_mtl.layers.independent_initializers import (
    independent_initializers,
)


@keras.saving.register_keras_serializable("keras_mtl")
class FiLM(keras.layers.Layer):
    """Scales and shifts each feature by amounts computed from the descriptor.

    $$ y = (1 + \\gamma(z)) \\odot x + \\beta(z), \\qquad
       \\gamma(z) = z W_\\gamma + b_\\gamma, \\quad \\beta(z) = z W_\\beta + b_\\beta $$

    Both maps start at zero, so the layer starts as the identity. It can express
    the other conditionings: with `1 + γ` in {0, 1} it gates blocks of features
    (independent networks), and after a layer that holds all heads it picks one.
    For a deeper `γ` and `β`, put layers on `z` before this one.

    Args:
        axis: Integer, the axis of the features. Defaults to `-1`. Use `1` for
            `channels_first` images or sequences.
        use_bias: Boolean, whether the two maps have a bias. Defaults to `True`.
        kernel_initializer: Initializer of both kernels. Defaults to `"zeros"`.
        bias_initializer: Initializer of both biases. Defaults to `"zeros"`.
        kernel_regularizer: Regularizer of both kernels. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Features: dense `(B, D)`, sequence `(B, S, D)`, image `(B, H, W, C)`,
            or with the features on another `axis`.
        z: Float descriptor of shape `(B, dim)`. One with inner axes, which must
            be the first inner axes of `x`, conditions each position by its own;
            the features are then on the last axis.

    Output shape:
        That of `x`.

    Raises:
        ValueError: If `z` is an integer index, its axes do not fit `x`, or
            `axis` is no feature axis of `x`.

    Example:

    ```python
    image = keras.Input((28, 28, 32))
    task = keras.Input((), dtype="int32")
    z = keras_mtl.layers.TaskEmbedding(3, 16)(task)
    y = keras_mtl.layers.FiLM()(image, z)
    assert y.shape == (None, 28, 28, 32)
    ```

    Reference:
        Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer",
        AAAI 2018, https://arxiv.org/abs/1709.07871
    """

    def __init__(
        self,
        axis: int = -1,
        use_bias: bool = True,
        kernel_initializer: Any = "zeros",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.gamma = None
        self.beta = None
        self.supports_masking = True

    def build(
        self, x_shape: tuple[int | None, ...], z_shape: tuple[int | None, ...]
    ) -> None:
        """Creates the two maps from `z` to the features."""
        self._check_shapes(x_shape, z_shape)
        features = x_shape[self.axis]
        if features is None:
            raise ValueError(
                f"Axis {self.axis} of `x` holds the features and must be known. "
                f"Received: x of shape {tuple(x_shape)}"
            )
        kernels = independent_initializers(self.kernel_initializer, 2)
        biases = independent_initializers(self.bias_initializer, 2)
        self.gamma = self._linear_map("gamma", features, kernels[0], biases[0])
        self.beta = self._linear_map("beta", features, kernels[1], biases[1])
        self.gamma.build(tuple(z_shape))
        self.beta.build(tuple(z_shape))

    def call(self, x: Any, z: Any) -> Any:
        """Returns `(1 + γ(z)) x + β(z)`."""
        check_descriptor(x, z)
        self._check_shapes(x.shape, z.shape)
        x = ops.cast(x, self.compute_dtype)
        z = ops.cast(z, self.compute_dtype)
        gamma = self._to_features(self.gamma(z), len(x.shape))
        beta = self._to_features(self.beta(z), len(x.shape))
        return (1 + gamma) * x + beta

    def compute_output_shape(
        self, x_shape: tuple[int | None, ...], z_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """That of `x`."""
        return tuple(x_shape)

    def compute_output_spec(self, x: Any, z: Any) -> keras.KerasTensor:
        """Checks the arguments and returns the spec of the output."""
        check_descriptor(x, z)
        self._check_shapes(x.shape, z.shape)
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "axis": self.axis,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }

    def _linear_map(
        self, name: str, features: int, kernel_initializer: Any, bias_initializer: Any
    ) -> keras.layers.Dense:
        return keras.layers.Dense(
            features,
            use_bias=self.use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name=name,
        )

    def _to_features(self, modulation: Any, rank: int) -> Any:
        after = rank - 1 - self.axis % rank
        modulation = align_descriptor(modulation, rank - after)
        for _ in range(after):
            modulation = ops.expand_dims(modulation, -1)
        return modulation

    def _check_shapes(
        self, x_shape: tuple[int | None, ...], z_shape: tuple[int | None, ...]
    ) -> None:
        check_descriptor_shape(x_shape, z_shape)
        rank = len(x_shape)
        if not -rank < self.axis < rank or self.axis == 0:
            raise ValueError(
                "`axis` must be an axis of `x` other than the batch axis. "
                f"Received: axis={self.axis}, x of shape {tuple(x_shape)}"
            )
        if len(z_shape) > 2 and self.axis % rank != rank - 1:
            raise ValueError(
                "A descriptor `z` with inner axes needs the features on the last axis "
                f"of `x`. Received: axis={self.axis}, z of shape {tuple(z_shape)}"
            )
