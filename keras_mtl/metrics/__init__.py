"""Metrics of several tasks, and what the recipes report them with."""

from keras_mtl.metrics.calibration_error import CalibrationError
from keras_mtl.metrics.episode_mean import EpisodeMean
from keras_mtl.metrics.gradient_statistics import GradientStatistics
from keras_mtl.metrics.interval_coverage import IntervalCoverage
from keras_mtl.metrics.log_likelihood import LogLikelihood
from keras_mtl.metrics.mean_and_interval import MeanAndInterval, mean_and_interval
from keras_mtl.metrics.relative_improvement import RelativeImprovement
from keras_mtl.metrics.results_table import ResultsTable
from keras_mtl.metrics.shape_dispatched_accuracy import ShapeDispatchedAccuracy
from keras_mtl.metrics.squared_error_of_mean import SquaredErrorOfMean
from keras_mtl.metrics.task_means import TaskMeans

__all__ = [
    "CalibrationError",
    "EpisodeMean",
    "GradientStatistics",
    "IntervalCoverage",
    "LogLikelihood",
    "MeanAndInterval",
    "RelativeImprovement",
    "ResultsTable",
    "ShapeDispatchedAccuracy",
    "SquaredErrorOfMean",
    "TaskMeans",
    "mean_and_interval",
]
