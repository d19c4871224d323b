"""The metric "accuracy", which means what the shapes say."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_mtl")
class ShapeDispatchedAccuracy(keras.metrics.Mean):
    """Accuracy: binary, sparse or categorical by the shapes of the first batch.

    Predictions with one column are binary, with a threshold of 0.5; labels with one
    axis less than the predictions, or with one column, are class indices; other
    labels are one-hot. It is what the string "accuracy" means in Keras, where the
    choice is made before the metric is.

    Args:
        name: String, optional.
        dtype: Optional dtype of the sums.

    Example:

    ```python
    metric = keras_mtl.metrics.ShapeDispatchedAccuracy()
    metric.update_state(np.array([1, 0]), np.array([[0.1, 0.9], [0.2, 0.8]]))
    float(metric.result())  # 0.5
    ```
    """

    def __init__(self, name: str = "accuracy", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds one value a row.

        Args:
            y_true: Labels, `(..., 1)`, `(...)` or `(..., classes)`.
            y_pred: Predictions, `(..., 1)` or `(..., classes)`.
            sample_weight: Weights, `(...)`.
        """
        super().update_state(self.values(y_true, y_pred), sample_weight)

    def values(self, y_true: Any, y_pred: Any) -> Any:
        """Returns 1 for each row that is right, else 0 `(...)`."""
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        if y_pred.shape[-1] == 1:
            hit = ops.equal(ops.cast(y_true, "int32"), ops.cast(y_pred > 0.5, "int32"))
            return ops.mean(ops.cast(hit, "float32"), axis=-1)
        if len(y_true.shape) == len(y_pred.shape):
            one_column = y_true.shape[-1] == 1
            y_true = ops.squeeze(y_true, -1) if one_column else ops.argmax(y_true, -1)
        hit = ops.equal(
            ops.cast(y_true, "int32"), ops.cast(ops.argmax(y_pred, -1), "int32")
        )
        return ops.cast(hit, "float32")

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return super().get_config()
