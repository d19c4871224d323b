"""Metrics of each task, updated by the labels that are there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_mtl.metrics.shape_dispatched_accuracy import ShapeDispatchedAccuracy
from keras_mtl.models.labels import Labels, at_rank, weight_at_values
from keras_mtl.models.metric_arguments import (
    as_list,
    resolve_metric,
    takes_sample_weight,
)


@dataclass
class TaskMetric:
    """One metric of one task and the name that it is logged under."""

    task: str
    name: str
    metric: keras.metrics.Metric
    weighted: bool


class TaskMetrics:
    """The metrics of all tasks.

    Args:
        metrics: By task, what Keras takes: a metric or a list of metrics, each a
            name, a function or a `keras.metrics.Metric`. They do not see sample
            weights, but leave out missing labels.
        weighted_metrics: The same; these are weighted by the sample weights too.

    Raises:
        ValueError: A metric cannot leave labels out, since its `update_state`
            takes no `sample_weight`.
    """

    def __init__(
        self, metrics: Mapping[str, Any], weighted_metrics: Mapping[str, Any]
    ) -> None:
        self.entries: list[TaskMetric] = []
        seen: set[int] = set()
        for weighted, by_task in ((False, metrics), (True, weighted_metrics)):
            for task, given in by_task.items():
                for identifier in as_list(given):
                    self._add(task, identifier, weighted, seen)

    def _add(self, task: str, identifier: Any, weighted: bool, seen: set[int]) -> None:
        metric = resolve_metric(identifier)
        if id(metric) in seen:
            # The same object for two tasks would report a blend of both.
            metric = type(metric).from_config(metric.get_config())
        seen.add(id(metric))
        if not takes_sample_weight(metric):
            raise ValueError(
                f"Metric '{metric.name}' of task '{task}' must take `sample_weight` "
                "in `update_state`: missing labels are left out by a weight of 0. "
                f"Received: {metric!r}"
            )
        taken = {entry.name for entry in self.entries}
        name = base = f"{task}_{metric.name}"
        if weighted and name in taken:
            name = base = f"{task}_weighted_{metric.name}"
        count = 1
        while name in taken:
            name = f"{base}_{count}"
            count += 1
        self.entries.append(TaskMetric(task, name, metric, weighted))

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metric objects."""
        return [entry.metric for entry in self.entries]

    @property
    def tasks(self) -> set[str]:
        """The tasks that have a metric."""
        return {entry.task for entry in self.entries}

    def update_state(self, task: str, labels: Labels, elementwise: bool) -> None:
        """Updates the metrics of one task with a batch.

        Args:
            task: Name of the task.
            labels: Its labels and where they are.
            elementwise: Whether each label of a row counts by itself.
        """
        for entry in self.entries:
            if entry.task != task:
                continue
            y_true, y_pred = labels.y_true, labels.y_pred
            if (
                elementwise
                and y_true.shape[-1] != 1
                and isinstance(
                    entry.metric,
                    keras.metrics.MeanMetricWrapper | ShapeDispatchedAccuracy,
                )
            ):
                y_true, y_pred = (
                    ops.expand_dims(y_true, -1),
                    ops.expand_dims(y_pred, -1),
                )
            values = y_pred[..., 0]
            weight = ops.cast(at_rank(labels.present, len(values.shape)), "float32")
            weight = ops.broadcast_to(weight, ops.shape(values))
            if entry.weighted and labels.weight is not None:
                weight = weight * weight_at_values(labels.weight, values, task)
            entry.metric.update_state(y_true, y_pred, sample_weight=weight)

    def result(self) -> dict[str, Any]:
        """Returns the results by `<task>_<metric>`."""
        results = {}
        for entry in self.entries:
            value = entry.metric.result()
            if isinstance(value, dict):
                results.update({f"{entry.task}_{k}": v for k, v in value.items()})
            else:
                results[entry.name] = value
        return results
