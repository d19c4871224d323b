"""Regression tasks from data in groups."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mtl.data.class_split import ClassSubset
from keras_mtl.data.class_table import ClassTable


class GroupedRows:
    """Tasks that are the groups of a table, for `RegressionEpisodes`.

    A task is a group, such as a user, a patient or a sensor, drawn evenly from all; its
    points are different rows of the group.

    Args:
        x: Array `(n, ...)`, the inputs.
        y: Array `(n,)` or `(n, ...)`, what is to be predicted.
        groups: Array `(n,)`, the group of each row.
        chosen: The groups to draw from: a list, or a part of a `ClassSplit`. Defaults
            to `None`, all.

    Raises:
        ValueError: If arrays differ in length, or a group has no row.

    Example:

    ```python
    x, y = np.zeros((60, 3)), np.zeros(60)
    tasks = keras_mtl.data.GroupedRows(x, y, groups=np.repeat(np.arange(6), 10))
    x, y = tasks.draw(np.random.default_rng(0), num_tasks=4, num_points=8)
    assert (x.shape, y.shape) == ((4, 8, 3), (4, 8, 1))
    ```
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        groups: Any,
        chosen: Sequence[Any] | ClassSubset | None = None,
    ) -> None:
        if not len(x) == len(y) == len(groups):
            raise ValueError(
                "`x`, `y` and `groups` must have as many rows. "
                f"Received: {len(x)}, {len(y)} and {len(groups)}"
            )
        self._x = x
        self._y = y
        if isinstance(chosen, ClassSubset):
            chosen = chosen.classes
        self._table = ClassTable(groups, chosen)

    def check_points(self, num_points: int) -> None:
        """Checks that every group has so many rows.

        Raises:
            ValueError: If one has fewer.
        """
        few = self._table.counts < num_points
        if few.any():
            name = self._table.classes[few][0].item()
            raise ValueError(
                f"Every group must have {num_points} rows, for shots and queries. "
                f"Received: {int(self._table.counts.min())} rows of group {name!r}; "
                f"{int(few.sum())} groups have fewer"
            )

    def draw(
        self, generator: np.random.Generator, num_tasks: int, num_points: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns points x and y of tasks, `(num_tasks, num_points, ...)`."""
        self.check_points(num_points)
        rows, counts = self._table.rows, self._table.counts
        group = generator.integers(len(counts), size=num_tasks)
        keys = generator.uniform(size=(num_tasks, rows.shape[1]))
        keys = np.where(np.arange(rows.shape[1]) < counts[group, None], keys, 2.0)
        place = np.argsort(keys, axis=-1)[:, :num_points]
        chosen = rows[group[:, None], place]
        y = np.asarray(self._y[chosen.reshape(-1)])
        y = y.reshape(*chosen.shape, *(y.shape[1:] or (1,)))
        x = np.asarray(self._x[chosen.reshape(-1)])
        return x.reshape(*chosen.shape, *(x.shape[1:] or (1,))), y
