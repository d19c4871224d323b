"""A value given the gradient of a linear function of the losses."""

from typing import Any

from keras import ops


def value_with_slope(value: Any, losses: Any, weights: Any) -> Any:
    """Returns `value`, with `weights` for its derivative by `losses`.

    An objective that mixes the losses is handed out in parts of which each passes
    the gradient of its own task only: what a part is multiplied by then bears on
    that task.

    Args:
        value: Tensor of shape `(T,)` or a scalar for all tasks.
        losses: Float tensor of shape `(T,)`.
        weights: Float tensor of shape `(T,)`.
    """
    return ops.stop_gradient(value) + weights * (losses - ops.stop_gradient(losses))
