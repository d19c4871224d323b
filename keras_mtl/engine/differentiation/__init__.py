"""Gradients within a forward pass, that can be differentiated again.

Each backend's module has `gradients(function, tensors)`, which returns the derivatives
of a scalar function of a list of tensors.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_mtl.engine.differentiation.tensorflow import gradients
elif keras.backend.backend() == "jax":
    from keras_mtl.engine.differentiation.jax import gradients
else:
    from keras_mtl.engine.differentiation.torch import gradients

__all__ = ["gradients"]
