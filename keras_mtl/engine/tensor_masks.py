"""The Keras masks that tensors carry."""

from typing import Any

import keras


class TensorMasks(keras.layers.Layer):
    """Reads and attaches the masks of tensors, such as those of padded sequences.

    A tensor carries its mask in a private attribute or, on JAX, in a private table
    of Keras. But Keras hands it to every layer that asks for it, and takes it from
    every layer that gives one, so this is one.
    """

    def __init__(self) -> None:
        super().__init__(dtype="float32", autocast=False, name="tensor_masks")
        self.supports_masking = True
        self._found = _Found()

    def read(self, outputs: Any) -> Any:
        """Returns the masks in the structure of the outputs, None for one without."""
        self(outputs)
        masks, self._found.masks = self._found.masks, None
        return masks

    def attach(self, tensor: Any, mask: Any) -> Any:
        """Returns a tensor with a mask, if there is one."""
        if mask is None:
            return tensor
        self._found.given = mask
        tensor = self(tensor)
        self._found.given = None
        return tensor

    def call(self, outputs: Any, mask: Any = None) -> Any:
        """Returns the outputs; see `read`."""
        self._found.masks = mask
        return outputs

    def compute_mask(self, outputs: Any, previous_mask: Any) -> Any:
        """Returns the mask to attach, or else those that were there; see `attach`."""
        return previous_mask if self._found.given is None else self._found.given

    def compute_output_spec(self, outputs: Any, mask: Any = None) -> Any:
        """Shapes and dtypes of the outputs; see `read`."""
        self._found.masks = mask
        return keras.tree.map_structure(
            lambda output: keras.KerasTensor(output.shape, output.dtype), outputs
        )


class _Found:
    """Carries masks in and out of `call`: plain, so that Keras does not track it."""

    masks: Any = None
    given: Any = None
