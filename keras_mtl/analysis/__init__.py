"""What a trained model does, and which tasks help each other, as numbers."""

from keras_mtl.analysis.advice import Advice, advise
from keras_mtl.analysis.affinity_of_logs import affinity_of_logs
from keras_mtl.analysis.gradient_conflict import GradientConflict, LayerConflict
from keras_mtl.analysis.memorisation import (
    Memorisation,
    MemorisationLogger,
    memorisation,
    meta_overfitting_gap,
)
from keras_mtl.analysis.representations import linear_cka
from keras_mtl.analysis.task_affinity import Affinity, TaskAffinity
from keras_mtl.analysis.task_groups import group_tasks
from keras_mtl.analysis.transfer_measures import (
    ConflictMeasures,
    Remedied,
    TaskMeasures,
    TransferMeasures,
)
from keras_mtl.analysis.transfer_plots import (
    plot_conflict,
    plot_conflict_over_time,
    plot_gains,
    plot_groups,
    plot_learning_curves,
    plot_overfitting,
    plot_similarity,
    plot_transfer,
)
from keras_mtl.analysis.transfer_report import TransferReport
from keras_mtl.analysis.transfer_study import REMEDIES, TransferStudy

__all__ = [
    "REMEDIES",
    "Advice",
    "Affinity",
    "ConflictMeasures",
    "GradientConflict",
    "LayerConflict",
    "Memorisation",
    "MemorisationLogger",
    "Remedied",
    "TaskAffinity",
    "TaskMeasures",
    "TransferMeasures",
    "TransferReport",
    "TransferStudy",
    "advise",
    "affinity_of_logs",
    "group_tasks",
    "linear_cka",
    "memorisation",
    "meta_overfitting_gap",
    "plot_conflict",
    "plot_conflict_over_time",
    "plot_gains",
    "plot_groups",
    "plot_learning_curves",
    "plot_overfitting",
    "plot_similarity",
    "plot_transfer",
]
