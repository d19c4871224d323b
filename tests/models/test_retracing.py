"""`fit` compiles its step once."""

import keras
import numpy as np
import pytest
from small_models import (
    IN_A_GRAPH,
    CallCounter,
    compiled,
    conditioned_data,
    data,
    two_tasks,
)
from weightings_for_tests import (
    GradientNorms,
    InverseMean,
    LogVariance,
    LossesAfterStep,
)

from keras_mtl import MultiTaskModel

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.skipif(
    BACKEND == "torch", reason="PyTorch runs op by op: there is nothing to trace"
)


class Counts(keras.callbacks.Callback):
    """Remembers after every batch how often Python has run the layer so far."""

    def __init__(self):
        super().__init__()
        self.after_batches = []

    def on_train_batch_end(self, batch, logs=None):
        self.after_batches.append(CallCounter.calls)


class Subclassed(MultiTaskModel):
    """A subclass with a `call` of its own."""

    def __init__(self):
        super().__init__(task_names=["a", "b"])
        self.trunk = keras.layers.Dense(8)
        self.counter = CallCounter()
        self.head_a = keras.layers.Dense(1)
        self.head_b = keras.layers.Dense(1, "sigmoid")

    def call(self, x, training=False):
        h = self.counter(self.trunk(x))
        return {"a": self.head_a(h), "b": self.head_b(h)}

    def layer_tasks(self):
        return [
            (self.trunk, ("a", "b")),
            (self.head_a, ("a",)),
            (self.head_b, ("b",)),
        ]


def functional():
    return two_tasks(extra=[CallCounter()])


def assert_traced_once(model, x, y, epochs=4, **kwargs):
    counts = Counts()
    CallCounter.reset()
    model.fit(
        x, y, batch_size=16, epochs=epochs, callbacks=[counts], verbose=0, **kwargs
    )
    assert len(counts.after_batches) >= 3 * epochs
    assert counts.after_batches[1] > 0
    assert counts.after_batches[-1] == counts.after_batches[1]


@pytest.mark.parametrize(
    "weighting",
    [
        "equal",
        "uncertainty",
        "grad_norm",
        "famo",
        pytest.param("dwa", marks=pytest.mark.slow),
        pytest.param("random_weighting", marks=pytest.mark.slow),
        pytest.param("geometric_mean", marks=pytest.mark.slow),
        pytest.param(InverseMean, marks=pytest.mark.slow),
        pytest.param(LogVariance, marks=pytest.mark.slow),
        pytest.param(GradientNorms, marks=pytest.mark.slow),
        pytest.param(LossesAfterStep, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_functional_model(weighting, jit_compile):
    """With missing labels, other loss weights, and a learning rate that changes."""
    weighting = weighting if isinstance(weighting, str) else weighting()
    if BACKEND == "jax" and not jit_compile:
        jit_compile = "auto"  # False would run op by op
    model = compiled(
        functional(), weighting=weighting, jit_compile=jit_compile, **IN_A_GRAPH
    )
    x, y = data(48)
    y["a"][20:40] = np.nan

    def change(epoch, logs=None):
        model.set_loss_weights({"a": 1.0 + epoch})
        model.optimizer.learning_rate = 0.1 / (1 + epoch)

    schedule = keras.callbacks.LambdaCallback(on_epoch_begin=change)
    counts = Counts()
    CallCounter.reset()
    model.fit(x, y, batch_size=16, epochs=4, callbacks=[schedule, counts], verbose=0)
    assert counts.after_batches[1] > 0
    assert counts.after_batches[-1] == counts.after_batches[1]


@pytest.mark.parametrize(
    "weighting", ["uncertainty", pytest.param("grad_norm", marks=pytest.mark.slow)]
)
def test_subclassed_model(weighting):
    model = compiled(Subclassed(), weighting=weighting, **IN_A_GRAPH)
    assert_traced_once(model, *data(48))


def test_a_second_fit_and_validation_trace_nothing():
    model = compiled(
        functional(), weighting="dwa", metrics={"a": "mae", "b": "auc"}, **IN_A_GRAPH
    )
    x, y = data(48)
    kwargs = {"batch_size": 16, "verbose": 0, "validation_data": (x, y)}
    model.fit(x, y, epochs=2, **kwargs)
    model.evaluate(x, y, batch_size=16, verbose=0)
    traced = CallCounter.calls
    model.fit(x, y, epochs=2, class_weight=None, **kwargs)
    model.evaluate(x, y, batch_size=16, verbose=0)
    assert CallCounter.calls == traced


def test_the_same_class_weights_trace_nothing():
    """A new fit with them traces once more, since the last one ended without."""
    model = compiled(functional(), **IN_A_GRAPH)
    x, y = data(48)
    assert_traced_once(model, x, y, class_weight={"b": {0: 1.0, 1: 2.0}})


def test_conditioned_model():
    x = keras.Input((4,), name="x")
    task = keras.Input((), dtype="int32", name="task")
    h = CallCounter()(keras.layers.Dense(8)(x))
    z = keras.layers.Embedding(3, 2)(task)
    output = keras.layers.Dense(1)(keras.layers.Concatenate()([h, z]))
    model = MultiTaskModel(
        {"x": x, "task": task}, output, task_names=["a", "b", "c"], task_input="task"
    )
    loss = {"a": "mse", "b": "huber", "c": "mae"}
    model.compile("sgd", loss=loss, weighting="dwa")
    # Batches in which some of the tasks have no row.
    x, y = conditioned_data(48)
    x["task"] = np.sort(x["task"])
    assert_traced_once(model, x, y, shuffle=False)
