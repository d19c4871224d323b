"""Normalisation with the moments of a batch, as one operation of the backend.

Each backend's module has `batch_normalization(x, gamma, beta, epsilon)`, or `None` in
place of it: then the formula itself is as good.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_mtl.engine.normalization.tensorflow import batch_normalization
elif keras.backend.backend() == "jax":
    from keras_mtl.engine.normalization.jax import batch_normalization
else:
    from keras_mtl.engine.normalization.torch import batch_normalization

__all__ = ["batch_normalization"]
