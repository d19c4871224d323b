"""Batches of many tasks, episodes of few examples, and labels on one scale."""

from keras_mtl.data.class_split import ClassSplit, ClassSubset
from keras_mtl.data.episodes import Episodes
from keras_mtl.data.gaussian_processes import GaussianProcesses
from keras_mtl.data.grouped_rows import GroupedRows
from keras_mtl.data.label_scaler import LabelScaler
from keras_mtl.data.regression_episodes import RegressionEpisodes
from keras_mtl.data.scaled_loss import ScaledLoss
from keras_mtl.data.sinusoids import Sinusoids
from keras_mtl.data.task_mixture import TaskMixture

__all__ = [
    "ClassSplit",
    "ClassSubset",
    "Episodes",
    "GaussianProcesses",
    "GroupedRows",
    "LabelScaler",
    "RegressionEpisodes",
    "ScaledLoss",
    "Sinusoids",
    "TaskMixture",
]
