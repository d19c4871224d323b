"""What the loaders of data sets return."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from keras_mtl.datasets.loader_arguments import check_tasks


class Split(NamedTuple):
    """Inputs and labels, as `fit(*split)` and `validation_data=split` take them."""

    x: Any
    y: dict[str, np.ndarray]


@dataclass(frozen=True)
class MultiTaskData:
    """A data set of several tasks, split for training, validation and test.

    Args:
        name: Name of the data set.
        train: `Split(x, y)`: inputs (an array or a dict of arrays) and labels (a
            dict from task name to an array), rows on the first axis.
        validation: As `train`.
        test: As `train`.
        meta: What else is known: names of features, number of categories, how
            missing labels are marked, where the file was found.

    Example:

    ```python
    x, y = np.zeros((6, 2)), np.zeros(6)
    parts = [
        keras_mtl.datasets.Split(x[rows], {"a": y[rows]})
        for rows in (slice(0, 3), slice(3, 4), slice(4, 6))
    ]
    data = keras_mtl.datasets.MultiTaskData("zeros", *parts)
    print(data.task_names, data.sizes)  # ['a'] {'train': 3, 'validation': 1, ...
    ```
    """

    name: str
    train: Split
    validation: Split
    test: Split
    meta: dict[str, Any] = field(default_factory=dict)

    def select(self, tasks: Sequence[str]) -> "MultiTaskData":
        """The same data with the labels of some tasks only.

        Args:
            tasks: Names of tasks, in the order to give them.

        Returns:
            A `MultiTaskData` that shares the arrays of this one.

        Raises:
            ValueError: for a task that is not there, or is named twice.
        """
        check_tasks(tasks, self.task_names)
        splits = {
            name: Split(x, {task: y[task] for task in tasks})
            for name, (x, y) in self._splits().items()
        }
        return replace(self, **splits)

    @property
    def task_names(self) -> list[str]:
        """The tasks, in the order of the labels."""
        return list(self.train.y)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of rows of each split."""
        return {
            name: len(next(iter(split.y.values())))
            for name, split in self._splits().items()
        }

    def _splits(self):
        names = ("train", "validation", "test")
        return {name: getattr(self, name) for name in names}
