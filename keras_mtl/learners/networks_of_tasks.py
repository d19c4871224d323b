"""One network, with weights of each task, of all tasks at once."""

import math
from typing import Any

import keras
from keras import ops

from keras_mtl.learners.each_task import for_each_task
from keras_mtl.learners.patch_convolution import PatchConv2D

_OF_EACH_ROW = (
    keras.layers.Activation,
    keras.layers.AveragePooling2D,
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.LeakyReLU,
    keras.layers.MaxPooling2D,
    keras.layers.Permute,
    keras.layers.ReLU,
    keras.layers.Reshape,
)
"""Layers without weights, of which each row has a result of its own."""


def call_with_weights(network: keras.Model, weights: list[Any], x: Any) -> Any:
    """Returns the outputs of a network with weights of each task `(B, n, ...)`.

    A sequence of layers of which those with weights are `Dense` or `PatchConv2D` is
    computed with products of as many matrices as tasks. Other networks are called as
    they are, mapped over tasks, which takes longer to trace; what TensorFlow maps is
    compiled anew in each step by XLA where the size of batches is not known.

    Args:
        network: A built Keras model.
        weights: Its trainable variables in order, for each task `(B, ...)`.
        x: Examples `(B, n, ...)`.
    """
    x = ops.convert_to_tensor(x)
    if type(network) is keras.Sequential and all(map(_is_known, network.layers)):
        return _call_sequence(network, weights, x)
    fixed = [ops.convert_to_tensor(v) for v in network.non_trainable_variables]

    def of_task(task: tuple[list[Any], Any]) -> Any:
        own, examples = task
        return network.stateless_call(own, fixed, examples)[0]

    return for_each_task(of_task, (list(weights), x))


def _is_known(layer: keras.layers.Layer) -> bool:
    if type(layer) in (keras.layers.Dense, PatchConv2D):
        changed = layer.lora_enabled or getattr(layer, "quantization_mode", None)
        return layer.trainable and not changed
    return type(layer) in _OF_EACH_ROW


def _call_sequence(network: keras.Sequential, weights: list[Any], x: Any) -> Any:
    examples, left = ops.shape(x)[1], iter(weights)
    for layer in network.layers:
        rows = ops.reshape(x, (-1, *x.shape[2:]))
        if type(layer) in _OF_EACH_ROW:
            rows = layer(rows)
        else:
            rows = ops.cast(rows, layer.compute_dtype)
            if type(layer) is PatchConv2D:
                rows = layer.patches(rows)
            kernel = ops.cast(next(left), layer.compute_dtype)
            inputs = ops.reshape(
                rows, (-1, examples * math.prod(rows.shape[1:-1]), rows.shape[-1])
            )
            products = ops.matmul(
                inputs, ops.reshape(kernel, (-1, rows.shape[-1], kernel.shape[-1]))
            )
            if layer.use_bias:
                bias = ops.cast(next(left), layer.compute_dtype)
                products = products + bias[:, None]
            rows = ops.reshape(products, (-1, *rows.shape[1:-1], kernel.shape[-1]))
            if layer.activation is not None:
                rows = layer.activation(rows)
        x = ops.reshape(rows, (-1, examples, *rows.shape[1:]))
    return x
