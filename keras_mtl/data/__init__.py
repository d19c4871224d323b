"""Batches of many tasks, and labels on one scale."""

from keras_mtl.data.label_scaler import LabelScaler
from keras_mtl.data.scaled_loss import ScaledLoss
from keras_mtl.data.task_mixture import TaskMixture

__all__ = ["LabelScaler", "ScaledLoss", "TaskMixture"]
