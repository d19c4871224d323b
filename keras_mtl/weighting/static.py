"""Weights chosen by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_mtl.argument_checks import check_number
from keras_mtl.weighting.per_task_weighting import PerTaskWeighting, values_of


@keras.saving.register_keras_serializable("keras_mtl")
class Static(PerTaskWeighting):
    """Fixed weights, chosen by hand.

    $$ L = \\sum_k \\lambda_k L_k $$

    The weights are held in the variable `task_weight` of shape `(T,)`, which is
    not trained: `weighting.task_weight.assign([1.0, 0.2])` changes them between
    steps without compiling again, and they are saved with the model. Losses may
    be of any sign.

    Args:
        weights: The weight of each task: a number for all, a list or array in
            the order of the losses, or a dict by task name (1 for a task left
            out). Finite and not negative. Defaults to `None`: 1 for each.
        name: String, optional. Name of the layer.

    Raises:
        ValueError: If a weight is negative or not finite, if their number is
            not that of the tasks, or if a dict names a task that there is not.

    Example:

    ```python
    weighting = keras_mtl.weighting.Static([2.0, 0.1])
    weighting(np.array([0.5, 20.0], "float32"))  # [1.0, 2.0]
    ```
    """

    def __init__(
        self,
        weights: float | Sequence[float] | Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__({"weights": weights}, **kwargs)
        for weight in values_of(weights):
            check_number("weights", weight, at_least=0)

    def build(self, losses_shape: tuple[int, ...]) -> None:
        """Creates the weights."""
        super().build(losses_shape)
        values = self.per_task("weights", 1.0)
        self.task_weight = self.add_per_task_state("task_weight", values)

    def task_weights(self, losses: Any, present: Any, training: bool) -> Any:
        """Returns the weights that were chosen."""
        return self.task_weight
