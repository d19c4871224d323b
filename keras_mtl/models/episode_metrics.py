"""The metrics of a `MetaModel`, and their means over episodes."""

from functools import partial
from typing import Any

import keras
from keras import ops

from keras_mtl.learners.each_task import for_each_task
from keras_mtl.metrics.episode_mean import EpisodeMean
from keras_mtl.models.metric_arguments import (
    as_list,
    resolve_metric,
    takes_sample_weight,
)


class EpisodeMetrics:
    """Means over episodes, for the loss and each metric that is a mean over queries.

    Args:
        loss: The loss as `keras.losses.get` returns it, or `None`.
        metrics: Metrics that `compile` was given, of which those that are means over
            queries are taken.
    """

    def __init__(self, loss: Any, metrics: list[keras.metrics.Metric]) -> None:
        self._loss = loss
        self._metrics = [metric for metric in metrics if _is_mean(metric)]
        self.means = [EpisodeMean(metric.name) for metric in self._metrics]
        if loss is not None:
            self.means.append(EpisodeMean("loss"))

    def update_state(
        self, y: Any, y_pred: Any, loss_pred: Any, sample_weight: Any
    ) -> None:
        """Adds a batch of episodes.

        Args:
            y: Labels `(B, Q, ...)`.
            y_pred: Predictions `(B, Q, ...)`, for the metrics.
            loss_pred: What the loss is given, `(B, Q, ...)`.
            sample_weight: Weights of the queries `(B, Q)`, or `None`.
        """
        y = ops.convert_to_tensor(y)
        if sample_weight is None:
            sample_weight = ops.ones(ops.shape(y)[:2], "float32")
        sample_weight = ops.cast(sample_weight, "float32")
        present = ops.max(ops.abs(sample_weight), axis=1)
        for metric, mean in zip(self._metrics, self.means, strict=False):
            if callable(getattr(metric, "values", None)):
                values = ops.cast(metric.values(y, y_pred), "float32")
                total = ops.sum(sample_weight * values, axis=1)
                values = ops.divide_no_nan(total, ops.sum(sample_weight, axis=1))
            else:
                values = for_each_task(
                    partial(_value_of_episode, metric), (y, y_pred, sample_weight)
                )
            mean.update_state(values, sample_weight=present)
        if self._loss is not None:
            losses = self._losses(y, loss_pred, sample_weight)
            self.means[-1].update_state(ops.mean(losses, axis=1), present)

    def loss(self, y: Any, y_pred: Any, weight: Any) -> Any:
        """Returns the mean over episodes of the mean over queries that are there.

        Args:
            y: Labels `(B, Q, ...)`.
            y_pred: What the loss is given, `(B, Q, ...)`.
            weight: Weights of the queries `(B, Q)`.
        """
        return ops.mean(self._losses(y, y_pred, ops.cast(weight, "float32")))

    def _losses(self, y: Any, y_pred: Any, weight: Any) -> Any:
        """Returns losses `(B, Q)`, weighted so that their mean is that over queries
        that are there.
        """
        loss = self._loss
        each = loss.call if isinstance(loss, keras.losses.Loss) else loss
        losses = ops.cast(each(y, y_pred), "float32")
        return losses * weight * mean_of_present(weight)


def _value_of_episode(metric: keras.metrics.Metric, episode: tuple[Any, ...]) -> Any:
    """Returns the value of a metric on one episode alone."""
    y, y_pred, weight = (t[None] for t in episode)
    state = metric.stateless_reset_state()
    state = metric.stateless_update_state(state, y, y_pred, sample_weight=weight)
    return ops.cast(metric.stateless_result(state), "float32")


def mean_of_present(sample_weight: Any) -> Any:
    """Returns factors `(B, 1)` that turn a mean over all queries into one over those
    that are there: the number of queries by the number whose weight is not zero.
    """
    present = ops.cast(sample_weight != 0, "float32")
    share = ops.mean(present, axis=1, keepdims=True)
    return ops.where(share > 0, 1.0 / ops.where(share > 0, share, 1.0), 0.0)


def resolve_metrics(given: Any) -> list[keras.metrics.Metric]:
    """Returns the metrics that `compile` was given as objects.

    Args:
        given: A metric or a list of metrics, each a name, a function or a
            `keras.metrics.Metric`.

    Raises:
        ValueError: If a metric takes no sample weights.
    """
    metrics = [resolve_metric(identifier) for identifier in as_list(given)]
    for metric in metrics:
        if not takes_sample_weight(metric):
            raise ValueError(
                f"Metric '{metric.name}' must take `sample_weight` in `update_state`: "
                "queries that are padding have a weight of 0. "
                f"Received: {metric!r}"
            )
    return metrics


def _is_mean(metric: keras.metrics.Metric) -> bool:
    """Returns whether a metric is a mean over queries, in its result as well."""
    return (
        isinstance(metric, keras.metrics.Mean)
        and type(metric).result is keras.metrics.Mean.result
    )
