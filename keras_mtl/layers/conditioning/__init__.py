"""How a task descriptor enters a network."""

from keras_mtl.layers.conditioning.additive_conditioning import AdditiveConditioning
from keras_mtl.layers.conditioning.concat_conditioning import ConcatConditioning
from keras_mtl.layers.conditioning.conditional_batch_normalization import (
    ConditionalBatchNormalization,
)
from keras_mtl.layers.conditioning.film import FiLM
from keras_mtl.layers.conditioning.multi_head import MultiHead
from keras_mtl.layers.conditioning.task_adapter import TaskAdapter
from keras_mtl.layers.conditioning.task_embedding import TaskEmbedding
from keras_mtl.layers.conditioning.task_gating import TaskGating

__all__ = [
    "AdditiveConditioning",
    "ConcatConditioning",
    "ConditionalBatchNormalization",
    "FiLM",
    "MultiHead",
    "TaskAdapter",
    "TaskEmbedding",
    "TaskGating",
]
