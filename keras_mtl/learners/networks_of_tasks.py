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

    A `keras.Sequential` of `Dense`, `PatchConv2D` and layers without weights that treat
    each row alike is computed with products of as many matrices as tasks. Any other
    network is called as it is, mapped over tasks, which takes longer to trace; what
    TensorFlow maps is compiled anew in each step by XLA where the size of batches is
    not known.

    Args:
        network: A built Keras model.
        weights: Its trainable variables in order, for each task `(B, ...)`.
        x: Examples `(B, n, ...)`.
    """
    x = ops.convert_to_tensor(x)
    own = {
        id(variable): weight
        for variable, weight in zip(network.trainable_variables, weights, strict=True)
    }
    if (
        type(network) is keras.Sequential
        and len(network.input_shape) == len(x.shape) - 1
        and None not in x.shape[2:]
        and all(_is_known(layer, own) for layer in network.layers)
    ):
        return _call_layers(network.layers, own, x)
    fixed = [ops.convert_to_tensor(v) for v in network.non_trainable_variables]

    def of_task(task: tuple[list[Any], Any]) -> Any:
        weights, examples = task
        return network.stateless_call(weights, fixed, examples)[0]

    return for_each_task(of_task, (list(weights), x))


def _is_known(layer: keras.layers.Layer, own: dict[int, Any]) -> bool:
    """Whether `_call_layers` does what the layer does, activation and all."""
    activation = getattr(layer, "activation", None)
    module = getattr(activation, "__module__", "keras.")
    variables = []
    if type(layer) in (keras.layers.Dense, PatchConv2D):
        variables = [layer.kernel, layer.bias] if layer.use_bias else [layer.kernel]
    elif type(layer) not in _OF_EACH_ROW:
        return False
    return (
        [id(v) for v in layer.variables] == [id(v) for v in variables]
        and all(id(v) in own for v in variables)
        and getattr(layer, "activity_regularizer", None) is None
        # One by the user may read all rows.
        and (activation is None or module.startswith("keras."))
    )


def _call_layers(layers: list[Any], own: dict[int, Any], x: Any) -> Any:
    examples = ops.shape(x)[1]
    for layer in layers:
        rows = ops.reshape(x, (-1, *x.shape[2:]))
        if type(layer) in _OF_EACH_ROW:
            rows = layer(rows)
        else:
            dtype = layer.compute_dtype
            rows = ops.cast(rows, dtype)
            if type(layer) is PatchConv2D:
                rows = layer.patches(rows)
            positions, numbers = rows.shape[1:-1], rows.shape[-1]
            kernel = ops.cast(own[id(layer.kernel)], dtype)
            inputs, units = math.prod(kernel.shape[1:-1]), kernel.shape[-1]
            products = ops.matmul(
                ops.reshape(rows, (-1, examples * math.prod(positions), numbers)),
                ops.reshape(kernel, (-1, inputs, units)),
            )
            if layer.use_bias:
                products = products + ops.cast(own[id(layer.bias)], dtype)[:, None]
            rows = ops.reshape(products, (-1, *positions, units))
            if layer.activation is not None:
                rows = layer.activation(rows)
        x = ops.reshape(rows, (-1, examples, *rows.shape[1:]))
    return x
