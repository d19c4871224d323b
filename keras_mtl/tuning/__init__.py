"""Search over sharing architectures, with Keras Tuner."""

import importlib.util

if importlib.util.find_spec("keras_tuner") is None:
    raise ImportError(
        "`keras_mtl.tuning` needs Keras Tuner: pip install keras_mtl[tuner]"
    )

from keras_mtl.analysis import affinity_of_logs, group_tasks
from keras_mtl.tuning.conditioning_hyper_model import ConditioningHyperModel
from keras_mtl.tuning.distributed_search import run_workers, search
from keras_mtl.tuning.objectives import (
    LogObjective,
    mean_metric_objective,
    metric_objective,
    relative_improvement_objective,
    weighted_loss_objective,
    worst_task_objective,
)
from keras_mtl.tuning.search_report import search_report
from keras_mtl.tuning.search_results import (
    TrialResult,
    choice_importance,
    trial_results,
)
from keras_mtl.tuning.sharing_choices import choose_sharing
from keras_mtl.tuning.sharing_hyper_model import SharingHyperModel
from keras_mtl.tuning.sharing_plan import BlockSharing, SharingPlan
from keras_mtl.tuning.sharing_tree import SharingTree, all_trees
from keras_mtl.tuning.single_task_baselines import Baselines, single_task_baselines
from keras_mtl.tuning.training_choices import (
    choose_aggregator,
    choose_conditioning,
    choose_weighting,
)
from keras_mtl.tuning.tree_choices import choose_tree
from keras_mtl.tuning.tree_of_model import sharing_tree
from keras_mtl.tuning.tree_ranking import rank_trees

__all__ = [
    "Baselines",
    "BlockSharing",
    "ConditioningHyperModel",
    "LogObjective",
    "SharingHyperModel",
    "SharingPlan",
    "SharingTree",
    "TrialResult",
    "affinity_of_logs",
    "all_trees",
    "choice_importance",
    "choose_aggregator",
    "choose_conditioning",
    "choose_sharing",
    "choose_tree",
    "choose_weighting",
    "group_tasks",
    "mean_metric_objective",
    "metric_objective",
    "rank_trees",
    "relative_improvement_objective",
    "run_workers",
    "search",
    "search_report",
    "sharing_tree",
    "single_task_baselines",
    "trial_results",
    "weighted_loss_objective",
    "worst_task_objective",
]
