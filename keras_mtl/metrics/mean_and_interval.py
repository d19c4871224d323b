"""Mean over seeds with a confidence interval."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class MeanAndInterval(NamedTuple):
    """Mean of a sample, its standard deviation, and bounds of the true mean."""

    mean: float
    lower: float
    upper: float
    std: float
    count: int

    @property
    def half_width(self) -> float:
        """Half the width of the interval: `mean ± half_width`."""
        return (self.upper - self.lower) / 2

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.half_width:.2g}"


def mean_and_interval(
    values: Iterable[float], confidence: float = 0.95
) -> MeanAndInterval:
    """Mean of runs with different seeds, and Student's interval of the true mean.

    $$\\bar v \\pm t_{n-1}\\left(\\tfrac{1 + c}{2}\\right) \\frac{s}{\\sqrt n}$$

    with the standard deviation `s` of the sample (divided by `n - 1`), for normally
    distributed values. Of one value nothing is known about the spread: the interval
    is infinite and the deviation is NaN.

    Args:
        values: Numbers, one for each seed.
        confidence: Between 0 and 1. Defaults to `0.95`.

    Returns:
        A `MeanAndInterval` of `mean`, `lower`, `upper`, `std` and `count`.

    Raises:
        ValueError: without values, or for a confidence out of range.

    Example:

    ```python
    auc = keras_mtl.metrics.mean_and_interval([0.91, 0.93, 0.92])
    print(auc)  # 0.92 ± 0.025
    ```
    """
    values = np.asarray(list(values), "float64")
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(
            "`values` must be at least one number. "
            f"Received: an array of shape {values.shape}"
        )
    if not 0 < confidence < 1:
        raise ValueError(
            f"`confidence` must be between 0 and 1. Received: confidence={confidence}"
        )
    mean = float(values.mean())
    count = len(values)
    if count == 1:
        return MeanAndInterval(mean, -math.inf, math.inf, math.nan, 1)
    std = float(values.std(ddof=1))
    half_width = _two_sided_quantile(confidence, count - 1) * std / math.sqrt(count)
    return MeanAndInterval(mean, mean - half_width, mean + half_width, std, count)


def _two_sided_quantile(probability, degrees):
    """The `t` with P(|T| <= t) = probability, by bisection over atan(t / sqrt(n))."""
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        if _central_probability(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return math.tan((low + high) / 2) * math.sqrt(degrees)


def _central_probability(angle, degrees):
    """P(|T| <= sqrt(degrees) tan(angle)): the finite sums of Abramowitz and Stegun,
    "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
    """
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2 == 1
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for power in range(3 if odd else 2, degrees + 1, 2):
        total += term
        term *= cosine**2 * (power - 1) / power
    if odd:
        return 2 / math.pi * (angle + sine * total)
    return sine * total
