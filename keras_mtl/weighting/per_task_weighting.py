"""A weighting with arguments that are given task by task."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl.weighting.weighting import Weighting


class PerTaskWeighting(Weighting):
    """Base of the weightings that take a value for each task.

    Such an argument is one value for all tasks, a list with a value for each
    task in the order of the losses, or a dict by task name, in which a task
    that is left out has the default. A dict needs the names of the tasks: the
    model gives them by `set_task_names`, and they are saved with the layer.

    Args:
        per_task: Dict of such arguments by their name in the constructor. They
            are put into the config.
        name: String, optional. Name of the layer.
    """

    def __init__(self, per_task: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._per_task = {name: plain(given) for name, given in per_task.items()}

    def set_task_names(self, task_names: Sequence[str]) -> None:
        """Tells the weighting its tasks; see `Weighting.set_task_names`.

        Args:
            task_names: Names of the tasks, in the order of the losses.

        Raises:
            ValueError: If an argument names a task that there is not.
        """
        super().set_task_names(task_names)
        for argument, given in self._per_task.items():
            unknown = sorted(set(given) - set(task_names)) if is_dict(given) else []
            if unknown:
                raise ValueError(
                    f"`{argument}` of {type(self).__name__} names tasks that the "
                    f"model does not have: {unknown}. The tasks are "
                    f"{list(task_names)}. Received: {argument}={plain(given)}"
                )

    def per_task(self, argument: str, default: Any) -> list[Any]:
        """Returns the T values of an argument; for use in `build`.

        Args:
            argument: Name of the argument.
            default: Value of a task for which none is given.

        Raises:
            ValueError: If a list is not of length T, or if a dict was given and
                the names of the tasks are not known.
        """
        given = self._per_task[argument]
        if is_dict(given):
            if self._task_names is None:
                raise ValueError(
                    f"`{argument}` of {type(self).__name__} is a dict by task name, "
                    "which needs the names of the tasks: call `set_task_names` "
                    "before the first use (a model does so), or give a list. "
                    f"Received: {argument}={plain(given)}"
                )
            return [given.get(name, default) for name in self._task_names]
        if isinstance(given, list):
            if len(given) != self.num_tasks:
                raise ValueError(
                    f"`{argument}` of {type(self).__name__} must have one value for "
                    f"each of the {self.num_tasks} tasks. "
                    f"Received: {argument}={plain(given)}"
                )
            return list(given)
        return [default if given is None else given] * self.num_tasks

    def add_per_task_state(self, name: str, values: Sequence[float]) -> keras.Variable:
        """Adds a float32 variable that is not trained and starts at the values."""
        return self.add_state(name, initializer=starting_at(values))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that are given task by task."""
        return {**super().get_config(), **plain(self._per_task)}

    def get_build_config(self) -> dict[str, Any] | None:
        """Returns the number and the names of the tasks."""
        if not self.built:
            return None
        return {"input_shape": [self.num_tasks], "task_names": self.task_names}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Restores the names of the tasks, then builds.

        Args:
            config: What `get_build_config` returned.
        """
        if not config:
            return
        if config.get("task_names") is not None:
            self.set_task_names(config["task_names"])
        self.build(tuple(config["input_shape"]))


def is_dict(given: Any) -> bool:
    """Whether an argument was given by task name."""
    return isinstance(given, Mapping)


def plain(given: Any) -> Any:
    """Returns scalars, lists and dicts of Python values in place of arrays.

    Args:
        given: A scalar, a list, a tuple, an array or a dict of these.
    """
    if is_dict(given):
        return {name: plain(value) for name, value in given.items()}
    if isinstance(given, np.ndarray | np.generic):
        return given.tolist()
    if isinstance(given, list | tuple):
        return [plain(value) for value in given]
    return given


def values_of(given: Any) -> list[Any]:
    """Returns the values in a per-task argument, to check them: none of None."""
    given = plain(given)
    if is_dict(given):
        return list(given.values())
    if isinstance(given, list):
        return given
    return [] if given is None else [given]


def constant(values: Sequence[float]) -> Any:
    """Returns the values for use in `call`: one float where all are equal.

    A float costs no tensor at each step.
    """
    if len(set(values)) == 1:
        return float(values[0])
    return np.asarray(values, "float32")


def starting_at(values: Sequence[float]) -> Any:
    """Returns an initializer that gives these values."""
    values = np.asarray(values, "float32")
    return lambda shape, dtype=None: ops.convert_to_tensor(values, dtype)
