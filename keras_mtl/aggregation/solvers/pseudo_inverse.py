"""The pseudo-inverse of a correlation matrix."""

from typing import Any

from keras import ops

_RELATIVE_RANK = 1e-6


def apply_pseudo_inverse(correlation: Any, vector: Any) -> Any:
    """Returns $C^+ v$, leaving out directions that are 0 up to rounding.

    Args:
        correlation: C, symmetric, positive semidefinite `(T, T)`.
        vector: v `(T,)`.
    """
    values, vectors = ops.eigh(correlation)
    threshold = _RELATIVE_RANK * correlation.shape[0] * ops.max(values)
    kept = values > threshold
    inverse = ops.where(kept, 1.0 / ops.where(kept, values, 1.0), 0.0)
    coordinates = ops.matmul(ops.transpose(vectors), vector[:, None])[:, 0]
    return ops.matmul(vectors, (inverse * coordinates)[:, None])[:, 0]
