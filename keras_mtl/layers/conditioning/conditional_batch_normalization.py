"""Batch normalisation whose affine map comes from the task descriptor."""

from typing import Any

import keras

from keras_mtl.layers.conditioning.film import FiLM
from keras_mtl.layers.conditioning.task_descriptor import (
    check_descriptor,
    check_descriptor_shape,
)


@keras.saving.register_keras_serializable("keras_mtl")
class ConditionalBatchNormalization(keras.layers.Layer):
    """Batch normalisation with a scale and a shift of each task's own.

    $$ y = (1 + \\gamma(z)) \\odot \\frac{x - \\mu}{\\sqrt{\\sigma^2 + \\epsilon}}
       + \\beta(z) $$

    The statistics are those of all rows of the batch, whatever their task; the
    affine map is `FiLM`. It starts as batch normalisation with the identity as
    its affine map.

    Args:
        axis: Integer, the axis of the features. Defaults to `-1`. Use `1` for
            `channels_first` images or sequences.
        momentum: Float, the share of the old value in the moving statistics.
            Defaults to `0.99`, as in `keras.layers.BatchNormalization`.
        epsilon: Float, added to the variance. Defaults to `1e-3`, likewise.
        use_bias: Boolean, whether the maps to `γ` and `β` have a bias. Defaults
            to `True`.
        kernel_initializer: Initializer of the kernels of these maps. Defaults to
            `"zeros"`.
        bias_initializer: Initializer of their biases. Defaults to `"zeros"`.
        kernel_regularizer: Regularizer of their kernels. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Features of shape `(B, ..., D)`, or with the features on `axis`. Where
            it carries a mask, masked positions do not enter the statistics.
        z: Float descriptor of shape `(B, dim)`.
        training: Boolean. In training the statistics of the batch are used and
            the moving ones updated, otherwise the moving ones are used.

    Output shape:
        That of `x`.

    Raises:
        ValueError: If `z` is an integer index, its axes do not fit `x`, or
            `axis` is no feature axis of `x`.

    Example:

    ```python
    layer = keras_mtl.layers.ConditionalBatchNormalization()
    x = np.random.default_rng(0).normal(3.0, 2.0, (64, 5)).astype("float32")
    z = ops.one_hot(np.arange(64) % 2, 2)
    y = layer(x, z, training=True)
    assert abs(ops.convert_to_numpy(y).mean()) < 1e-3
    ```

    Reference:
        de Vries et al., "Modulating early visual processing by language",
        NeurIPS 2017, https://arxiv.org/abs/1707.00683
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        use_bias: bool = True,
        kernel_initializer: Any = "zeros",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.momentum = momentum
        self.epsilon = epsilon
        self.normalization = keras.layers.BatchNormalization(
            axis=axis,
            momentum=momentum,
            epsilon=epsilon,
            center=False,
            scale=False,
            dtype=self.dtype_policy,
            name="normalization",
        )
        self.affine = FiLM(
            axis=axis,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            dtype=self.dtype_policy,
            name="affine",
        )
        self.supports_masking = True

    def build(
        self, x_shape: tuple[int | None, ...], z_shape: tuple[int | None, ...]
    ) -> None:
        """Creates the moving statistics and the two maps from `z`."""
        check_descriptor_shape(x_shape, z_shape)
        self.affine.build(x_shape, z_shape)
        self.normalization.build(x_shape)

    def call(
        self, x: Any, z: Any, training: bool | None = None, x_mask: Any = None
    ) -> Any:
        """Returns the normalised features, scaled and shifted for the task."""
        check_descriptor(x, z)
        normalized = self.normalization(x, training=training, mask=x_mask)
        return self.affine(normalized, z)

    def compute_output_shape(
        self, x_shape: tuple[int | None, ...], z_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """That of `x`."""
        return tuple(x_shape)

    def compute_output_spec(
        self, x: Any, z: Any, training: bool | None = None, x_mask: Any = None
    ) -> keras.KerasTensor:
        """Checks the arguments and returns the spec of the output."""
        return self.affine.compute_output_spec(x, z)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        affine = self.affine.get_config()
        return {
            **super().get_config(),
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "use_bias": affine["use_bias"],
            "kernel_initializer": affine["kernel_initializer"],
            "bias_initializer": affine["bias_initializer"],
            "kernel_regularizer": affine["kernel_regularizer"],
        }
