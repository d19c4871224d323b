"""How often labels are in the interval that was predicted for them."""

from typing import Any

import keras
from keras import ops

from keras_mtl import distributions
from keras_mtl.argument_checks import check_number


@keras.saving.register_keras_serializable("keras_mtl")
class IntervalCoverage(keras.metrics.Mean):
    """Share of labels within the central interval of their predicted distribution.

    A label is inside if $F(y)$, the predicted probability of no more, is between
    $(1 - c) / 2$ and $(1 + c) / 2$. Of a well calibrated predictor the share is c:
    less says that it is too sure of itself, more that it is not sure enough.

    Args:
        confidence: Number c between 0 and 1. Defaults to 0.95.
        distribution: The `Distribution` of the predictions. Defaults to
            `"gaussian"`: means and scales.
        name: String. Defaults to such as `"coverage_95"`.

    Raises:
        ValueError: If the confidence is out of range.

    Example:

    ```python
    metric = keras_mtl.metrics.IntervalCoverage()
    metric.update_state(np.array([[0.0], [3.0]]), np.array([[[0.0, 1.0]]] * 2))
    float(metric.result())  # 0.5
    ```
    """

    def __init__(
        self,
        confidence: float = 0.95,
        distribution: Any = "gaussian",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        self.confidence = check_number("confidence", confidence, above=0, at_most=1)
        name = name or f"coverage_{100 * confidence:g}"
        super().__init__(name=name, dtype=dtype)
        self.distribution = distributions.get(distribution)

    def values(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the share of the numbers of each query that are inside `(...)`."""
        reached = self.distribution.cdf(y_true, ops.convert_to_tensor(y_pred))
        inside = ops.abs(2 * reached - 1) <= self.confidence
        return ops.mean(ops.cast(inside, "float32"), axis=-1)

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
            "confidence": self.confidence,
            "distribution": keras.saving.serialize_keras_object(self.distribution),
        }
