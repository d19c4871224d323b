"""Examples of a support pooled to one vector, or to one for each class."""

from typing import Any

from keras import ops

_LOWEST = -1e9


def masked_mean(x: Any, mask: Any) -> Any:
    """Returns the mean of vectors that are there, in float32; zero of none.

    Args:
        x: Vectors `(B, S, D)`.
        mask: Whether each is there `(B, S)`.

    Returns:
        Means `(B, D)`.
    """
    weight = ops.cast(mask, "float32")[..., None]
    total = ops.sum(weight * ops.cast(x, "float32"), axis=1)
    return total / ops.maximum(ops.sum(weight, axis=1), 1.0)


def masked_max(x: Any, mask: Any) -> Any:
    """Returns the greatest of each feature of those that are there; zero of none.

    Args:
        x: Vectors `(B, S, D)`.
        mask: Whether each is there, `(B, S)`, or by class `(B, S, N)`.

    Returns:
        Vectors `(B, D)`, or `(B, N, D)`.
    """
    x = ops.cast(x, "float32")
    there = ops.cast(mask, "bool")
    if len(there.shape) == 3:
        x = x[:, :, None]  # B, S, 1, D
    there = there[..., None]
    greatest = ops.max(ops.where(there, x, _LOWEST), axis=1)
    return ops.where(ops.any(there, axis=1), greatest, 0.0)
