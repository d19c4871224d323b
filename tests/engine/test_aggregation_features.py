"""What Keras does to a training step, it does to one with an aggregator."""

import keras
import numpy as np
import pytest
from aggregated_models import (
    EAGER,
    NAMES,
    ROWS,
    assert_same,
    compiled,
    data,
    separate_heads,
    values,
)
from keras import ops

import keras_mtl

BACKEND = keras.backend.backend()
PLACES = ["parameters", "representation"]
EAGER_TOO = pytest.mark.parametrize(
    "run_eagerly", [False] if BACKEND == "jax" else [False, True]
)


def heads(inputs, h):
    return keras_mtl.MultiTaskModel(
        inputs, {n: keras.layers.Dense(1, name=f"head_{n}")(h) for n in NAMES}
    )


def trained(make, optimizer, x, y, epochs=2, **arguments):
    model = compiled(make, optimizer(), **{"run_eagerly": EAGER, **arguments})
    model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return values(model)


OPTIMIZERS = {
    "accumulation": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "clipnorm": lambda: keras.optimizers.SGD(0.1, clipnorm=0.1),
    "global_clipnorm": lambda: keras.optimizers.SGD(0.1, global_clipnorm=0.2),
    "clipvalue": lambda: keras.optimizers.SGD(0.1, clipvalue=0.05),
    "ema": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5),
    "decay": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimisers_get_the_gradients_that_they_get_of_plain_training(optimizer):
    x, y = data()
    make = OPTIMIZERS[optimizer]
    plain = trained(separate_heads, make, x, y)
    assert_same(plain, trained(separate_heads, make, x, y, aggregator="sum"))


def recurrent():
    inputs = keras.Input((5, 3))
    return heads(inputs, keras.layers.LSTM(4)(inputs))


def attention():
    inputs = keras.Input((5, 3))
    h = keras.layers.MultiHeadAttention(2, 3)(inputs, inputs)
    h = keras.layers.LayerNormalization()(keras.layers.Add()([h, inputs]))
    return heads(inputs, keras.layers.GlobalAveragePooling1D()(h))


def convolutional():
    inputs = keras.Input((5, 3))
    h = keras.layers.Conv1D(4, 3, activation="relu")(inputs)
    h = keras.layers.Dropout(0.5, seed=1)(keras.layers.SpatialDropout1D(0.2)(h))
    return heads(inputs, keras.layers.Flatten()(h))


def nested():
    inputs = keras.Input((5, 3))
    trunk = keras.Sequential(
        [
            keras.layers.Flatten(),
            keras.layers.Dense(6),
            keras.layers.BatchNormalization(),
        ]
    )
    return heads(inputs, trunk(inputs))


def operations():
    """Layers, and operations that are no layers, at the place where tasks part."""
    inputs = keras.Input((5, 3))
    h = keras.layers.Dense(4)(ops.mean(inputs, axis=1))
    return heads(inputs, ops.tanh(h) + 0.5 * h)


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize(
    "make", [recurrent, attention, convolutional, nested, operations]
)
def test_trunks_of_every_kind(make, at):
    x = np.random.default_rng(0).normal(size=(ROWS, 5, 3)).astype("float32")
    y = data()[1]

    def sgd():
        return keras.optimizers.SGD(0.1)

    plain = trained(make, sgd, x, y, epochs=1)
    aggregated = trained(make, sgd, x, y, epochs=1, aggregator="sum", aggregate_at=at)
    assert_same(plain, aggregated)


@pytest.mark.parametrize("at", PLACES)
@EAGER_TOO
def test_frozen_layers_stay_as_they_are(at, run_eagerly):
    def make():
        inputs = keras.Input((4,))
        frozen = keras.layers.Dense(6, "tanh", trainable=False)(inputs)
        return heads(inputs, keras.layers.Dense(5, "tanh", name="free")(frozen))

    x, y = data()
    model = compiled(make, aggregator="mgda", aggregate_at=at, run_eagerly=run_eagerly)
    frozen = [ops.convert_to_numpy(v).copy() for v in model.non_trainable_variables]
    before = ops.convert_to_numpy(model.get_layer("free").kernel).copy()
    model.train_on_batch(x, y)
    assert np.abs(before - ops.convert_to_numpy(model.get_layer("free").kernel)).max()
    after = [ops.convert_to_numpy(v) for v in model.non_trainable_variables]
    assert_same(frozen, after, 0)


def test_a_trunk_frozen_after_compile_is_not_trained():
    def make():
        inputs = keras.Input((4,))
        first = keras.layers.Dense(6, "tanh", name="first")(inputs)
        return heads(inputs, keras.layers.Dense(5, "tanh")(first))

    x, y = data()
    model = compiled(make, aggregator="mgda")
    model.train_on_batch(x, y)
    model.get_layer("first").trainable = False
    model.compile("sgd", "mse", aggregator="mgda")
    before = ops.convert_to_numpy(model.get_layer("first").kernel).copy()
    model.train_on_batch(x, y)
    assert_same([before], [ops.convert_to_numpy(model.get_layer("first").kernel)], 0)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses it on PyTorch")
@pytest.mark.parametrize("at", PLACES)
def test_several_steps_an_execution(at):
    x, y = data()

    def run(steps):
        return trained(
            separate_heads,
            lambda: keras.optimizers.SGD(0.1),
            x,
            y,
            aggregator=keras_mtl.aggregation.EveryKSteps("upgrad", 2),
            aggregate_at=at,
            steps_per_execution=steps,
            run_eagerly=False,
        )

    assert_same(run(1), run(3))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a choice on TensorFlow alone")
@pytest.mark.parametrize("at", PLACES)
def test_compiled_by_xla_or_not(at):
    x, y = data()

    def run(jit_compile):
        return trained(
            separate_heads,
            lambda: keras.optimizers.SGD(0.1),
            x,
            y,
            aggregator=keras_mtl.aggregation.EveryKSteps("upgrad", 2),
            aggregate_at=at,
            jit_compile=jit_compile,
            run_eagerly=False,
        )

    assert_same(run(False), run(True), 1e-4)


@pytest.mark.parametrize("at", PLACES)
def test_a_step_is_traced_once(at):
    calls = []

    class Counting(keras.layers.Layer):
        def call(self, x):
            calls.append(1)
            return x

    x, y = data()
    model = compiled(
        lambda: separate_heads([Counting()]),
        aggregator="pcgrad",
        aggregate_at=at,
        run_eagerly=False,
    )
    calls.clear()
    model.fit(x, y, batch_size=8, epochs=1, verbose=0)
    first = len(calls)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0)
    steps = 3 * ROWS // 8 if BACKEND == "torch" else 0
    assert len(calls) == first + steps
    if BACKEND == "torch":
        assert first == ROWS // 8  # one forward pass a step
