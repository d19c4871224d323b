"""The log-likelihood of labels, as a metric."""

from typing import Any

import keras
from keras import ops

from keras_mtl import distributions


@keras.saving.register_keras_serializable("keras_mtl")
class LogLikelihood(keras.metrics.Mean):
    """Mean log-likelihood of a query under its predicted distribution, in nats.

    $$ \\frac{1}{n} \\sum_{i=1}^{n} \\sum_{d=1}^{D_y} \\log p_{id}(y_{id}) $$

    Args:
        distribution: The `Distribution` of the predictions. Defaults to
            `"gaussian"`: means and scales.
        name: String, optional.

    Example:

    ```python
    metric = keras_mtl.metrics.LogLikelihood()
    metric.update_state(np.array([[0.0]]), np.array([[[0.0, 1.0]]]))
    float(metric.result())  # -0.919
    ```
    """

    def __init__(
        self,
        distribution: Any = "gaussian",
        name: str = "log_likelihood",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.distribution = distributions.get(distribution)

    def values(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the log-likelihood of each query `(...)`."""
        log_prob = self.distribution.log_prob(y_true, ops.convert_to_tensor(y_pred))
        return ops.sum(log_prob, axis=-1)

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
