"""Python says before a step on JAX what is due in it; the graph has the last word."""

import keras
import numpy as np
import pytest
from aggregated_models import (
    EAGER,
    NAMES,
    assert_same,
    compiled,
    separate_heads,
    values,
)

import keras_mtl
from keras_mtl import aggregation

BACKEND = keras.backend.backend()
K = 3


def every_k_steps():
    return compiled(
        separate_heads,
        keras.optimizers.SGD(0.1),
        aggregator=aggregation.EveryKSteps("upgrad", K),
        gradient_logs=["norms"],
        run_eagerly=EAGER,
    )


def data():
    generator = np.random.default_rng(3)
    x = generator.normal(size=(40, 4)).astype("float32")
    return x, {n: generator.normal(size=(40, 1)).astype("float32") for n in NAMES}


class Steps(keras.callbacks.Callback):
    """Notes in which steps there were new weights, and may make them due at once.

    Args:
        ask_in: A step before which the counter is set to 0, if any.
    """

    def __init__(self, ask_in=None):
        super().__init__()
        self.ask_in = ask_in
        self.due = []

    def on_train_batch_begin(self, batch, logs=None):
        if len(self.due) == self.ask_in:
            self.model.aggregator.step.assign(0.0)
        self.model.reset_metrics()

    def on_train_batch_end(self, batch, logs=None):
        self.due.append(logs[f"{NAMES[0]}_gradient_norm"] > 0)


def fit(model, steps, epochs=2):
    x, y = data()
    model.fit(
        x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=[steps]
    )


def test_steps_are_counted_over_epochs_and_fits():
    model, steps = every_k_steps(), Steps()
    fit(model, steps)
    fit(model, steps, epochs=1)
    assert steps.due == [step % K == 0 for step in range(15)]


def test_a_callback_may_set_the_counter():
    steps = Steps(ask_in=4)
    fit(every_k_steps(), steps)
    assert steps.due == [step in (0, 3, 4, 7) for step in range(10)]


def test_a_loaded_model_goes_on(tmp_path):
    one, other = every_k_steps(), every_k_steps()
    fit(one, Steps(), epochs=1)
    one.save_weights(tmp_path / "one.weights.h5")
    other.build((None, 4))
    other.load_weights(tmp_path / "one.weights.h5")
    found = []
    for model in (one, other):
        steps = Steps()
        fit(model, steps, epochs=1)
        found.append((values(model), steps.due))
    assert found[0][1] == found[1][1] == [False, True, False, False, True]
    assert_same(found[0][0], found[1][0])


def convolutional():
    x = keras.Input((8, 8, 1))
    h = keras.layers.Flatten()(keras.layers.Conv2D(4, 3)(x))
    return keras_mtl.MultiTaskModel(x, {n: keras.layers.Dense(1)(h) for n in NAMES})


def inner(equation):
    """Yields the graphs in the parameters of an operation."""
    for value in equation.params.values():
        for graph in value if isinstance(value, tuple | list) else [value]:
            graph = getattr(graph, "jaxpr", graph)
            if hasattr(graph, "eqns"):
                yield graph


def convolutions(graph, in_branch=False):
    """Yields for each convolution of a graph whether it is in a branch."""
    for equation in graph.eqns:
        name = equation.primitive.name
        if name == "conv_general_dilated":
            yield in_branch
        for further in inner(equation):
            yield from convolutions(further, in_branch or name == "cond")


@pytest.mark.skipif(BACKEND != "jax", reason="Python picks a compiled step on JAX")
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("used", ["aggregator", "callbacks"])
def test_gradients_of_convolutions_are_in_no_branch(used, known):
    """There XLA takes 20 times as long for them on a CPU."""
    import jax

    from keras_mtl.engine.jax_marks import MarkedBatch

    arguments, callbacks = {}, []
    if used == "aggregator":
        arguments["aggregator"] = aggregation.EveryKSteps("upgrad", K)
    else:
        conflict = keras_mtl.analysis.GradientConflict(every=K)
        callbacks = [conflict, keras_mtl.analysis.TaskAffinity(every=K)]
    model = convolutional()
    model.compile("sgd", loss="mse", **arguments)
    x = np.ones((6, 8, 8, 1), "float32")
    y = {n: np.ones((6, 1), "float32") for n in NAMES}
    model.train_on_batch(x, y)  # Builds the optimizer and the metrics.
    with model._probing(callbacks):
        state = [
            [variable.value for variable in variables]
            for variables in (
                model.trainable_variables,
                model.non_trainable_variables,
                model.optimizer.variables,
                model.metrics_variables,
            )
        ]
        probes = [
            (p, tuple(p.periods) if known else ()) for p in model._gradient_probes
        ]
        batch = MarkedBatch((x, y, None), tuple(probes), known)
        step = model._packing(model.train_step)
        found = list(convolutions(jax.make_jaxpr(step)(state, batch).jaxpr))
    plain = 2  # The forward pass and the gradient by the kernel.
    if known:
        assert len(found) > plain
        assert not any(found)
    elif used == "callbacks":
        assert found == [False] * plain
    else:
        assert any(found)
