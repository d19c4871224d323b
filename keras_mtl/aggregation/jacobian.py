"""Sums over Jacobians that come as one tensor a variable."""

from collections.abc import Sequence
from typing import Any

from keras import ops


def gramian_of(jacobians: Sequence[Any], others: Sequence[Any] | None = None) -> Any:
    """Returns the Gramian `(T, T)`, summed variable by variable.

    Args:
        jacobians: Tensors `(T, ...)`.
        others: Tensors of the same shapes, for the products with another
            Jacobian. Defaults to the first.
    """
    total = 0.0
    for rows, columns in zip(jacobians, others or jacobians, strict=True):
        rows = ops.reshape(rows, (rows.shape[0], -1))
        columns = ops.reshape(columns, (columns.shape[0], -1))
        total = total + ops.matmul(rows, ops.transpose(columns))
    return total


def weighted_rows(jacobians: Sequence[Any], weights: Any) -> list[Any]:
    """Returns the weighted sum of the rows of each tensor."""
    return [ops.tensordot(weights, rows, axes=1) for rows in jacobians]


def present_rows(jacobians: Sequence[Any], present: Any) -> list[Any]:
    """Returns the tensors with zeros in the rows of absent tasks."""
    masked = []
    for rows in jacobians:
        here = along_rows(present, rows) > 0
        masked.append(ops.where(here, rows, ops.zeros_like(rows)))
    return masked


def along_rows(vector: Any, rows: Any) -> Any:
    """Returns a vector `(T,)` in a shape that broadcasts against `(T, ...)`."""
    return ops.reshape(vector, (-1,) + (1,) * (len(rows.shape) - 1))


def norms_of(jacobians: Sequence[Any]) -> Any:
    """Returns the norms of the tasks' gradients `(T,)`."""
    squares = 0.0
    for rows in jacobians:
        squares = squares + ops.sum(
            ops.square(ops.reshape(rows, (rows.shape[0], -1))), axis=1
        )
    return ops.sqrt(squares)


def safe_inverse(values: Any) -> Any:
    """Returns 1 / values, and 0 where they are not positive."""
    positive = values > 0
    return ops.where(positive, 1.0 / ops.where(positive, values, 1.0), 0.0)
