"""The logarithm of a loss that may be zero."""

from typing import Any

from keras import ops


def log_losses(losses: Any, epsilon: float) -> Any:
    """Returns `log(max(losses, 0) + epsilon)`.

    A loss that is zero or negative passes no gradient: the slope at zero is
    `1 / epsilon`, and would let a solved task rule the update.
    """
    return ops.log(ops.relu(losses) + epsilon)


def log_losses_slope(losses: Any, epsilon: float) -> Any:
    """Returns the derivative of `log_losses`: 0 where a loss is not positive."""
    return ops.cast(losses > 0, "float32") / (ops.relu(losses) + epsilon)
