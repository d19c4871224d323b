"""The part of data, and of arguments by task, that is of some tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras


def only_tasks(data: Any, tasks: Sequence[str]) -> Any:
    """Returns data with the labels, and sample weights, of some tasks alone.

    Args:
        data: `(x, y)` or `(x, y, sample_weight)` of arrays, where `y` is a dict by
            task; or a dataset of such batches, with `None` in place of `y`.
        tasks: Names of the tasks.

    Raises:
        ValueError: If labels are no dict with the tasks, or the dataset is of a kind
            that is not known here.
    """
    if isinstance(data, tuple | list):
        x, *rest = data
        if not rest or rest[0] is None:
            return _only_of_dataset(x, tasks), None
        return x, *(_pick(each, tasks) for each in rest)
    return _only_of_dataset(data, tasks)


def task_names_of(data: Any) -> list[str]:
    """Returns the tasks that data have labels of, in their order.

    Args:
        data: As for `only_tasks`.

    Raises:
        ValueError: If labels are no dict, or the dataset is of a kind that is not known
            here.
    """
    if isinstance(data, tuple | list):
        labels = data[1] if len(data) > 1 else None
    elif isinstance(data, keras.utils.PyDataset):
        labels = data[0][1]
    else:
        labels = getattr(data, "element_spec", (None, None))[1]
    if not isinstance(labels, Mapping):
        raise ValueError(
            "Training data must be arrays `(x, y)`, a keras.utils.PyDataset or a "
            "tf.data.Dataset of batches, with labels in a dict by task. "
            f"Received: {type(data).__name__} with labels of {type(labels).__name__}"
        )
    return list(labels)


def of_tasks(given: Any, tasks: Sequence[str]) -> Any:
    """Returns the part of a dict by task that is of these tasks."""
    if isinstance(given, Mapping) and "class_name" not in given:
        return {task: value for task, value in given.items() if task in tasks}
    return given


def _only_of_dataset(dataset: Any, tasks: Sequence[str]) -> Any:
    if isinstance(dataset, keras.utils.PyDataset):
        return _OfTasks(dataset, tasks)
    if hasattr(dataset, "element_spec") and hasattr(dataset, "map"):
        return dataset.map(lambda x, *rest: (x, *(_pick(each, tasks) for each in rest)))
    raise ValueError(
        "Training data must be arrays with labels by task, a keras.utils.PyDataset or "
        f"a tf.data.Dataset. Received: {type(dataset)}"
    )


def _pick(given: Any, tasks: Sequence[str]) -> Any:
    if not isinstance(given, Mapping) or any(task not in given for task in tasks):
        raise ValueError(
            "Labels, and sample weights, must be a dict with the tasks "
            f"{list(tasks)}. Received: "
            f"{sorted(given) if isinstance(given, Mapping) else type(given)}"
        )
    return {task: given[task] for task in tasks}


class _OfTasks(keras.utils.PyDataset):
    """Batches of another dataset, with the labels of some tasks."""

    def __init__(self, dataset: keras.utils.PyDataset, tasks: Sequence[str]) -> None:
        super().__init__()
        self.dataset = dataset
        self.tasks = list(tasks)

    @property
    def num_batches(self) -> int | None:
        return self.dataset.num_batches

    def __getitem__(self, index: int) -> Any:
        x, *rest = self.dataset[index]
        return x, *(_pick(each, self.tasks) for each in rest)

    def on_epoch_begin(self) -> None:
        self.dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.dataset.on_epoch_end()
