"""How unlikely the labels are under what was predicted."""

from typing import Any

import keras
from keras import ops

from keras_mtl import distributions


@keras.saving.register_keras_serializable("keras_mtl")
class NegativeLogLikelihood(keras.losses.Loss):
    """The negative log-likelihood of labels under predicted distributions, in nats.

    $$ L = -\\sum_{d=1}^{D_y} \\log p_d(y_d) $$

    for each query, averaged over queries. It is computed in float32.

    Args:
        distribution: The `Distribution` that the learner was made with, or
            `"gaussian"`.
        reduction: As of every Keras loss. Defaults to `"sum_over_batch_size"`.
        name: String, optional.

    Call arguments:
        y_true: Labels `(..., Dy)`.
        y_pred: What the learner returned, `(..., Dy, parameters)`.

    Raises:
        ValueError: If the shapes do not fit.

    Example:

    ```python
    bar = keras_mtl.distributions.Bar([-2.0, -1.0, 0.0, 1.0, 2.0])
    loss = keras_mtl.losses.NegativeLogLikelihood(bar)
    float(loss(np.array([[0.5]]), np.zeros((1, 1, 4))))  # log 4 = 1.386
    ```

    Reference:
        Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and
        Estimation", JASA 2007, https://doi.org/10.1198/016214506000001437
    """

    def __init__(
        self,
        distribution: Any = "gaussian",
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        # Half precision would round the labels: the losses of Keras compute in
        # float32 unless they are told otherwise.
        super().__init__(
            name=name or "negative_log_likelihood",
            reduction=reduction,
            dtype=dtype or "float32",
        )
        self.distribution = distributions.get(distribution)
        if self.distribution is None:
            raise ValueError(
                "`distribution` must be that of the learner. "
                "Received: distribution=None"
            )

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns one loss a query."""
        log_prob = self.distribution.log_prob(y_true, parameters_of(y_true, y_pred))
        return -ops.sum(log_prob, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "distribution": keras.saving.serialize_keras_object(self.distribution),
        }


def parameters_of(y_true: Any, y_pred: Any) -> Any:
    """Returns the parameters, checked to be one vector for each label."""
    labels, described = tuple(y_true.shape), tuple(y_pred.shape[:-1])
    fits = len(labels) == len(described) and all(
        a is None or b is None or a == b for a, b in zip(labels, described, strict=True)
    )
    if not fits:
        raise ValueError(
            "Predicted distributions must have the shape of the labels and one more "
            f"axis, of parameters. Received: labels of shape {labels}, "
            f"predictions of shape {tuple(y_pred.shape)}"
        )
    return y_pred
