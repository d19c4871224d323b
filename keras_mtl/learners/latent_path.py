"""A latent variable for each task."""

from statistics import NormalDist
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl.learners.feature_vectors import joined, multi_layer_perceptron
from keras_mtl.learners.masked_pooling import masked_mean


class LatentPath(keras.layers.Layer):
    """A normal distribution over a vector z, from a set of examples.

    $$ s = \\text{mean}_i\\, h([x_i; y_i]), \\qquad
       q(z \\mid s) = N\\big(\\mu(s), (0.1 + 0.9\\, \\sigma(\\omega(s)))^2\\big) $$

    Args:
        width: Integer, units of every layer.
        depth: Integer, layers of h.
        latent_dim: Integer, numbers of z.
        num_samples: Integer, how many z a prediction is a mixture of.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self, width: int, depth: int, latent_dim: int, num_samples: int, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.latent_dim = latent_dim
        dtype = self.dtype_policy
        self.each = multi_layer_perceptron([width] * depth, dtype=dtype)
        middle = (width + latent_dim) // 2
        self.pooled = multi_layer_perceptron([middle, 2 * latent_dim], dtype=dtype)
        self.seed_generator = keras.random.SeedGenerator(0)
        # Of a quantile grid in every dimension, in a random order: the same numbers in
        # every prediction, so that it is a function of phi and the query.
        normal = NormalDist()
        levels = (np.arange(num_samples) + 0.5) / num_samples
        grid = np.array([normal.inv_cdf(level) for level in levels])
        if num_samples > 1:
            grid = grid / grid.std()
        generator = np.random.default_rng(0)
        columns = [generator.permutation(grid) for _ in range(latent_dim)]
        self._noise = np.stack(columns, axis=-1).astype("float32")

    def call(self, x: Any, labels: Any, mask: Any) -> dict[str, Any]:
        """Returns mean and scale of z, each `(B, latent_dim)`."""
        each = self.each(joined(x, labels))
        numbers = ops.cast(self.pooled(masked_mean(each, mask)), "float32")
        raw = numbers[:, self.latent_dim :]
        return {
            "mean": numbers[:, : self.latent_dim],
            "scale": 0.1 + 0.9 * ops.sigmoid(raw),
        }

    def at(self, latent: dict[str, Any], noise: Any) -> Any:
        """Returns the z `(B, n, latent_dim)` of standard normal noise of that shape."""
        noise = ops.convert_to_tensor(noise)
        return latent["mean"][:, None] + latent["scale"][:, None] * noise

    def fixed_samples(self, latent: dict[str, Any]) -> Any:
        """Returns the z that predictions are made of, `(B, L, latent_dim)`."""
        return self.at(latent, self._noise)

    def samples(self, latent: dict[str, Any], count: int, seed: Any = None) -> Any:
        """Returns random z, `(B, count, latent_dim)`."""
        seed = self.seed_generator if seed is None else seed
        shape = (ops.shape(latent["mean"])[0], count, self.latent_dim)
        return self.at(latent, keras.random.normal(shape, seed=seed, dtype="float32"))


def divergence(p: dict[str, Any], q: dict[str, Any]) -> Any:
    """Returns KL(p || q) of normal distributions, `(B,)`, in nats."""
    ratio = (p["scale"] / q["scale"]) ** 2
    distance = ((p["mean"] - q["mean"]) / q["scale"]) ** 2
    return 0.5 * ops.sum(ratio + distance - 1 - ops.log(ratio), axis=-1)
