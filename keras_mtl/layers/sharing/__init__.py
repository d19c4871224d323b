"""Which parameters the tasks share, and how much."""

from keras_mtl.layers.sharing.shared_trunk import SharedTrunk

__all__ = ["SharedTrunk"]
