"""Metrics of several tasks, and what the recipes report them with."""

from keras_mtl.metrics.gradient_statistics import GradientStatistics
from keras_mtl.metrics.mean_and_interval import MeanAndInterval, mean_and_interval
from keras_mtl.metrics.relative_improvement import RelativeImprovement
from keras_mtl.metrics.results_table import ResultsTable
from keras_mtl.metrics.shape_dispatched_accuracy import ShapeDispatchedAccuracy
from keras_mtl.metrics.task_means import TaskMeans

__all__ = [
    "GradientStatistics",
    "MeanAndInterval",
    "RelativeImprovement",
    "ResultsTable",
    "ShapeDispatchedAccuracy",
    "TaskMeans",
    "mean_and_interval",
]
