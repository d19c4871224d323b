"""Layers of multi-task networks."""

from keras_mtl.layers.conditioning import (
    AdditiveConditioning,
    ConcatConditioning,
    ConditionalBatchNormalization,
    FiLM,
    MultiHead,
    TaskAdapter,
    TaskEmbedding,
    TaskGating,
)
from keras_mtl.layers.sharing import SharedTrunk

__all__ = [
    "AdditiveConditioning",
    "ConcatConditioning",
    "ConditionalBatchNormalization",
    "FiLM",
    "MultiHead",
    "SharedTrunk",
    "TaskAdapter",
    "TaskEmbedding",
    "TaskGating",
]
