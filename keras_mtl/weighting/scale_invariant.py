"""The sum of the logarithms of the losses."""

from typing import Any

import keras

from keras_mtl.argument_checks import check_number
from keras_mtl.weighting.log_losses import log_losses, log_losses_slope
from keras_mtl.weighting.weighting import Weighting


@keras.saving.register_keras_serializable("keras_mtl")
class ScaleInvariant(Weighting):
    """The sum of the logarithms of the losses (SI).

    $$ L = \\sum_k \\log(L_k + \\epsilon), \\qquad w_k = \\frac{1}{L_k + \\epsilon} $$

    Multiplying a loss by a constant changes no gradient: a relative gain counts
    alike in every task. It has no state. Losses must be positive: one that is
    zero or negative has weight 0 and is not trained. A loss just above zero
    takes over the update, up to the weight `1 / epsilon`.

    Args:
        epsilon: Float, added to each loss. Losses far above it are treated
            exactly. Defaults to `1e-8`.
        name: String, optional. Name of the layer.

    Raises:
        ValueError: If `epsilon` is not positive.

    Example:

    ```python
    weighting = keras_mtl.weighting.ScaleInvariant()
    losses = np.array([0.5, 20.0], "float32")
    weighted, weights = weighting(losses, return_weights=True)
    weights  # [2.0, 0.05]
    ```

    Reference:
        Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022
        (there a baseline), https://arxiv.org/abs/2202.01017
    """

    def __init__(self, epsilon: float = 1e-8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = check_number("epsilon", epsilon, above=0)

    def task_weights(self, losses: Any, present: Any, training: bool) -> Any:
        """Returns the inverse losses."""
        return log_losses_slope(losses, self.epsilon)

    def objective(self, losses: Any, present: Any, weights: Any) -> Any:
        """Returns the logarithms of the losses."""
        return log_losses(losses, self.epsilon)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "epsilon": self.epsilon}
