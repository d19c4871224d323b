"""Sine waves, the regression tasks of the MAML paper."""

import math

import numpy as np

from keras_mtl.argument_checks import check_number, check_range


class Sinusoids:
    """Tasks `y = amplitude * sin(x - phase) + noise`, for `RegressionEpisodes`.

    Args:
        amplitude: Pair of numbers, the range of the amplitude. Defaults to (0.1, 5).
        phase: Pair of numbers, the range of the phase. Defaults to (0, pi).
        x_range: Pair of numbers, where points lie, evenly. Defaults to (-5, 5).
        noise: Float, standard deviation of the noise. Defaults to 0.

    Raises:
        ValueError: If a range is not in order.

    Example:

    ```python
    tasks = keras_mtl.data.Sinusoids()
    x, y = tasks.draw(np.random.default_rng(0), num_tasks=4, num_points=10)
    assert x.shape == y.shape == (4, 10, 1)
    ```

    Reference:
        Finn et al., "Model-Agnostic Meta-Learning", ICML 2017,
        https://arxiv.org/abs/1703.03400, section 5.1
    """

    def __init__(
        self,
        amplitude: tuple[float, float] = (0.1, 5.0),
        phase: tuple[float, float] = (0.0, math.pi),
        x_range: tuple[float, float] = (-5.0, 5.0),
        noise: float = 0.0,
    ) -> None:
        self.amplitude = check_range("amplitude", amplitude)
        self.phase = check_range("phase", phase)
        self.x_range = check_range("x_range", x_range)
        self.noise = check_number("noise", noise, at_least=0)

    def draw(
        self, generator: np.random.Generator, num_tasks: int, num_points: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns points x and y of tasks, both `(num_tasks, num_points, 1)`."""
        amplitude = generator.uniform(*self.amplitude, size=(num_tasks, 1, 1))
        phase = generator.uniform(*self.phase, size=(num_tasks, 1, 1))
        x = generator.uniform(*self.x_range, size=(num_tasks, num_points, 1))
        y = amplitude * np.sin(x - phase)
        return x, y + self.noise * generator.normal(size=y.shape)
