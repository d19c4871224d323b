"""The squared error of a predicted mean, as a metric."""

from typing import Any

import keras
from keras import ops

from keras_mtl import distributions


@keras.saving.register_keras_serializable("keras_mtl")
class SquaredErrorOfMean(keras.metrics.Mean):
    """Mean squared error of the means of predicted distributions.

    $$ \\frac{1}{n D_y} \\sum_{i=1}^{n} \\sum_{d=1}^{D_y} (y_{id} - \\mu_{id})^2 $$

    It is what `"mse"` is for plain predictions.

    Args:
        distribution: The `Distribution` of the predictions. Defaults to
            `"gaussian"`: means and scales.
        name: String, optional.

    Example:

    ```python
    metric = keras_mtl.metrics.SquaredErrorOfMean()
    metric.update_state(np.array([[2.0]]), np.array([[[0.0, 1.0]]]))
    float(metric.result())  # 4.0
    ```
    """

    def __init__(
        self, distribution: Any = "gaussian", name: str = "mse", dtype: Any = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.distribution = distributions.get(distribution)

    def values(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the squared error of each query `(...)`."""
        mean = self.distribution.mean(ops.convert_to_tensor(y_pred))
        return ops.mean((ops.cast(y_true, "float32") - mean) ** 2, axis=-1)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds queries.

        Args:
            y_true: Labels `(..., Dy)`.
            y_pred: Parameters of their distributions `(..., Dy, parameters)`.
            sample_weight: Weights `(...)`.
        """
        super().update_state(self.values(y_true, y_pred), sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "distribution": keras.saving.serialize_keras_object(self.distribution),
        }
