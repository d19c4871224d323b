"""Weights as a function of the step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_number
from keras_mtl.weighting.per_task_weighting import (
    PerTaskWeighting,
    is_dict,
    plain,
    values_of,
)


@keras.saving.register_keras_serializable("keras_mtl")
class Schedule(PerTaskWeighting):
    """Weights that are a function of the training step.

    $$ L = \\sum_k w_k(t) \\, L_k $$

    for an auxiliary task that fades out, a task that starts late, a curriculum.
    The step t is counted by a variable of the layer, from 0 at the first
    training step: it is saved with the model, and evaluation does not move it.
    With gradient accumulation it counts the small batches. Losses may be of any
    sign.

    Args:
        schedule: Either the weight of each task, a list or a dict by task name
            (1 for a task left out) of floats and of functions of the step that
            return a scalar, such as those of `keras.optimizers.schedules`; or
            one function for all, which returns a scalar, a tensor or list of
            shape `(T,)` or a dict by task name. A function gets the step as a
            float32 scalar tensor and is traced: write it with `keras.ops`. To be
            saved it must be registered, by
            `keras.saving.register_keras_serializable`.
        name: String, optional. Name of the layer.

    Raises:
        ValueError: If a weight is neither a finite number nor a function, if
            there are not as many weights as tasks, or if a dict names a task
            that there is not.

    Example:

    ```python
    fade_out = keras.optimizers.schedules.PolynomialDecay(1.0, 1000, 0.0)
    weighting = keras_mtl.weighting.Schedule([1.0, fade_out])
    weighting(np.array([0.5, 20.0], "float32"), training=True)  # [0.5, 20.0]
    weighting(np.array([0.5, 20.0], "float32"), training=True)  # [0.5, 19.98]


    def start_late(step):
        return ops.where(step < 100, ops.array([1.0, 0.0]), ops.array([1.0, 1.0]))


    weighting = keras_mtl.weighting.Schedule(start_late)
    weighting(np.array([0.5, 20.0], "float32"), training=True)  # [0.5, 0.0]
    ```
    """

    def __init__(
        self,
        schedule: Callable[[Any], Any]
        | Sequence[float | Callable[[Any], Any]]
        | Mapping[str, float | Callable[[Any], Any]],
        **kwargs: Any,
    ) -> None:
        super().__init__({"schedule": schedule}, **kwargs)
        if not values_of(schedule):
            raise ValueError(
                "`schedule` must be a function of the step, or a list or dict of "
                f"weights and functions. Received: schedule={schedule!r}"
            )
        for weight in values_of(schedule):
            if not callable(weight):
                check_number("schedule", weight)

    def build(self, losses_shape: tuple[int, ...]) -> None:
        """Creates the counter of the steps."""
        super().build(losses_shape)
        self._one_for_all = callable(self._per_task["schedule"])
        self._schedules = self.per_task("schedule", 1.0)
        self.step = self.add_weight(
            name="step",
            shape=(),
            initializer="zeros",
            trainable=False,
            dtype="int32",  # float32 stops counting at 2 ** 24
            aggregation="only_first_replica",
        )

    def task_weights(self, losses: Any, present: Any, training: bool) -> Any:
        """Returns the weights at the step."""
        step = ops.cast(self.step.value, "float32")
        if not self._one_for_all:
            return stacked([w(step) if callable(w) else w for w in self._schedules])
        weights = self._schedules[0](step)
        if is_dict(weights):
            weights = stacked(self._in_order(weights))
        elif isinstance(weights, list | tuple):
            weights = stacked(weights)
        weights = ops.cast(weights, "float32")
        if tuple(weights.shape) not in ((), (self.num_tasks,)):
            raise ValueError(
                "The function `schedule` of Schedule must return a scalar or a "
                f"tensor of shape ({self.num_tasks},). Received: a result of shape "
                f"{tuple(weights.shape)}"
            )
        return ops.broadcast_to(weights, (self.num_tasks,))

    def update(self, losses: Any, present: Any, weights: Any) -> None:
        """Counts the step."""
        self.step.assign(self.step + 1)

    def _in_order(self, weights: Mapping[str, Any]) -> list[Any]:
        """Returns the weights of a dict by task name in the order of the losses."""
        names = self.task_names
        if names is None or set(weights) - set(names):
            raise ValueError(
                "The function `schedule` of Schedule returned a dict by task name, "
                f"whose keys must be among the tasks {names} of the model. Received: "
                f"keys {list(weights)}"
            )
        return [weights.get(name, 1.0) for name in names]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, with functions by their registered names."""
        schedule = plain(self._per_task["schedule"])
        return {**super().get_config(), "schedule": serialized(schedule)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Schedule":
        """Makes the weighting that `get_config` told of."""
        return cls(**{**config, "schedule": deserialized(config["schedule"])})


def stacked(weights: Sequence[Any]) -> Any:
    """Returns scalars as a vector."""
    return ops.stack([ops.cast(weight, "float32") for weight in weights])


def serialized(schedule: Any) -> Any:
    """Returns the argument with functions and objects by their names."""
    if is_dict(schedule):
        return {name: serialized(weight) for name, weight in schedule.items()}
    if isinstance(schedule, list):
        return [serialized(weight) for weight in schedule]
    return keras.saving.serialize_keras_object(schedule)


def deserialized(schedule: Any) -> Any:
    """Returns the argument that `serialized` was given."""
    if is_dict(schedule) and not {"class_name", "config"} <= set(schedule):
        return {name: deserialized(weight) for name, weight in schedule.items()}
    if isinstance(schedule, list):
        return [deserialized(weight) for weight in schedule]
    return keras.saving.deserialize_keras_object(schedule)
