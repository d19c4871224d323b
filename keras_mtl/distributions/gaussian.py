"""A normal distribution."""

import math
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_number
from keras_mtl.distributions.distribution import Distribution

_LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)


@keras.saving.register_keras_serializable("keras_mtl")
class Gaussian(Distribution):
    """A mean and a scale.

    $$ \\mu = a, \\qquad \\sigma = \\sigma_0 + (1 - \\sigma_0) \\log(1 + e^b) $$

    of two raw numbers a and b. Parameters are `(..., Dy, 2)`: the mean first, then the
    scale (standard deviation).

    Args:
        min_scale: Positive number σ₀, the least scale. It bounds the density: with 0.1
            the log-likelihood of a point is at most 1.38 nats, so that a better
            predictor cannot be told; it also keeps the loss from running away where
            points are noise-free. Defaults to 0.01, in the unit of the labels.

    Example:

    ```python
    gaussian = keras_mtl.distributions.Gaussian()
    parameters = np.array([[[0.0, 1.0]]])  # mean 0, scale 1
    float(gaussian.log_prob(np.zeros((1, 1)), parameters)[0, 0])  # -0.919
    float(gaussian.quantile(0.975, parameters)[0, 0])  # 1.96
    ```

    Reference:
        Garnelo et al., "Conditional Neural Processes", ICML 2018,
        https://arxiv.org/abs/1807.01613
    """

    raw_size = 2

    def __init__(self, min_scale: float = 0.01) -> None:
        self.min_scale = check_number("min_scale", min_scale, above=0, at_most=1)

    def parameters(self, raw: Any) -> Any:
        """Returns mean and scale `(..., Dy, 2)` of raw numbers `(..., Dy, 2)`."""
        raw = ops.cast(raw, "float32")
        scale = self.min_scale + (1 - self.min_scale) * ops.softplus(raw[..., 1])
        return ops.stack([raw[..., 0], scale], axis=-1)

    def log_prob(self, y: Any, parameters: Any) -> Any:
        """Returns the logarithm of the density at y `(..., Dy)`, in nats."""
        mean, scale = _unpack(parameters)
        distance = (ops.cast(y, "float32") - mean) / scale
        return -0.5 * distance**2 - ops.log(scale) - _LOG_ROOT_TWO_PI

    def mean(self, parameters: Any) -> Any:
        """Returns the mean `(..., Dy)`."""
        return _unpack(parameters)[0]

    def cdf(self, y: Any, parameters: Any) -> Any:
        """Returns the probability of no more than y `(..., Dy)`."""
        mean, scale = _unpack(parameters)
        distance = (ops.cast(y, "float32") - mean) / scale
        return 0.5 * (1 + ops.erf(distance / math.sqrt(2)))

    def quantile(self, probability: Any, parameters: Any) -> Any:
        """Returns the number that is not exceeded with this probability."""
        mean, scale = _unpack(parameters)
        probability = ops.cast(probability, "float32")
        return mean + scale * math.sqrt(2) * ops.erfinv(2 * probability - 1)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"min_scale": self.min_scale}


def _unpack(parameters: Any) -> tuple[Any, Any]:
    parameters = ops.cast(parameters, "float32")
    if parameters.shape[-1] != 2:
        raise ValueError(
            "A Gaussian has a mean and a scale on the last axis. Received: parameters "
            f"of shape {tuple(parameters.shape)}"
        )
    return parameters[..., 0], parameters[..., 1]
