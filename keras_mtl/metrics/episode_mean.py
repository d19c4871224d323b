"""The mean over episodes, with its interval."""

import math
from typing import Any

import keras
from keras import ops

_NORMAL_QUANTILE = 1.959963984540054


@keras.saving.register_keras_serializable("keras_mtl")
class EpisodeMean(keras.metrics.Metric):
    """The mean of one value an episode, and a 95 % confidence interval of it.

    $$ m = \\frac{1}{n} \\sum_e v_e, \\qquad
       m \\pm 1.96 \\sqrt{\\frac{1}{n (n - 1)} \\sum_e (v_e - m)^2} $$

    n is the number of episodes: not of batches, nor of queries, which of one episode
    are not independent. The interval is that of the normal approximation, for some
    thirty episodes or more.

    The result is a dict of `<name>` and `<name>_ci95`, half the width of the interval;
    of fewer than two episodes that is NaN.

    Args:
        name: String, what the values are.

    Example:

    ```python
    accuracy = keras_mtl.metrics.EpisodeMean("accuracy")
    accuracy.update_state(np.array([0.9, 1.0, 0.8]))
    accuracy.result()  # {"accuracy": 0.9, "accuracy_ci95": 0.113}
    ```
    """

    def __init__(self, name: str, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable((), initializer="zeros", name="total")
        self.squares = self.add_variable((), initializer="zeros", name="squares")
        self.count = self.add_variable((), initializer="zeros", name="count")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Adds episodes.

        Args:
            values: One value an episode `(B,)`.
            sample_weight: 0 for episodes that do not count `(B,)`.
        """
        values = ops.cast(values, self.dtype)
        weight = ops.ones_like(values)
        if sample_weight is not None:
            present = ops.not_equal(ops.convert_to_tensor(sample_weight), 0)
            weight = weight * ops.cast(present, self.dtype)
        values = ops.where(weight > 0, values, 0.0)
        # Squares are about the mean: the difference of two sums of raw squares has no
        # digit left where the spread is small.
        added = ops.sum(weight)
        total = ops.sum(values)
        mean = ops.divide_no_nan(total, added)
        squares = ops.sum(weight * (values - mean) ** 2)
        step = mean - self._mean()
        share = ops.divide_no_nan(added, self.count + added)
        self.squares.assign_add(squares + step**2 * self.count * share)
        self.total.assign_add(total)
        self.count.assign_add(added)

    def result(self) -> dict[str, Any]:
        """Returns the mean and half the width of its interval."""
        squares, count = (ops.convert_to_tensor(v) for v in (self.squares, self.count))
        variance = squares / ops.maximum(count * (count - 1), 1.0)
        half = ops.where(count > 1, _NORMAL_QUANTILE * ops.sqrt(variance), math.nan)
        return {self.name: self._mean(), f"{self.name}_ci95": half}

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return super().get_config()

    def _mean(self) -> Any:
        return ops.divide_no_nan(
            ops.convert_to_tensor(self.total), ops.convert_to_tensor(self.count)
        )
