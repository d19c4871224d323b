"""Experts: layers of one output shape, whose outputs are mixed."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.layers.wrapped_layer import call_with_mask


class LayerExperts(keras.layers.Layer):
    """Runs layers of the user's own on one input, side by side.

    Args:
        layers: List of E layers or models with one output of the same shape.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        Whatever the layers take.

    Output shape:
        `(B, E, ...)`.
    """

    def __init__(self, layers: Sequence[keras.layers.Layer], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers = list(layers)
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds every layer."""
        for layer in self.layers:
            if not layer.built:
                layer.build(input_shape)
        self.output_shape_of(input_shape)

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Returns the outputs of all layers, stacked along axis 1."""
        outputs = [call_with_mask(expert, inputs, mask) for expert in self.layers]
        outputs = [ops.cast(y, self.compute_dtype) for y in outputs]
        return ops.stack(outputs, axis=1)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """Returns None: the experts, which take the mask, may use it up."""
        return None

    def output_shape_of(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Returns the shape of the output of one expert.

        Raises:
            ValueError: If they differ.
        """
        shapes = [tuple(e.compute_output_shape(input_shape)) for e in self.layers]
        if len(set(shapes)) > 1:
            raise ValueError(
                f"All experts must have outputs of one shape. Received: shapes {shapes}"
            )
        return shapes[0]

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """That of one expert with the experts as axis 1."""
        batch, *inner = self.output_shape_of(input_shape)
        return (batch, len(self.layers), *inner)
