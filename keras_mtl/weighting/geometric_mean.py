"""The geometric mean of the losses."""

from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_number
from keras_mtl.weighting.log_losses import log_losses, log_losses_slope
from keras_mtl.weighting.value_with_slope import value_with_slope
from keras_mtl.weighting.weighting import Weighting


@keras.saving.register_keras_serializable("keras_mtl")
class GeometricMean(Weighting):
    """The geometric mean of the losses (geometric loss strategy, GLS).

    $$ L = \\Big( \\prod_k (L_k + \\epsilon) \\Big)^{1/K}, \\qquad
       w_k = \\frac{1}{K} \\frac{L}{L_k + \\epsilon} $$

    over the K tasks that are present, computed through logarithms: the product
    neither overflows nor vanishes. The direction of the update is that of
    `ScaleInvariant`; its length shrinks with the losses. It has no state.

    What is returned is `L / K` for each task that is present, with the gradient
    of that task's part: the sum has the value of the geometric mean and its
    gradient, and a preference multiplied to it bears on that task alone.

    Losses must be positive: one that is zero or negative counts as zero, has
    weight 0 and is not trained. One loss near zero makes the whole objective,
    and the update of the others, vanish.

    Args:
        epsilon: Float, added to each loss. Losses far above it are treated
            exactly. Defaults to `1e-8`.
        name: String, optional. Name of the layer.

    Raises:
        ValueError: If `epsilon` is not positive.

    Example:

    ```python
    weighting = keras_mtl.weighting.GeometricMean()
    losses = np.array([0.5, 8.0], "float32")
    weighted, weights = weighting(losses, return_weights=True)
    float(ops.sum(weighted))  # 2.0
    weights  # [2.0, 0.125]
    ```

    Reference:
        Chennupati et al., "MultiNet++: Multi-Stream Feature Aggregation and
        Geometric Loss Strategy for Multi-Task Learning", CVPR Workshops 2019,
        https://arxiv.org/abs/1904.08492
    """

    def __init__(self, epsilon: float = 1e-8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = check_number("epsilon", epsilon, above=0)

    def _share(self, losses: Any, present: Any) -> Any:
        """Returns `L / K`, a scalar."""
        count = ops.maximum(ops.sum(present), 1.0)
        logs = log_losses(losses, self.epsilon)
        return ops.exp(ops.sum(present * logs) / count) / count

    def task_weights(self, losses: Any, present: Any, training: bool) -> Any:
        """Returns the derivatives of the geometric mean."""
        return self._share(losses, present) * log_losses_slope(losses, self.epsilon)

    def objective(self, losses: Any, present: Any, weights: Any) -> Any:
        """Returns `L / K` for each task, with the gradient of its own part."""
        return value_with_slope(self._share(losses, present), losses, weights)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "epsilon": self.epsilon}
