"""One of each learner, small, and episodes to try it on."""

import functools

import keras
import numpy as np

from keras_mtl import MetaModel, learners
from keras_mtl.losses import GaussianNegativeLogLikelihood

WAYS = 3
FEATURES = 6


def _for_both(name, **sizes):
    """Returns a maker of the learner for classes, and one for numbers."""
    make = getattr(learners, name)
    return (
        lambda: make(ways=WAYS, **sizes),
        lambda: make(output_dim=2, **sizes),
    )


_BOTH = {
    "InContextTransformer": _for_both(
        "InContextTransformer", width=16, depth=2, heads=2
    ),
    "ConditionalNeuralProcess": _for_both(
        "ConditionalNeuralProcess", width=16, encoder_depth=2, decoder_depth=2
    ),
    "DeepSet": _for_both("DeepSet", width=16, depth=2),
    "Recurrent": _for_both("Recurrent", units=12),
    "SNAIL": _for_both("SNAIL", filters=4, width=1 / 32, max_support=6),
    "MemoryAugmented": _for_both(
        "MemoryAugmented", units=12, slots=8, slot_size=4, reads=2
    ),
    "HyperNetwork": _for_both("HyperNetwork", width=16, encoder_depth=2, hidden=8),
    "MetaNetwork": _for_both("MetaNetwork", hidden=6, num_gradients=4, maker_units=3),
}
CLASSIFIERS = {
    "PrototypicalNetwork": lambda: learners.PrototypicalNetwork(
        ways=WAYS, distance="cosine"
    ),
    "MatchingNetwork": lambda: learners.MatchingNetwork(ways=WAYS),
    "RelationNetwork": lambda: learners.RelationNetwork(ways=WAYS, hidden=16),
    **{name: makers[0] for name, makers in _BOTH.items()},
}
REGRESSORS = {
    "AttentiveNeuralProcess": lambda: learners.AttentiveNeuralProcess(
        output_dim=2, width=16, heads=2, encoder_depth=2, decoder_depth=2
    ),
    "NeuralProcess": lambda: learners.NeuralProcess(
        output_dim=2, width=16, encoder_depth=2, decoder_depth=2, num_samples=4
    ),
    "ConvolutionalNeuralProcess": lambda: learners.ConvolutionalNeuralProcess(
        output_dim=2, domain=(-3, 3), points_per_unit=4, channels=8, depth=2
    ),
    **{name: makers[1] for name, makers in _BOTH.items()},
}


def _gradient_based(name, **arguments):
    sizes = {"hidden": (8,), "inner_steps": 2, **arguments}
    return _for_both(name, **sizes)


_OF_GRADIENTS = {
    "MAML": _gradient_based("MAML", rates="parameter", rates_per_step=True),
    "ANIL": _gradient_based("ANIL"),
    "CAVIA": _gradient_based("CAVIA", rates="shared", context=3),
    "Reptile": _gradient_based("Reptile"),
}
CLASSIFIERS |= {name: makers[0] for name, makers in _OF_GRADIENTS.items()}
REGRESSORS |= {name: makers[1] for name, makers in _OF_GRADIENTS.items()}
VARIANTS = {
    "MatchingNetwork-full": lambda: learners.MatchingNetwork(
        ways=WAYS, full_context=True
    ),
    "GRU-ways": lambda: learners.Recurrent(ways=WAYS, units=12, depth=2, cell="gru"),
    "MANN-every_step": lambda: learners.MemoryAugmented(
        ways=WAYS, protocol="every_step", units=12, slots=8, slot_size=4, reads=2
    ),
    "HyperNetwork-film": lambda: learners.HyperNetwork(
        ways=WAYS, generates="film", width=16, encoder_depth=2, hidden=8
    ),
    "HyperNetwork-network": lambda: learners.HyperNetwork(
        ways=WAYS, generates="network", width=16, encoder_depth=2, hidden=8
    ),
    "NeuralProcess-ml": lambda: learners.NeuralProcess(
        output_dim=2,
        width=16,
        encoder_depth=2,
        decoder_depth=2,
        num_samples=4,
        objective="maximum_likelihood",
        deterministic_path=False,
    ),
}
LEARNERS = {f"{name}-ways": make for name, make in CLASSIFIERS.items()} | {
    f"{name}-output_dim": make for name, make in REGRESSORS.items()
}
LEARNERS |= VARIANTS


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
