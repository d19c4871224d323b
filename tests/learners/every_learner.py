"""One of each learner, small, and episodes to try it on."""

import functools

import keras
import numpy as np

from keras_mtl import MetaModel, learners
from keras_mtl.losses import GaussianNegativeLogLikelihood

WAYS = 3
FEATURES = 6

CLASSIFIERS = {
    "PrototypicalNetwork": lambda: learners.PrototypicalNetwork(
        ways=WAYS, distance="cosine"
    ),
    "InContextTransformer": lambda: learners.InContextTransformer(
        ways=WAYS, width=16, depth=2, heads=2
    ),
}
REGRESSORS = {
    "InContextTransformer": lambda: learners.InContextTransformer(
        output_dim=2, width=16, depth=2, heads=2
    ),
}
LEARNERS = {f"{name}-ways": make for name, make in CLASSIFIERS.items()} | {
    f"{name}-output_dim": make for name, make in REGRESSORS.items()
}


def make_model(make_learner, **kwargs):
    """Returns a model that is compiled by Keras."""
    model = MetaModel(make_learner(), **kwargs)
    compile_model(model)
    return model


def compile_model(model, optimizer="adam", **kwargs):
    """Compiles a model with the loss that its learner is for."""
    loss = "categorical_crossentropy"
    if model.learner.output_dim:
        loss = GaussianNegativeLogLikelihood()
        if model.learner.distribution is None:
            loss = "mse"
    # What is run twice is faster uncompiled, but on JAX.
    eager = keras.backend.backend() != "jax"
    model.compile(optimizer, loss=loss, **{"run_eagerly": eager, **kwargs})


def episodes(learner, tasks=3, support=6, queries=4, seed=0):
    """Returns inputs and labels, of the kind that the learner is for."""
    rng = np.random.default_rng(seed)
    regression = learner.output_dim is not None
    features = 1 if regression else FEATURES
    inputs = {
        "support_x": rng.normal(size=(tasks, support, features)).astype("float32"),
        "support_mask": np.ones((tasks, support), bool),
        "query_x": rng.normal(size=(tasks, queries, features)).astype("float32"),
    }
    if regression:
        size = (tasks, support, learner.output_dim)
        inputs["support_y"] = rng.normal(size=size).astype("float32")
        labels = rng.normal(size=(tasks, queries, learner.output_dim))
        return inputs, labels.astype("float32")
    numbers = np.arange(support) % learner.ways
    one_hot = np.eye(learner.ways, dtype="float32")
    order = rng.permuted(np.tile(numbers, (tasks, 1)), axis=1)
    inputs["support_y"] = one_hot[order]
    return inputs, one_hot[rng.integers(learner.ways, size=(tasks, queries))]


@functools.cache
def trained_model(name):
    """Returns a model that is built, with weights that are not at their start.

    It is shared between tests, which must not change it.
    """
    model = make_model(LEARNERS[name])
    inputs, _ = episodes(model.learner)
    model(inputs)
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        noise = 0.1 * rng.normal(size=variable.shape)
        variable.assign(keras.ops.convert_to_numpy(variable) + noise)
    return model


def answers(model, inputs):
    """Returns the answers of a model without an encoder, uncompiled: that is faster."""
    phi = model.learner.adapt(
        inputs["support_x"],
        inputs["support_y"],
        keras.ops.cast(inputs["support_mask"], "bool"),
    )
    return keras.ops.convert_to_numpy(model.learner.predict(phi, inputs["query_x"]))
