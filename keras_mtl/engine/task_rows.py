"""The gradients of the tasks by one tensor."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_mtl.engine.stages import OuterProduct

_FEW_TASKS = 3
"""Up to so many tasks, products of pairs of rows beat one product of a matrix."""


class Rows:
    """The gradients of T tasks by one tensor, None for a task that has none.

    Args:
        by_task: The gradients.
        shape: Their shape. Defaults to that of those that are there.
    """

    def __init__(
        self, by_task: Sequence[Any], shape: tuple[int, ...] | None = None
    ) -> None:
        self.by_task = list(by_task)
        self._shape = shape

    @functools.cached_property
    def there(self) -> list[int]:
        """Positions of the tasks that have a gradient."""
        return [t for t, row in enumerate(self.by_task) if row is not None]

    @functools.cached_property
    def rows(self) -> list[Any]:
        """The gradients that are there, float32."""
        return [ops.cast(self.by_task[t], "float32") for t in self.there]

    @functools.cached_property
    def matrix(self) -> Any:
        """Those gradients as the rows of a matrix."""
        return ops.reshape(ops.stack(self.rows), (len(self.there), -1))

    @property
    def in_factors(self) -> bool:
        """Whether the gradients are products that are not multiplied out."""
        return bool(self.there) and isinstance(
            self.by_task[self.there[0]], OuterProduct
        )

    @property
    def size(self) -> int:
        """The number of elements of a gradient, of which the shape is known."""
        return math.prod(self._shape)

    def flat(self, task: int) -> Any:
        """Returns a gradient as a float32 vector, zeros for a task without one."""
        row = self.by_task[task]
        if row is None:
            return ops.zeros((self.size,), "float32")
        return ops.cast(ops.reshape(row, (-1,)), "float32")

    def gramian(self) -> Any:
        """Returns the products of all pairs, `(T, T)`, 0 for tasks without a row."""
        size, count = len(self.by_task), len(self.there)
        if not count:
            return ops.zeros((size, size), "float32")
        if self.in_factors:
            products = self._gramian_by_rows()
        elif count > _FEW_TASKS:
            products = ops.matmul(self.matrix, ops.transpose(self.matrix))
        else:
            pairs = {
                (i, j): ops.sum(self.rows[i] * self.rows[j])
                for i in range(count)
                for j in range(i, count)
            }
            products = [
                [pairs[min(i, j), max(i, j)] for j in range(count)]
                for i in range(count)
            ]
            products = ops.stack([ops.stack(row) for row in products])
        if count < size:
            place = np.zeros((size, count), "float32")
            place[self.there, range(count)] = 1.0
            products = ops.matmul(ops.matmul(place, products), place.T)
        return products

    def _gramian_by_rows(self) -> Any:
        """Returns the products `tr(D_i^T A A^T D_j)` of gradients `A^T D_i`."""
        inputs = ops.cast(self.by_task[self.there[0]].inputs, "float32")
        cotangents = ops.stack(
            [ops.cast(self.by_task[t].cotangent, "float32") for t in self.there]
        )
        kernel = ops.matmul(inputs, ops.transpose(inputs))
        shape = (len(self.there), -1)
        return ops.matmul(
            ops.reshape(ops.matmul(kernel, cotangents), shape),
            ops.transpose(ops.reshape(cotangents, shape)),
        )

    def weighted_sum(self, weights: Any) -> Any:
        """Returns the weighted sum of the gradients."""
        if len(self.there) > _FEW_TASKS:
            weights = ops.take(weights, np.array(self.there), axis=0)
            total = ops.matmul(weights[None], self.matrix)
            return ops.reshape(total, ops.shape(self.rows[0]))
        weights = ops.unstack(weights, len(self.by_task))
        total = 0.0
        for task, row in zip(self.there, self.rows, strict=True):
            total = total + weights[task] * row
        return total

    def stacked(self) -> Any:
        """Returns all gradients, zeros for a task without one, `(T, ...)`."""
        shape = self._shape or ops.shape(self.rows[0])
        zero = ops.zeros(shape, "float32")
        rows = [zero] * len(self.by_task)
        for task, row in zip(self.there, self.rows, strict=True):
            rows[task] = row
        return ops.stack(rows)

    def like(self, update: Any) -> Any:
        """Returns an update in the dtype that the gradients came in."""
        return ops.cast(update, self.by_task[self.there[0]].dtype)
