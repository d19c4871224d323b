"""What a trained model does, as numbers."""

from keras_mtl.analysis.memorisation import (
    Memorisation,
    MemorisationLogger,
    memorisation,
    meta_overfitting_gap,
)

__all__ = [
    "Memorisation",
    "MemorisationLogger",
    "memorisation",
    "meta_overfitting_gap",
]
