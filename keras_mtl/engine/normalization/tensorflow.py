"""Normalisation with the moments of a batch, as one operation of TensorFlow."""

from typing import Any

import tensorflow as tf


def batch_normalization(
    x: Any, gamma: Any, beta: Any, epsilon: float
) -> tuple[Any, Any, Any]:
    """Returns normalised images, and mean and variance of each channel.

    Args:
        x: Images `(n, H, W, C)`, float32.
        gamma: Factor of each channel `(C,)`.
        beta: Shift of each channel `(C,)`.
        epsilon: Number that is added to the variance.
    """
    normalised, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=tf.zeros([0]),
        variance=tf.zeros([0]),
        epsilon=epsilon,
        is_training=True,
    )
    # What it returns is divided by one less than the count, where that is not 0.
    count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), variance.dtype)
    return normalised, mean, variance * tf.maximum(count - 1, 1) / count
