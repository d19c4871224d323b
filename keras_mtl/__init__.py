"""Multi-task learning and meta-learning for Keras 3, under plain `model.fit`."""

import importlib
from typing import Any

from keras_mtl import (
    aggregation,
    analysis,
    data,
    datasets,
    distributions,
    layers,
    learners,
    losses,
    metrics,
    models,
    weighting,
)
from keras_mtl.models.meta_model import MetaModel
from keras_mtl.models.multi_task_model import MultiTaskModel

__version__ = "0.1.0"

__all__ = [
    "MetaModel",
    "MultiTaskModel",
    "aggregation",
    "analysis",
    "data",
    "datasets",
    "distributions",
    "layers",
    "learners",
    "losses",
    "metrics",
    "models",
    "tuning",
    "weighting",
]


def __getattr__(name: str) -> Any:
    """Imports `tuning` when it is asked for: it needs Keras Tuner."""
    if name == "tuning":
        return importlib.import_module("keras_mtl.tuning")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
