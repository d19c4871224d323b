"""Fast weights: what networks make of gradients, the same for each coordinate."""

import math
from typing import Any

import keras
from keras import ops

from keras_mtl.learners.feature_vectors import multi_layer_perceptron

_PRECISION = 7.0


class ExampleLevelWeights(keras.layers.Layer):
    """Makes fast weights of one example's gradient at a kernel of n rows.

    $$ G(g) = \\text{MLP}(\\log |g|, \\text{sign}\\, g) / \\sqrt n - \\alpha g $$

    Args:
        units: Integer, hidden units of the MLP.
        last_bias: Boolean, whether its last layer has a bias.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, units: int, last_bias: bool = True, **kwargs: Any) -> None:
        # Gradients stay in float32, whatever dtype the layers in here compute in.
        super().__init__(autocast=False, **kwargs)
        self.read = multi_layer_perceptron(
            [units, 1], dtype=self.dtype_policy, last_bias=last_bias
        )
        self.rate = _add_rate(self)

    def call(self, gradients: Any) -> Any:
        """Returns fast weights of gradients, both `(B, S, n, o)`."""
        made = ops.cast(self.read(as_moderate(gradients))[..., 0], "float32")
        return made / math.sqrt(gradients.shape[-2]) - self.rate * gradients


class TaskLevelWeights(keras.layers.Layer):
    """Makes fast weights of the gradients of a task's first T examples.

    $$ U(g_1, \\dots, g_T) = \\text{LSTM}(\\log |g_i|, \\text{sign}\\, g_i) / \\sqrt n
       - \\frac \\alpha T \\sum_i g_i $$

    Args:
        units: Integer, units of the LSTM.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        # Gradients stay in float32, whatever dtype the layers in here compute in.
        super().__init__(autocast=False, **kwargs)
        self.read = keras.layers.LSTM(units, dtype=self.dtype_policy)
        self.last = keras.layers.Dense(1, dtype=self.dtype_policy)
        self.rate = _add_rate(self)

    def call(self, gradients: Any, there: Any) -> Any:
        """Returns fast weights `(B, n, o)`.

        Args:
            gradients: `(B, T, n, o)`.
            there: Which examples there are `(B, T)`, those in front.
        """
        examples = ops.shape(gradients)[1]
        rows, columns = gradients.shape[2:]
        inputs = ops.reshape(as_moderate(gradients), (-1, examples, rows * columns, 2))
        inputs = ops.reshape(ops.transpose(inputs, (0, 2, 1, 3)), (-1, examples, 2))
        for_each = ops.repeat(ops.cast(there, "bool"), rows * columns, axis=0)
        made = ops.cast(self.last(self.read(inputs, mask=for_each)), "float32")
        made = ops.reshape(made, (-1, rows, columns)) / math.sqrt(rows)
        there = ops.cast(there, "float32")
        count = ops.maximum(ops.sum(there, axis=1), 1.0)
        mean = ops.einsum("bt,btno->bno", there, gradients) / count[:, None, None]
        return made - self.rate * mean


def as_moderate(gradient: Any) -> Any:
    """Returns each number of a gradient as two of moderate size, in a last axis.

    $$ (\\log |g| / p, \\text{sign}\\, g) \\text{ if } |g| \\ge e^{-p}, \\quad
       (-1, e^p g) \\text{ else} $$

    Nothing is differentiated through it: the logarithm is steepest where a gradient is
    smallest.
    """
    gradient = ops.stop_gradient(gradient)
    size = ops.abs(gradient)
    large = size >= math.exp(-_PRECISION)
    logarithm = ops.log(ops.where(large, size, 1.0)) / _PRECISION
    first = ops.where(large, logarithm, -1.0)
    second = ops.where(large, ops.sign(gradient), math.exp(_PRECISION) * gradient)
    return ops.stack([first, second], axis=-1)


def _add_rate(layer: keras.layers.Layer) -> Any:
    start = keras.initializers.Constant(0.1)
    return layer.add_weight(shape=(), initializer=start, name="rate")
