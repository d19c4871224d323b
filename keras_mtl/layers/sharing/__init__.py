"""Which parameters the tasks share, and how much."""

from keras_mtl.layers.sharing.adatt import AdaTT
from keras_mtl.layers.sharing.cross_stitch import CrossStitch
from keras_mtl.layers.sharing.customized_gate_control import CustomizedGateControl
from keras_mtl.layers.sharing.dselect_k import DSelectK
from keras_mtl.layers.sharing.entire_space import EntireSpace
from keras_mtl.layers.sharing.learning_to_branch import LearningToBranch
from keras_mtl.layers.sharing.low_rank_adapter import LowRankAdapter
from keras_mtl.layers.sharing.mixture_of_experts import MixtureOfExperts
from keras_mtl.layers.sharing.output_calibrator import OutputCalibrator
from keras_mtl.layers.sharing.position_bias_tower import PositionBiasTower
from keras_mtl.layers.sharing.progressive_layered_extraction import (
    ProgressiveLayeredExtraction,
)
from keras_mtl.layers.sharing.relationship_prior import RelationshipPrior
from keras_mtl.layers.sharing.shared_trunk import SharedTrunk
from keras_mtl.layers.sharing.sluice import Sluice
from keras_mtl.layers.sharing.soft_sharing import SoftSharing
from keras_mtl.layers.sharing.softmax_gate import SoftmaxGate
from keras_mtl.layers.sharing.stem_gate import STEMGate
from keras_mtl.layers.sharing.task_attention import TaskAttention
from keras_mtl.layers.sharing.task_routing import TaskRouting

__all__ = [
    "AdaTT",
    "CrossStitch",
    "CustomizedGateControl",
    "DSelectK",
    "EntireSpace",
    "LearningToBranch",
    "LowRankAdapter",
    "MixtureOfExperts",
    "OutputCalibrator",
    "PositionBiasTower",
    "ProgressiveLayeredExtraction",
    "RelationshipPrior",
    "STEMGate",
    "SharedTrunk",
    "Sluice",
    "SoftSharing",
    "SoftmaxGate",
    "TaskAttention",
    "TaskRouting",
]
