"""Gradient aggregation: from the gradients of T tasks to one update."""

from keras_mtl.aggregation.aggregator import Aggregator
from keras_mtl.aggregation.aligned_mtl import AlignedMTL
from keras_mtl.aggregation.cagrad import CAGrad
from keras_mtl.aggregation.con_fig import ConFIG
from keras_mtl.aggregation.db_mtl import DBMTL
from keras_mtl.aggregation.dual_proj import DualProj
from keras_mtl.aggregation.every_k_steps import EveryKSteps
from keras_mtl.aggregation.excess_mtl import ExcessMTL
from keras_mtl.aggregation.fair_grad import FairGrad
from keras_mtl.aggregation.grad_drop import GradDrop
from keras_mtl.aggregation.grad_vac import GradVac
from keras_mtl.aggregation.gradient_normalization import GradientNormalization
from keras_mtl.aggregation.gramian_aggregator import GramianAggregator
from keras_mtl.aggregation.imtl_g import IMTLG
from keras_mtl.aggregation.mean import Mean
from keras_mtl.aggregation.meta_balance import MetaBalance
from keras_mtl.aggregation.mgda import MGDA
from keras_mtl.aggregation.moco import MoCo
from keras_mtl.aggregation.modo import MoDo
from keras_mtl.aggregation.nash_mtl import NashMTL
from keras_mtl.aggregation.pcgrad import PCGrad
from keras_mtl.aggregation.registry import get, names
from keras_mtl.aggregation.sdm_grad import SDMGrad
from keras_mtl.aggregation.sum import Sum
from keras_mtl.aggregation.upgrad import UPGrad
from keras_mtl.aggregation.weight_averaging import WeightAveraging

__all__ = [
    "DBMTL",
    "IMTLG",
    "MGDA",
    "Aggregator",
    "AlignedMTL",
    "CAGrad",
    "ConFIG",
    "DualProj",
    "EveryKSteps",
    "ExcessMTL",
    "FairGrad",
    "GradDrop",
    "GradVac",
    "GradientNormalization",
    "GramianAggregator",
    "Mean",
    "MetaBalance",
    "MoCo",
    "MoDo",
    "NashMTL",
    "PCGrad",
    "SDMGrad",
    "Sum",
    "UPGrad",
    "WeightAveraging",
    "get",
    "names",
]
