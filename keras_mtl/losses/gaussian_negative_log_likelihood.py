"""How unlikely the labels are under a predicted mean and scale."""

from typing import Any

import keras

from keras_mtl.losses.negative_log_likelihood import NegativeLogLikelihood


@keras.saving.register_keras_serializable("keras_mtl")
class GaussianNegativeLogLikelihood(NegativeLogLikelihood):
    """The negative log-likelihood of labels under a mean and a scale, in nats.

    $$ L = \\sum_{d=1}^{D_y} \\frac{(y_d - \\mu_d)^2}{2 \\sigma_d^2} + \\log \\sigma_d
       + \\frac{1}{2} \\log 2 \\pi $$

    for each query, averaged over queries. It is computed in float32.

    Args:
        reduction: As of every Keras loss. Defaults to `"sum_over_batch_size"`.
        name: String, optional.

    Call arguments:
        y_true: Labels `(..., Dy)`.
        y_pred: Means and scales `(..., Dy, 2)`, what a regression learner returns.

    Example:

    ```python
    loss = keras_mtl.losses.GaussianNegativeLogLikelihood()
    float(loss(np.array([[0.0]]), np.array([[[0.0, 1.0]]])))  # 0.919
    ```

    Reference:
        Nix and Weigend, "Estimating the Mean and Variance of the Target Probability
        Distribution", ICNN 1994, https://doi.org/10.1109/ICNN.1994.374138
    """

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "gaussian",
            reduction,
            name or "gaussian_negative_log_likelihood",
            dtype,
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        del config["distribution"]
        return config
