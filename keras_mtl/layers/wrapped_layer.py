"""How masks pass a layer that is wrapped in another."""

import inspect
from typing import Any

import keras


def call_with_mask(layer: keras.layers.Layer, x: Any, mask: Any) -> Any:
    """Calls `layer` on `x`, with the mask where it takes one."""
    if mask is not None and "mask" in inspect.signature(layer.call).parameters:
        return layer(x, mask=mask)
    return layer(x)


def mask_after(layer: keras.layers.Layer, x: Any, mask: Any) -> Any:
    """Returns the mask of `layer(x)`, given the mask of `x`.

    It is the one that the layer computes, for each output that still has the
    axes that the mask covers. A model passes a mask if all its layers do.

    Args:
        layer: A built layer or model.
        x: Its input, or a `keras.KerasTensor` like it.
        mask: The mask of `x`, or `None`.

    Returns:
        A mask, or `None`, for each output of `layer`, in their structure.
    """
    if mask is not None:
        mask = layer.compute_mask(x, mask) if _supports_masking(layer) else None
    outputs = layer.compute_output_spec(keras.KerasTensor(x.shape, dtype=x.dtype))
    return keras.tree.map_structure(lambda y: _mask_that_covers(y, mask), outputs)


def _mask_that_covers(output: keras.KerasTensor, mask: Any) -> Any:
    if mask is None or len(output.shape) <= len(mask.shape):
        return None
    for size, mask_size in zip(output.shape[1:], mask.shape[1:], strict=False):
        if None not in (size, mask_size) and size != mask_size:
            return None
    return mask


def _supports_masking(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.Model):
        return layer.supports_masking or all(map(_supports_masking, layer.layers))
    return layer.supports_masking or isinstance(layer, keras.layers.InputLayer)
