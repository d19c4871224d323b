import functools

import keras
import numpy as np
import pytest
from keras import ops
from layer_check import check_layer

from keras_mtl.layers import OutputCalibrator

RNG = np.random.default_rng(0)
EVENTS = ["click", "apply", "approve"]
P = {name: RNG.uniform(size=(10, 1)).astype("float32") for name in EVENTS}


@pytest.mark.parametrize("inputs", [P, list(P.values())], ids=["dict", "list"])
def test_layer(inputs):
    make_layer = functools.partial(OutputCalibrator, EVENTS, weight=0.3)
    check_layer(make_layer, (inputs,), keeps_dtype=True)


def test_outputs_are_the_inputs_and_the_penalty_that_of_the_order():
    layer = OutputCalibrator(EVENTS)
    for name, y in layer(P).items():
        np.testing.assert_array_equal(ops.convert_to_numpy(y), P[name])
    expected = 0.6 * (
        np.maximum(P["apply"] - P["click"], 0).mean()
        + np.maximum(P["approve"] - P["apply"], 0).mean()
    )
    assert float(sum(layer.losses)) == pytest.approx(expected, rel=1e-5)


def test_no_penalty_in_order():
    layer = OutputCalibrator(EVENTS)
    layer(
        {
            n: np.full((4, 1), p, "float32")
            for n, p in zip(EVENTS, (0.9, 0.9, 0.1), strict=True)
        }
    )
    assert float(sum(layer.losses)) == 0


def test_training_puts_probabilities_in_order():
    inputs = keras.Input((1,))
    p = {
        "click": keras.layers.Dense(1, "sigmoid")(inputs),
        "buy": keras.layers.Dense(1, "sigmoid", bias_initializer="ones")(inputs),
    }
    model = keras.Model(inputs, OutputCalibrator(["click", "buy"])(p))
    losses = dict.fromkeys(p, "mse")
    model.compile(keras.optimizers.SGD(1.0), losses, loss_weights=dict.fromkeys(p, 0.0))
    x = np.zeros((8, 1))
    model.fit(x, {"click": x, "buy": x}, epochs=60, verbose=0)
    found = model.predict(x, verbose=0)
    assert (found["buy"] <= found["click"] + 0.05).all()


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"task_names": ["a"]}, "must hold 2 or more names"),
        ({"weight": -1}, "`weight` must be a finite number at least 0"),
    ],
)
def test_refuses(arguments, match):
    with pytest.raises(ValueError, match=match) as error:
        OutputCalibrator(**{"task_names": EVENTS, **arguments})
    assert "Received: " in str(error.value)


def test_half_precision_leaves_probabilities_as_they_are():
    inputs = {name: np.array([[0.99999], [1e-8]], "float32") for name in EVENTS}
    outputs = OutputCalibrator(EVENTS, dtype="mixed_float16")(inputs)
    for name in EVENTS:
        np.testing.assert_array_equal(ops.convert_to_numpy(outputs[name]), inputs[name])


@pytest.mark.parametrize(
    "inputs, match",
    [
        (np.full((3, 1), 0.5), "with one tensor for each task"),
        ([np.ones((3, 1)), np.ones((3,)), np.ones((3, 1))], "must have one shape"),
    ],
)
def test_refuses_inputs_that_cannot_be_compared(inputs, match):
    with pytest.raises(ValueError, match=match):
        OutputCalibrator(EVENTS)(inputs)
