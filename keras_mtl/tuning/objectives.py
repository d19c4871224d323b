"""Objectives of a search that are made of the logs of several tasks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras_tuner
import numpy as np

from keras_mtl.argument_checks import check_choice, check_number
from keras_mtl.metrics import RelativeImprovement

DIRECTIONS = ("min", "max")
COSTS = ("parameters", "step_seconds")


class LogObjective(keras_tuner.Objective):
    """An objective that is a function of the logs of an epoch.

    Args:
        name: Name of the objective.
        direction: `"min"` or `"max"`.
        needs: Names of the logs that it is made of.
        function: Function from a dict of these logs to a number.
        cost: Dict of the price of `"parameters"` and of `"step_seconds"`, which
            `SharingHyperModel` adds to the logs: what a doubling takes from the
            objective. Defaults to none.

    Raises:
        ValueError: If the direction, or a cost, is unknown.

    Example:

    ```python
    smallest = keras_mtl.tuning.LogObjective(
        "worst_loss", "min", ["val_a_loss", "val_b_loss"], lambda x: max(x.values())
    )
    assert smallest.get_value({"val_a_loss": 1.0, "val_b_loss": 2.0, "loss": 9}) == 2
    ```
    """

    def __init__(
        self,
        name: str,
        direction: str,
        needs: Sequence[str],
        function: Callable[[dict[str, float]], float],
        cost: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(name, check_choice("direction", direction, DIRECTIONS))
        self.function = function
        self.cost = {
            check_choice("cost", key, COSTS): check_number(key, price, at_least=0)
            for key, price in (cost or {}).items()
        }
        self.logs = list(needs)
        self.needs = [*needs, *self.cost]

    def has_value(self, logs: Mapping[str, float]) -> bool:
        """Whether the logs have all that it is made of."""
        return all(name in logs for name in self.needs)

    def get_value(self, logs: Mapping[str, float]) -> float:
        """Returns the value for the logs of an epoch.

        Raises:
            KeyError: If the logs lack something.
        """
        missing = [name for name in self.needs if name not in logs]
        if missing:
            raise KeyError(
                f"The objective {self.name!r} needs the logs {self.needs}; is there "
                f"`validation_data`? Received: {sorted(logs)}, without {missing}"
            )
        value = float(self.function({name: logs[name] for name in self.logs}))
        price = sum(
            each * float(np.log2(logs[name])) for name, each in self.cost.items()
        )
        return value - price if self.direction == "max" else value + price


def metric_objective(name: str, direction: str) -> keras_tuner.Objective:
    """Returns the objective of one log, such as `"val_income_auc"`.

    Keras Tuner knows the direction of few names, and of none with that of a task in it.

    Args:
        name: Name of the log.
        direction: `"min"` or `"max"`.

    Example:

    ```python
    objective = keras_mtl.tuning.metric_objective("val_income_auc", "max")
    ```
    """
    direction = check_choice("direction", direction, DIRECTIONS)
    return keras_tuner.Objective(name, direction)


def weighted_loss_objective(
    weights: Mapping[str, float], cost: Mapping[str, float] | None = None
) -> LogObjective:
    """Returns the objective $\\sum_t w_t L_t$ of the validation losses, to minimise.

    It does not depend on the weighting that a trial has trained with, as `"val_loss"`
    does.

    Args:
        weights: Dict by task of its weight.
        cost: As in `LogObjective`.

    Example:

    ```python
    objective = keras_mtl.tuning.weighted_loss_objective({"a": 1.0, "b": 0.5})
    assert objective.get_value({"val_a_loss": 1.0, "val_b_loss": 2.0}) == 2
    ```
    """
    weights = {f"val_{task}_loss": float(w) for task, w in weights.items()}
    if not weights:
        raise ValueError(f"`weights` must have a task. Received: weights={weights}")
    return LogObjective(
        "weighted_loss",
        "min",
        list(weights),
        lambda logs: sum(weights[name] * value for name, value in logs.items()),
        cost,
    )


def mean_metric_objective(
    metrics: Sequence[str], direction: str, cost: Mapping[str, float] | None = None
) -> LogObjective:
    """Returns the objective that is the mean of some logs.

    Args:
        metrics: Names of logs, such as `["val_a_auc", "val_b_auc"]`.
        direction: `"min"` or `"max"`.
        cost: As in `LogObjective`.

    Example:

    ```python
    names = ["val_a_auc", "val_b_auc"]
    objective = keras_mtl.tuning.mean_metric_objective(names, "max")
    assert objective.get_value({"val_a_auc": 0.5, "val_b_auc": 1.0}) == 0.75
    ```
    """
    if isinstance(metrics, str) or not metrics:
        raise ValueError(
            f"`metrics` must be a list of names. Received: metrics={metrics!r}"
        )
    return LogObjective(
        "mean_metric",
        direction,
        list(metrics),
        lambda logs: float(np.mean(list(logs.values()))),
        cost,
    )


def relative_improvement_objective(
    baselines: Any, cost: Mapping[str, float] | None = None
) -> LogObjective:
    """Returns the objective of the mean improvement over single tasks, in percent.

    See `metrics.RelativeImprovement`. To maximise.

    Args:
        baselines: What `single_task_baselines` returns; or a
            `metrics.RelativeImprovement` of logs without their `val_`.
        cost: As in `LogObjective`: percent for each doubling.

    Example:

    ```python
    baselines = keras_mtl.metrics.RelativeImprovement(
        {"a_loss": 1.0, "b_loss": 2.0}, higher_is_better=False
    )
    objective = keras_mtl.tuning.relative_improvement_objective(baselines)
    print(objective.get_value({"val_a_loss": 0.9, "val_b_loss": 2.0}))  # 5.0
    ```
    """
    return _of_improvement(
        "relative_improvement", baselines, lambda each: float(np.mean(each)), cost
    )


def worst_task_objective(
    baselines: Any, cost: Mapping[str, float] | None = None
) -> LogObjective:
    """Returns the objective of the task that improves least over its own network.

    To maximise, in percent: that no task loses by the company of the others.

    Args:
        baselines: As in `relative_improvement_objective`.
        cost: As in `LogObjective`.

    Example:

    ```python
    baselines = keras_mtl.metrics.RelativeImprovement(
        {"a_loss": 1.0, "b_loss": 2.0}, higher_is_better=False
    )
    objective = keras_mtl.tuning.worst_task_objective(baselines)
    assert objective.get_value({"val_a_loss": 0.9, "val_b_loss": 2.0}) == 0
    ```
    """
    return _of_improvement("worst_task", baselines, min, cost)


def _of_improvement(
    name: str,
    baselines: Any,
    reduce: Callable[[list[float]], float],
    cost: Mapping[str, float] | None,
) -> LogObjective:
    improvement = getattr(baselines, "improvement", baselines)
    if not isinstance(improvement, RelativeImprovement):
        raise ValueError(
            "`baselines` must be what `single_task_baselines` returns, or a "
            f"`metrics.RelativeImprovement`. Received: baselines={baselines!r}"
        )

    def function(logs: dict[str, float]) -> float:
        results = {key.removeprefix("val_"): value for key, value in logs.items()}
        return reduce(list(improvement.per_task(results).values()))

    needs = [f"val_{metric}" for metric in improvement.baselines]
    return LogObjective(name, "max", needs, function, cost)
