"""Gradients and compiled steps of a weighting, by the backend's own means."""

import keras
import numpy as np
from keras import ops


def differentiate(weighting, losses, present=None, training=False, scale=1.0):
    """Calls a weighting and differentiates the sum of `scale` times what it returns.

    Returns:
        A dict of arrays: `weighted`, `weights`, `by_losses` (the derivative of the
        sum by each loss) and `by_variables` (a list: by each trained variable).
    """
    losses = np.asarray(losses, "float32")
    present = np.ones_like(losses) if present is None else np.asarray(present)
    present = present.astype("float32")
    if not weighting.built:
        weighting.build(losses.shape)
    gradients = GRADIENTS[keras.backend.backend()]
    scale = np.broadcast_to(np.asarray(scale, "float32"), losses.shape).copy()
    return gradients(weighting, losses, present, training, scale)


def with_tensorflow(weighting, losses, present, training, scale):
    import tensorflow as tf

    losses = tf.constant(losses)
    variables = [v.value for v in weighting.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(losses)
        weighted, weights = weighting(
            losses, present, training=training, return_weights=True
        )
        total = tf.reduce_sum(scale * weighted)
    by_losses, *by_variables = tape.gradient(
        total, [losses, *variables], unconnected_gradients="zero"
    )
    return as_arrays(weighted, weights, by_losses, by_variables)


def with_jax(weighting, losses, present, training, scale):
    import jax

    state = [v.value for v in weighting.non_trainable_variables]

    def total(losses, trained):
        (weighted, weights), moved = weighting.stateless_call(
            trained, state, losses, present, training=training, return_weights=True
        )
        return ops.sum(scale * weighted), (weighted, weights, moved)

    trained = [v.value for v in weighting.trainable_variables]
    gradients, (weighted, weights, moved) = jax.grad(total, (0, 1), has_aux=True)(
        ops.convert_to_tensor(losses), trained
    )
    for variable, value in zip(weighting.non_trainable_variables, moved, strict=True):
        variable.assign(value)
    return as_arrays(weighted, weights, *gradients)


def with_torch(weighting, losses, present, training, scale):
    import torch

    losses = ops.convert_to_tensor(losses).clone().requires_grad_(True)
    variables = [v.value for v in weighting.trainable_variables]
    weighted, weights = weighting(
        losses, present, training=training, return_weights=True
    )
    total = (ops.convert_to_tensor(scale) * weighted).sum()
    gradients = torch.autograd.grad(
        total, [losses, *variables], allow_unused=True, materialize_grads=True
    )
    return as_arrays(weighted, weights, gradients[0], gradients[1:])


def compiled(weighting, function):
    """Compiles a function of arrays that calls a built weighting and moves its state.

    Returns:
        A function that returns arrays. On PyTorch it is not compiled.
    """
    compilers = {"tensorflow": by_tensorflow, "jax": by_jax, "torch": by_torch}
    return compilers[keras.backend.backend()](weighting, function)


def by_tensorflow(weighting, function):
    import tensorflow as tf

    return tf.function(function, reduce_retracing=True)


def by_torch(weighting, function):
    return function


def by_jax(weighting, function):
    import jax

    variables = weighting.variables

    @jax.jit
    def stateless(state, *arrays):
        mapping = list(zip(variables, state, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            result = function(*arrays)
        return result, [scope.get_current_value(v) for v in variables]

    def stateful(*arrays):
        result, state = stateless([v.value for v in variables], *arrays)
        for variable, value in zip(variables, state, strict=True):
            variable.assign(value)
        return result

    return stateful


def as_arrays(weighted, weights, by_losses, by_variables):
    return {
        "weighted": ops.convert_to_numpy(weighted),
        "weights": ops.convert_to_numpy(weights),
        "by_losses": ops.convert_to_numpy(by_losses),
        "by_variables": [ops.convert_to_numpy(g) for g in by_variables],
    }


GRADIENTS = {
    "tensorflow": with_tensorflow,
    "jax": with_jax,
    "torch": with_torch,
}
