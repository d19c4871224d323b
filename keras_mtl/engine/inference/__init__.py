"""Compiled functions of a model outside of `fit`.

Each backend's module has `compiled(model, function)`, which returns a function of nests
of arrays that reads the model's variables and changes none.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_mtl.engine.inference.tensorflow import compiled
elif keras.backend.backend() == "jax":
    from keras_mtl.engine.inference.jax import compiled
else:
    from keras_mtl.engine.inference.torch import compiled

__all__ = ["compiled"]
