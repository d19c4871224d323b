"""A loss computed on the scale on which the labels have unit spread."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("keras_mtl")
class ScaledLoss(keras.losses.Loss):
    """Puts labels and predictions on a unit scale before it applies a loss.

    $$L(y, \\hat y) = \\ell\\left(\\frac{y - m}{s}, \\frac{\\hat y - m}{s}\\right)$$

    The losses of tasks in different units become comparable, while predictions
    and metrics stay in those units. `LabelScaler.loss` makes one from the labels.
    The mean and the scale are kept by value.

    Args:
        loss: Name of a Keras loss, a `keras.losses.Loss`, or a function of
            `(y_true, y_pred)` that returns a loss for each row.
        mean: Number, or one for each column of the labels.
        scale: Positive number, or one for each column of the labels.
        reduction: As in `keras.losses.Loss`. Defaults to that of `loss` where it is
            a `keras.losses.Loss`, else to `"sum_over_batch_size"`.
        name: Defaults to `"scaled_loss"`.

    Call arguments:
        y_true: Labels in the user's units, `(batch, ...)`.
        y_pred: Predictions in the user's units, of the same shape.

    Raises:
        ValueError: if a scale is not positive or a number not finite, or if `loss`
            is none.

    Example:

    ```python
    loss = keras_mtl.data.ScaledLoss("mse", mean=40.0, scale=10.0)
    print(float(loss(np.array([[40.0]]), np.array([[60.0]]))))  # 4.0
    ```
    """

    def __init__(
        self,
        loss: str | keras.losses.Loss | Callable,
        mean: float | Sequence[float],
        scale: float | Sequence[float],
        reduction: str | None = "from_loss",
        name: str = "scaled_loss",
    ):
        inner = keras.losses.get(loss)
        if not callable(inner):
            raise ValueError(
                "`loss` must be the name of a Keras loss, a keras.losses.Loss or a "
                f"function. Received: loss={loss!r}"
            )
        if reduction == "from_loss":
            reduction = getattr(inner, "reduction", "sum_over_batch_size")
        super().__init__(name=name, reduction=reduction)
        self._mean = np.asarray(mean, "float64")
        self._scale = np.asarray(scale, "float64")
        if not np.all(np.isfinite(self._mean)):
            raise ValueError(f"`mean` must be finite. Received: mean={mean}")
        if not np.all(np.isfinite(self._scale) & (self._scale > 0)):
            raise ValueError(
                f"`scale` must be positive and finite. Received: scale={scale}"
            )
        self._inner = inner

    def call(self, y_true, y_pred):
        """The loss of each row, on the unit scale."""
        compute = (
            self._inner.call
            if isinstance(self._inner, keras.losses.Loss)
            else self._inner
        )
        return compute(self._unit(y_true), self._unit(y_pred))

    def _unit(self, values):
        values = ops.cast(values, self.dtype)
        mean = ops.convert_to_tensor(self._mean, self.dtype)
        return (values - mean) / ops.convert_to_tensor(self._scale, self.dtype)

    def get_config(self) -> dict:
        """All arguments of the constructor."""
        return {
            **super().get_config(),
            "loss": keras.losses.serialize(self._inner),
            "mean": self._mean.tolist(),
            "scale": self._scale.tolist(),
        }

    @classmethod
    def from_config(cls, config: dict) -> "ScaledLoss":
        """Makes the loss that `get_config` described."""
        return cls(**{**config, "loss": keras.losses.deserialize(config["loss"])})
