"""Convolutional neural processes, in one dimension."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl.argument_checks import check_count, check_number, check_range
from keras_mtl.learners.feature_vectors import check_vectors
from keras_mtl.learners.learner import Learner

_EPSILON = 1e-8


@keras.saving.register_keras_serializable("keras_mtl")
class ConvolutionalNeuralProcess(Learner):
    """A neural process that moves with its data: a convolution over a grid.

    $$ d(t) = \\sum_i k(t - x_i), \\qquad
       s(t) = \\sum_i k(t - x_i)\\, y_i \\,/\\, d(t), \\qquad
       k(t) = \\exp\\big(-t^2 / 2 l^2\\big) $$

    Density d and signal s of the support are put on a grid, a convolutional network
    reads them, and its output at a query is again a sum of kernels. Where the support
    is shifted so are the predictions, away from the ends of the grid. phi is what
    the network made of the support, at each point of the grid. For one input, x of
    shape `(B, n, 1)`.

    Args:
        output_dim: Integer, the numbers of a label.
        distribution: What is predicted. Defaults to `"gaussian"`.
        domain: Pair of the least and the greatest x. Defaults to `(-2, 2)`.
        points_per_unit: Integer, points of the grid in one unit of x. Defaults to 16.
        margin: Number, how far the grid reaches beyond the domain. Defaults to 1.
        channels: Integer, channels of the convolutions. Defaults to 64.
        depth: Integer, number of residual convolutions. Defaults to 6.
        kernel_size: Integer, points that a convolution spans. Defaults to 7.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is out of range, or x is not one number.

    Example:

    ```python
    learner = keras_mtl.learners.ConvolutionalNeuralProcess(output_dim=1)
    x = np.zeros((2, 10, 1), "float32")
    phi = learner.adapt(x, x, np.ones((2, 10), "bool"))
    assert learner.predict(phi, x).shape == (2, 10, 1, 2)  # mean and scale
    ```

    Reference:
        Gordon et al., "Convolutional Conditional Neural Processes", ICLR 2020,
        https://arxiv.org/abs/1910.13556
    """

    ignores_order = True
    needs_support = False

    def __init__(
        self,
        output_dim: int,
        distribution: Any = "gaussian",
        domain: tuple[float, float] = (-2.0, 2.0),
        points_per_unit: int = 16,
        margin: float = 1.0,
        channels: int = 64,
        depth: int = 6,
        kernel_size: int = 7,
        **kwargs: Any,
    ) -> None:
        super().__init__(output_dim=output_dim, distribution=distribution, **kwargs)
        self.domain = check_range("domain", domain)
        self.points_per_unit = check_count("points_per_unit", points_per_unit)
        self.margin = check_number("margin", margin, at_least=0)
        self.channels = check_count("channels", channels)
        self.depth = check_count("depth", depth)
        self.kernel_size = check_count("kernel_size", kernel_size)
        low, high = self.domain[0] - margin, self.domain[1] + margin
        points = max(2, math.ceil((high - low) * points_per_unit) + 1)
        self._grid = (low + np.arange(points) / points_per_unit).astype("float32")
        start = keras.initializers.Constant(math.log(2 / points_per_unit))
        self.log_length_in = self.add_weight(
            shape=(), initializer=start, name="log_length_in"
        )
        self.log_length_out = self.add_weight(
            shape=(), initializer=start, name="log_length_out"
        )
        dtype = self.dtype_policy
        self.first = keras.layers.Dense(channels, dtype=dtype)
        self.convolutions = [
            keras.layers.Conv1D(
                channels,
                kernel_size,
                padding="same",
                data_format="channels_last",
                dtype=dtype,
            )
            for _ in range(depth)
        ]
        self.head = keras.layers.Dense(self.output_size, dtype=dtype)

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns the features of the grid `(B, points, channels)`."""
        _check_one_input(support_x, "support_x")
        labels, seen = self.read_labels(support_y, support_mask)
        weight = self._kernel(support_x, self.log_length_in)  # B, S, points
        weight = weight * ops.cast(support_mask, "float32")[..., None]
        density = ops.sum(weight, axis=1)[..., None]  # B, points, 1
        signal = ops.matmul(ops.transpose(weight, (0, 2, 1)), labels)
        signal = signal / (density + _EPSILON)
        features = ops.relu(self.first(ops.concatenate([density, signal], axis=-1)))
        for convolution in self.convolutions:
            features = features + convolution(ops.relu(features))
        return {"features": features, **seen}

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns predictions `(B, Q, ...)`."""
        _check_one_input(query_x, "query_x")
        weight = self._kernel(query_x, self.log_length_out)  # B, Q, points
        weight = weight / (ops.sum(weight, axis=-1, keepdims=True) + _EPSILON)
        read = ops.matmul(weight, ops.cast(phi["features"], "float32"))
        return self.answer(self.head(ops.relu(read)), phi)

    def _kernel(self, x: Any, log_length: Any) -> Any:
        distance = (ops.cast(x, "float32") - self._grid) / ops.exp(log_length)
        return ops.exp(-0.5 * distance**2)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "domain": self.domain,
            "points_per_unit": self.points_per_unit,
            "margin": self.margin,
            "channels": self.channels,
            "depth": self.depth,
            "kernel_size": self.kernel_size,
        }


def _check_one_input(x: Any, name: str) -> None:
    check_vectors(x, name)
    if x.shape[-1] != 1:
        raise ValueError(
            f"`{name}` must be one number for each example, of shape (tasks, examples, "
            f"1). Received: shape {tuple(x.shape)}"
        )
