"""The metrics that `compile` was given, as objects."""

import inspect
from typing import Any

import keras

from keras_mtl.metrics.shape_dispatched_accuracy import ShapeDispatchedAccuracy


def resolve_metric(identifier: Any) -> keras.metrics.Metric:
    """Returns the metric of a name, a function or an object, under its name."""
    if isinstance(identifier, keras.metrics.Metric):
        return identifier
    if isinstance(identifier, str) and identifier.lower() in ("accuracy", "acc"):
        return ShapeDispatchedAccuracy(name=identifier)
    metric = keras.metrics.get(identifier)
    name = identifier if isinstance(identifier, str) else None
    if not isinstance(metric, keras.metrics.Metric):
        name = name or getattr(metric, "__name__", "metric").strip("<>")
        return keras.metrics.MeanMetricWrapper(metric, name=name)
    if name is not None:
        metric.name = name
    return metric


def takes_sample_weight(metric: keras.metrics.Metric) -> bool:
    """Returns whether `update_state` takes sample weights."""
    parameters = inspect.signature(metric.update_state).parameters
    return "sample_weight" in parameters or any(
        p.kind == inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    )


def as_list(given: Any) -> list[Any]:
    """Returns a flat list of one, several or no metrics."""
    if given is None:
        return []
    if isinstance(given, list | tuple):
        return [item for entry in given for item in as_list(entry)]
    return [given]
