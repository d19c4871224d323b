"""Models of several tasks."""

from keras_mtl.models.architectures import (
    cross_stitch,
    hard_sharing,
    mixture_of_experts,
    progressive_layered_extraction,
    task_attention,
)
from keras_mtl.models.multi_task_model import MultiTaskModel

__all__ = [
    "MultiTaskModel",
    "cross_stitch",
    "hard_sharing",
    "mixture_of_experts",
    "progressive_layered_extraction",
    "task_attention",
]
