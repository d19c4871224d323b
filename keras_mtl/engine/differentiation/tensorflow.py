"""Gradients within a forward pass, on TensorFlow."""

from collections.abc import Callable

import tensorflow as tf


def gradients(
    function: Callable[[list[tf.Tensor]], tf.Tensor], tensors: list[tf.Tensor]
) -> list[tf.Tensor]:
    """Returns the derivatives of a scalar function; zero where it does not depend.

    Args:
        function: A function of the list of tensors.
        tensors: Where to take them.
    """
    tensors = [tf.convert_to_tensor(t) for t in tensors]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        value = function(tensors)
    found = tape.gradient(
        value, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    # Those of a slice are sparse.
    return [tf.convert_to_tensor(gradient) for gradient in found]
