"""Vectors of length one."""

from typing import Any

from keras import ops


def unit_vectors(x: Any) -> Any:
    """Returns vectors of the last axis at length one, in float32; zero stays zero.

    Scaled by their largest entry first, so that no square under- or overflows.
    """
    x = ops.cast(x, "float32")
    largest = ops.stop_gradient(ops.max(ops.abs(x), axis=-1, keepdims=True))
    x = x / ops.where(largest > 0, largest, 1.0)
    # Some entry is now 1, or all are 0.
    return x / ops.sqrt(ops.maximum(ops.sum(x * x, axis=-1, keepdims=True), 1.0))
