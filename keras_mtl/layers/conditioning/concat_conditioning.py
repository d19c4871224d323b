"""Conditioning by concatenation."""

from typing import Any

import keras
from keras import ops

from keras_mtl.layers.conditioning.task_descriptor import (
    align_descriptor,
    check_descriptor,
    check_descriptor_shape,
)


@keras.saving.register_keras_serializable("keras_mtl")
class ConcatConditioning(keras.layers.Layer):
    """Appends the task descriptor to the features.

    $$ y = [x; z] $$

    `z` is repeated over the inner axes of `x`. All that follows is shared by
    the tasks but the rows that multiply `z` in the next layer. With a linear
    layer after it, it equals `AdditiveConditioning`:
    `[x; z] [W; V] = x W + z V`.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Features of shape `(B, ..., D)`.
        z: Float descriptor of shape `(B, dim)`. One with inner axes, which must
            be the first inner axes of `x`, conditions each position by its own.

    Output shape:
        `(B, ..., D + dim)`.

    Raises:
        ValueError: If `z` is an integer index, or its axes do not fit `x`.

    Example:

    ```python
    x, z = np.ones((4, 7, 5), "float32"), np.zeros((4, 2), "float32")
    assert keras_mtl.layers.ConcatConditioning()(x, z).shape == (4, 7, 7)
    ```
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(
        self, x_shape: tuple[int | None, ...], z_shape: tuple[int | None, ...]
    ) -> None:
        """Checks the shapes; there is nothing to create."""
        check_descriptor_shape(x_shape, z_shape)

    def call(self, x: Any, z: Any) -> Any:
        """Returns `[x; z]`."""
        check_descriptor(x, z)
        z = align_descriptor(ops.cast(z, self.compute_dtype), len(x.shape))
        z = ops.broadcast_to(z, (*ops.shape(x)[:-1], z.shape[-1]))
        return ops.concatenate([ops.cast(x, self.compute_dtype), z], axis=-1)

    def compute_output_shape(
        self, x_shape: tuple[int | None, ...], z_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """The last axis grows by that of `z`."""
        features = None if x_shape[-1] is None else x_shape[-1] + z_shape[-1]
        return (*x_shape[:-1], features)

    def compute_output_spec(self, x: Any, z: Any) -> keras.KerasTensor:
        """Checks the arguments and returns the spec of the output."""
        check_descriptor(x, z)
        return keras.KerasTensor(
            self.compute_output_shape(x.shape, z.shape), dtype=self.compute_dtype
        )
