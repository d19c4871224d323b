"""What a trained model does, as numbers."""

from keras_mtl.analysis.affinity_of_logs import affinity_of_logs
from keras_mtl.analysis.gradient_conflict import GradientConflict, LayerConflict
from keras_mtl.analysis.memorisation import (
    Memorisation,
    MemorisationLogger,
    memorisation,
    meta_overfitting_gap,
)
from keras_mtl.analysis.task_affinity import Affinity, TaskAffinity
from keras_mtl.analysis.task_groups import group_tasks

__all__ = [
    "Affinity",
    "GradientConflict",
    "LayerConflict",
    "Memorisation",
    "MemorisationLogger",
    "TaskAffinity",
    "affinity_of_logs",
    "group_tasks",
    "memorisation",
    "meta_overfitting_gap",
]
