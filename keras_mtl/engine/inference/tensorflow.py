"""Compiled functions of a model, on TensorFlow."""

from collections.abc import Callable

import keras
import tensorflow as tf


def compiled(model: keras.Model, function: Callable) -> Callable:
    """Returns the function as a graph.

    Args:
        model: The model whose variables it reads; it must be built.
        function: A function of nests of tensors.
    """
    return tf.function(function, reduce_retracing=True)
