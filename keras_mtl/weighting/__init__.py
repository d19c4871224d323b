"""Loss weighting: from the losses of T tasks to one objective."""

from keras_mtl.weighting.dynamic_task_prioritization import DynamicTaskPrioritization
from keras_mtl.weighting.dynamic_weight_average import DynamicWeightAverage
from keras_mtl.weighting.equal import Equal
from keras_mtl.weighting.famo import FAMO
from keras_mtl.weighting.geometric_mean import GeometricMean
from keras_mtl.weighting.grad_norm import GradNorm
from keras_mtl.weighting.group_dro import GroupDRO
from keras_mtl.weighting.imtl_loss import IMTLLoss
from keras_mtl.weighting.random_weighting import RandomWeighting
from keras_mtl.weighting.registry import get, names
from keras_mtl.weighting.scale_invariant import ScaleInvariant
from keras_mtl.weighting.schedule import Schedule
from keras_mtl.weighting.smooth_tchebycheff import SmoothTchebycheff
from keras_mtl.weighting.static import Static
from keras_mtl.weighting.uncertainty import Uncertainty
from keras_mtl.weighting.weighting import Weighting

__all__ = [
    "FAMO",
    "DynamicTaskPrioritization",
    "DynamicWeightAverage",
    "Equal",
    "GeometricMean",
    "GradNorm",
    "GroupDRO",
    "IMTLLoss",
    "RandomWeighting",
    "ScaleInvariant",
    "Schedule",
    "SmoothTchebycheff",
    "Static",
    "Uncertainty",
    "Weighting",
    "get",
    "names",
]
