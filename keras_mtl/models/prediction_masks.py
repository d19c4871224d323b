"""The Keras masks of what a model returned."""

from typing import Any

import keras


class PredictionMasks(keras.layers.Layer):
    """Reads the masks of outputs, such as those of padded sequences.

    A tensor carries its mask in a private attribute or, on JAX, in a private table
    of Keras. But Keras hands it to every layer that asks for it, so this is one.
    """

    def __init__(self) -> None:
        super().__init__(dtype="float32", autocast=False, name="prediction_masks")
        self.supports_masking = True
        self._found = _Found()

    def read(self, outputs: Any) -> Any:
        """Returns the masks in the structure of the outputs, None for one without."""
        self(outputs)
        masks, self._found.masks = self._found.masks, None
        return masks

    def call(self, outputs: Any, mask: Any = None) -> Any:
        """Returns the outputs; see `read`."""
        self._found.masks = mask
        return outputs

    def compute_output_spec(self, outputs: Any, mask: Any = None) -> Any:
        """Shapes and dtypes of the outputs; see `read`."""
        self._found.masks = mask
        return keras.tree.map_structure(
            lambda output: keras.KerasTensor(output.shape, output.dtype), outputs
        )


class _Found:
    """Carries the masks out of `call`: a plain object, which Keras does not track."""

    masks: Any = None
