"""How far predicted probabilities are from what happens."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl import distributions
from keras_mtl.argument_checks import check_count


@keras.saving.register_keras_serializable("keras_mtl")
class CalibrationError(keras.metrics.Metric):
    """Mean distance of predicted quantiles from their share of labels.

    $$ \\frac{1}{m} \\sum_{j=1}^{m} \\Big| \\frac{1}{n} \\sum_{i=1}^{n}
       [F_i(y_i) \\le p_j] - p_j \\Big|, \\qquad p_j = \\frac{j}{m + 1} $$

    where $F_i$ is the predicted distribution function. It is 0 if of all labels a tenth
    is below the predicted tenth, and so on; a predictor that always says one number is
    at about 0.25.

    Args:
        levels: Integer m, the number of probabilities. Defaults to 19.
        distribution: The `Distribution` of the predictions. Defaults to
            `"gaussian"`: means and scales.
        name: String, optional.

    Example:

    ```python
    y = np.random.default_rng(0).normal(size=(10_000, 1))
    metric = keras_mtl.metrics.CalibrationError()
    metric.update_state(y, np.tile([0.0, 1.0], (10_000, 1, 1)))
    assert metric.result() < 0.01
    ```

    Reference:
        Kuleshov, Fenner and Ermon, "Accurate Uncertainties for Deep Learning Using
        Calibrated Regression", ICML 2018, https://arxiv.org/abs/1807.00263
    """

    def __init__(
        self,
        levels: int = 19,
        distribution: Any = "gaussian",
        name: str = "calibration_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.levels = check_count("levels", levels)
        self.distribution = distributions.get(distribution)
        self._probabilities = np.arange(1, levels + 1) / (levels + 1)
        self.below = self.add_variable((levels,), initializer="zeros", name="below")
        self.count = self.add_variable((), initializer="zeros", name="count")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds queries.

        Args:
            y_true: Labels `(..., Dy)`.
            y_pred: Parameters of their distributions `(..., Dy, parameters)`.
            sample_weight: Weights `(...)`.
        """
        reached = self.distribution.cdf(y_true, ops.convert_to_tensor(y_pred))
        weight = ops.ones_like(reached)
        if sample_weight is not None:
            weight = weight * ops.cast(sample_weight, "float32")[..., None]
        reached, weight = ops.reshape(reached, (-1, 1)), ops.reshape(weight, (-1, 1))
        levels = ops.convert_to_tensor(self._probabilities, "float32")
        below = ops.cast(reached <= levels, "float32")
        self.below.assign_add(ops.cast(ops.sum(weight * below, axis=0), self.dtype))
        self.count.assign_add(ops.cast(ops.sum(weight), self.dtype))

    def result(self) -> Any:
        """Returns the error, between 0 and 1."""
        share = ops.divide_no_nan(
            ops.convert_to_tensor(self.below), ops.convert_to_tensor(self.count)
        )
        expected = ops.cast(self._probabilities, self.dtype)
        seen = ops.cast(ops.convert_to_tensor(self.count) > 0, self.dtype)
        return seen * ops.mean(ops.abs(share - expected))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "levels": self.levels,
            "distribution": keras.saving.serialize_keras_object(self.distribution),
        }
