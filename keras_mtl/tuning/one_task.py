"""The part of data that is of one task."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras


def only_task(data: Any, task: str) -> Any:
    """Returns data with the labels, and sample weights, of one task alone.

    Args:
        data: `(x, y)` or `(x, y, sample_weight)` of arrays, where `y` is a dict by
            task; or a dataset of such batches, with `None` in place of `y`.
        task: Name of the task.

    Raises:
        ValueError: If labels are no dict with the task, or the dataset is of a kind
            that is not known here.
    """
    if isinstance(data, tuple | list):
        x, *rest = data
        if not rest or rest[0] is None:
            return _only_of_dataset(x, task), None
        return x, *(_pick(each, task) for each in rest)
    return _only_of_dataset(data, task)


def of_tasks(given: Any, tasks: Sequence[str]) -> Any:
    """Returns the part of a dict by task that is of these tasks."""
    if isinstance(given, Mapping) and "class_name" not in given:
        return {task: value for task, value in given.items() if task in tasks}
    return given


def _only_of_dataset(dataset: Any, task: str) -> Any:
    if isinstance(dataset, keras.utils.PyDataset):
        return _OneTask(dataset, task)
    if hasattr(dataset, "element_spec") and hasattr(dataset, "map"):
        return dataset.map(lambda x, *rest: (x, *(_pick(each, task) for each in rest)))
    raise ValueError(
        "Training data must be arrays with labels by task, a keras.utils.PyDataset or "
        f"a tf.data.Dataset. Received: {type(dataset)}"
    )


def _pick(given: Any, task: str) -> Any:
    if not isinstance(given, Mapping) or task not in given:
        raise ValueError(
            f"Labels, and sample weights, must be a dict with the task {task!r}. "
            f"Received: {sorted(given) if isinstance(given, Mapping) else type(given)}"
        )
    return {task: given[task]}


class _OneTask(keras.utils.PyDataset):
    """Batches of another dataset, with the labels of one task."""

    def __init__(self, dataset: keras.utils.PyDataset, task: str) -> None:
        super().__init__()
        self.dataset = dataset
        self.task = task

    @property
    def num_batches(self) -> int | None:
        return self.dataset.num_batches

    def __getitem__(self, index: int) -> Any:
        x, *rest = self.dataset[index]
        return x, *(_pick(each, self.task) for each in rest)

    def on_epoch_begin(self) -> None:
        self.dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.dataset.on_epoch_end()
