"""A constraint that keeps a trained log-scale where its exponential is finite."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_mtl")
class Bounded(keras.constraints.Constraint):
    """Clips a variable to an interval around zero after each optimiser step.

    $$ s \\leftarrow \\min(\\max(s, -b), b) $$

    Args:
        bound: Float, the half-width b of the interval.

    Example:

    ```python
    from keras_mtl.weighting.bounded import Bounded

    Bounded(30.0)(np.array([-100.0, 0.5, 31.0]))  # [-30.0, 0.5, 30.0]
    ```
    """

    def __init__(self, bound: float) -> None:
        self.bound = bound

    def __call__(self, w: Any) -> Any:
        """Returns the clipped values."""
        return ops.clip(ops.convert_to_tensor(w), -self.bound, self.bound)

    def get_config(self) -> dict[str, float]:
        """Returns the arguments."""
        return {"bound": self.bound}
