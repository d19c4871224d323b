"""A learner that is built, with weights that are not at their start."""

import keras
import numpy as np
from every_learner import episodes

to_numpy = keras.ops.convert_to_numpy


def built(learner, scale=0.3, **kwargs):
    """Returns the learner, and inputs that it was built on."""
    inputs = episodes(learner, **kwargs)[0]
    learner(inputs)
    rng = np.random.default_rng(1)
    for variable in learner.trainable_variables:
        noise = scale * rng.normal(size=variable.shape)
        variable.assign(to_numpy(variable) + noise)
    return learner, inputs


def adapted(learner, inputs):
    """Returns phi."""
    return learner.adapt(*(inputs[f"support_{key}"] for key in ("x", "y", "mask")))


def answered(learner, inputs):
    """Returns predictions as an array."""
    return to_numpy(learner(inputs))


def softmax(x, axis=-1):
    exponentials = np.exp(x - x.max(axis, keepdims=True))
    return exponentials / exponentials.sum(axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def dense_stack(model, x):
    """Returns what dense layers with ReLU between them make of x."""
    for index, layer in enumerate(model.layers):
        x = dense(layer, x if index == 0 else np.maximum(x, 0))
    return x


def dense(layer, x):
    """Returns what a dense layer makes of x, without its activation."""
    x = x @ to_numpy(layer.kernel)
    return x if layer.bias is None else x + to_numpy(layer.bias)


def decoded(decoder, x, context):
    """Returns what a `ContextDecoder` says of x `(B, Q, D)`.

    Args:
        decoder: The layer.
        x: Features.
        context: Vectors `(B, 1 or Q, N, C)`.
    """
    x = x[:, :, None]
    hidden = dense(decoder.from_query, x) + dense(decoder.from_context, context)
    if decoder.compare:
        product = dense(decoder.query_side, x) * dense(decoder.context_side, context)
        hidden = hidden + dense(decoder.from_product, product)
    for layer in decoder.hidden_layers:
        hidden = dense(layer, np.maximum(hidden, 0))
    return dense(decoder.head, np.maximum(hidden, 0))


def mean_and_scale(raw, min_scale=0.01):
    """Returns the parameters of a Gaussian of `(..., 2 Dy)`."""
    raw = raw.reshape(*raw.shape[:-1], -1, 2)
    scale = min_scale + (1 - min_scale) * softplus(raw[..., 1])
    return np.stack([raw[..., 0], scale], -1)
