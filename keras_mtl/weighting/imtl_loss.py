"""Loss balance of impartial multi-task learning."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_number
from keras_mtl.weighting.bounded import Bounded
from keras_mtl.weighting.per_task_weighting import (
    PerTaskWeighting,
    starting_at,
    values_of,
)


@keras.saving.register_keras_serializable("keras_mtl")
class IMTLLoss(PerTaskWeighting):
    """The loss balance of impartial multi-task learning (IMTL-L).

    With a trained log-scale s for each task,

    $$ L = \\sum_k \\left( e^{s_k} L_k - s_k \\right), \\qquad w_k = e^{s_k} $$

    At the best s every scaled loss `exp(s) L` is 1, so that `w = 1 / L`:
    `ScaleInvariant`, `Uncertainty` and this method share that fixed point and
    differ on the way to it.

    The variable `log_scale` of shape `(T,)` is trained by the model's optimiser;
    `MultiTaskModel` leaves it out of weight decay, which would pull it to 0. An
    absent task gives its s no gradient (momentum of the optimiser may still move
    it). Losses may be zero.
    A loss that is negative for long drives its s to the bound.

    Args:
        initial_log_scale: The s to start from: a float for all tasks, a list or
            a dict by task name (0 for a task left out). Defaults to `0.0`.
        max_log_scale: Float. s is clipped to this on either side of 0 after
            each step, which keeps `exp(s)` finite where a loss is exactly zero.
            The default, `30.0`, leaves room for losses from 1e-13 to 1e13.
        name: String, optional. Name of the layer.

    Raises:
        ValueError: If an initial value is beyond `max_log_scale`, if there are
            not as many values as tasks, or if a dict names a task that there is
            not.

    Example:

    ```python
    weighting = keras_mtl.weighting.IMTLLoss(initial_log_scale=[0.0, -3.0])
    weighted = weighting(np.array([0.5, 20.0], "float32"))  # [0.5, 3.996]
    ```

    Reference:
        Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021,
        https://openreview.net/forum?id=IMPnRXEWpvr
    """

    def __init__(
        self,
        initial_log_scale: float | Sequence[float] | Mapping[str, float] = 0.0,
        max_log_scale: float = 30.0,
        **kwargs: Any,
    ) -> None:
        super().__init__({"initial_log_scale": initial_log_scale}, **kwargs)
        max_log_scale = check_number("max_log_scale", max_log_scale, above=0)
        for value in values_of(initial_log_scale):
            check_number(
                "initial_log_scale",
                value,
                at_least=-max_log_scale,
                at_most=max_log_scale,
            )
        self.max_log_scale = max_log_scale

    def build(self, losses_shape: tuple[int, ...]) -> None:
        """Creates the log-scales."""
        super().build(losses_shape)
        self.log_scale = self.add_weight(
            name="log_scale",
            shape=(self.num_tasks,),
            initializer=starting_at(self.per_task("initial_log_scale", 0.0)),
            constraint=Bounded(self.max_log_scale),
            trainable=True,
            dtype="float32",
        )

    def task_weights(self, losses: Any, present: Any, training: bool) -> Any:
        """Returns the scales."""
        return ops.exp(self.log_scale.value)

    def objective(self, losses: Any, present: Any, weights: Any) -> Any:
        """Returns the scaled losses with the penalty of which s is learned."""
        return ops.exp(self.log_scale.value) * losses - self.log_scale

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "max_log_scale": self.max_log_scale}
