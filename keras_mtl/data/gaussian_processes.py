"""Functions drawn from Gaussian processes."""

from typing import Any

import numpy as np

from keras_mtl.argument_checks import (
    check_choice,
    check_count,
    check_number,
    check_range,
)
from keras_mtl.data.gaussian_process_posterior import (
    GaussianProcessPosterior,
    integrate,
)

KERNELS = ("rbf", "matern52", "periodic")


class GaussianProcesses:
    """Tasks that are functions drawn from a Gaussian process, for `RegressionEpisodes`.

    Every task draws a scale s and a length l (and a period p), then y from the normal
    distribution with the covariance \\( k(x, x') + \\sigma^2 1[x = x'] \\), with
    d = |x - x'| (of several features the periodic kernel is the product):

    $$ \\text{rbf: } s^2 e^{-d^2 / 2 l^2}, \\quad
       \\text{matern52: } s^2 \\big(1 + \\sqrt5 d / l + 5 d^2 / 3 l^2\\big)
       e^{-\\sqrt5 d / l}, \\quad
       \\text{periodic: } s^2 e^{-2 \\sin^2(\\pi d / p) / l^2} $$

    The defaults are those of the one-dimensional benchmark of bootstrapping and
    transformer neural processes.

    Args:
        kernel: `"rbf"`, `"matern52"` or `"periodic"`. Defaults to `"rbf"`.
        length: Number or pair, the range of l. Defaults to (0.1, 0.6).
        scale: Number or pair, the range of s. Defaults to (0.1, 1).
        period: Number or pair, the range of p. Defaults to (0.1, 0.5).
        noise: Float, sigma. Defaults to 0.02.
        x_range: Pair of numbers, where points lie, evenly. Defaults to (-2, 2).
        features: Integer, the size of x. Defaults to 1.

    Raises:
        ValueError: If a range is not in order, or not positive.

    Example:

    ```python
    tasks = keras_mtl.data.GaussianProcesses("matern52")
    x, y = tasks.draw(np.random.default_rng(0), num_tasks=4, num_points=10)
    assert x.shape == y.shape == (4, 10, 1)
    ```

    Reference:
        Lee et al., "Bootstrapping Neural Processes", NeurIPS 2020,
        https://arxiv.org/abs/2008.02956; Nguyen and Grover, "Transformer Neural
        Processes", ICML 2022, https://arxiv.org/abs/2207.04179
    """

    def __init__(
        self,
        kernel: str = "rbf",
        length: float | tuple[float, float] = (0.1, 0.6),
        scale: float | tuple[float, float] = (0.1, 1.0),
        period: float | tuple[float, float] = (0.1, 0.5),
        noise: float = 0.02,
        x_range: tuple[float, float] = (-2.0, 2.0),
        features: int = 1,
    ) -> None:
        self.kernel = check_choice("kernel", kernel, KERNELS)
        self.length = check_range("length", length, above=0)
        self.scale = check_range("scale", scale, above=0)
        self.period = check_range("period", period, above=0)
        self.noise = check_number("noise", noise, at_least=0)
        self.x_range = check_range("x_range", x_range)
        self.features = check_count("features", features)

    def draw(
        self, generator: np.random.Generator, num_tasks: int, num_points: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns points x `(num_tasks, num_points, features)` and y `(..., 1)`."""
        parameters = self.draw_parameters(generator, num_tasks)
        x = generator.uniform(
            *self.x_range, size=(num_tasks, num_points, self.features)
        )
        covariance = self.covariance(x, x, parameters)
        # A noise of nothing would leave the matrix singular to the eye of a computer.
        noise = np.maximum(self.noise, 1e-5 * parameters["scale"]) ** 2
        covariance += noise[:, None, None] * np.eye(num_points)
        root = np.linalg.cholesky(covariance)
        return x, root @ generator.normal(size=(num_tasks, num_points, 1))

    def draw_parameters(
        self, generator: np.random.Generator, num_tasks: int
    ) -> dict[str, np.ndarray]:
        """Returns `"length"`, `"scale"` and `"period"`, each `(num_tasks,)`."""
        return {
            name: generator.uniform(*getattr(self, name), size=num_tasks)
            for name in ("length", "scale", "period")
        }

    def covariance(self, x: Any, other: Any, parameters: dict[str, Any]) -> np.ndarray:
        """Returns the kernel between points, without noise.

        Args:
            x: Points `(..., n, features)`.
            other: Points `(..., m, features)`.
            parameters: Those of `draw_parameters`, of shape `(...)`.

        Returns:
            Array `(..., n, m)`.
        """
        length, scale, period = (
            np.asarray(parameters[name])[..., None, None]
            for name in ("length", "scale", "period")
        )
        difference = np.asarray(x)[..., :, None, :] - np.asarray(other)[..., None, :, :]
        distance = np.sqrt(np.sum(difference**2, axis=-1))
        if self.kernel == "rbf":
            return scale**2 * np.exp(-0.5 * (distance / length) ** 2)
        if self.kernel == "matern52":
            d = np.sqrt(5.0) * distance / length
            return scale**2 * (1 + d + d**2 / 3) * np.exp(-d)
        sines = np.sin(np.pi * difference / period[..., None]) ** 2
        return scale**2 * np.exp(-2 * np.sum(sines, axis=-1) / length**2)

    def posterior(
        self,
        support_x: Any,
        support_y: Any,
        query_x: Any,
        support_mask: Any = None,
        grid: int = 40,
    ) -> GaussianProcessPosterior:
        """Returns the Bayes-optimal prediction: what no learner can be better than.

        The length, the scale (and the period) of a task are not known; they are
        integrated out, on a grid, with the weights that the support gives them.

        Args:
            support_x: Points `(B, S, features)`.
            support_y: Labels `(B, S)` or `(B, S, 1)`.
            query_x: Points `(B, Q, features)`.
            support_mask: Whether each point of the support is there `(B, S)`.
                Defaults to `None`, all are.
            grid: Integer, points of the grid for each parameter. Defaults to 40.

        Raises:
            ValueError: If shapes do not fit.

        Example:

        ```python
        tasks = keras_mtl.data.GaussianProcesses()
        x, y = tasks.draw(np.random.default_rng(0), num_tasks=8, num_points=30)
        best = tasks.posterior(x[:, :10], y[:, :10], x[:, 10:])
        assert best.log_likelihood(y[:, 10:]).shape == (8, 20)
        ```
        """
        support_x, query_x = (np.asarray(x, "float64") for x in (support_x, query_x))
        if support_x.ndim != 3 or query_x.ndim != 3:
            raise ValueError(
                "`support_x` and `query_x` must have shape (tasks, points, features). "
                f"Received: shapes {support_x.shape} and {query_x.shape}"
            )
        points = support_x.shape[:2]
        labels = np.asarray(support_y, "float64")
        if labels.shape not in (points, (*points, 1)):
            raise ValueError(
                f"`support_y` must have one number for each point, shape {points}. "
                f"Received: shape {labels.shape}"
            )
        there = np.ones(points, bool)
        if support_mask is not None:
            there = np.asarray(support_mask, bool)
        support = support_x, labels.reshape(points), there
        return integrate(self, support, query_x, check_count("grid", grid))
