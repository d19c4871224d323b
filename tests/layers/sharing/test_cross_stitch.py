import keras
import numpy as np
import pytest
from keras import ops
from layer_check import (
    check_half_precision_gradients,
    check_jit,
    check_layer,
    check_mask,
    slow_to_compile,
)

import keras_mtl
from keras_mtl.layers import CrossStitch

RNG = np.random.default_rng(0)
TASKS = ["b", "a", "c"]
X = {name: RNG.normal(size=(10, 5)).astype("float32") for name in TASKS}
IMAGES = {name: RNG.normal(size=(10, 4, 3, 5)).astype("float32") for name in TASKS}


def to_numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize(
    "inputs", [X, IMAGES, list(X.values())], ids=["rows", "images", "list"]
)
@pytest.mark.parametrize("per_channel", [False, True])
def test_layer(inputs, per_channel):
    names = None if isinstance(inputs, list) else TASKS
    check_layer(lambda: CrossStitch(names, own=0.8, per_channel=per_channel), (inputs,))


def test_mask():
    steps = {name: RNG.normal(size=(10, 4, 5)) for name in TASKS}
    steps["a"][2:5, 1:] = 0
    check_mask(CrossStitch, (steps,))


@slow_to_compile
def test_jit():
    check_jit(CrossStitch, (X,))


def test_half_precision():
    check_half_precision_gradients(CrossStitch, (X,))


@pytest.mark.parametrize("inputs", [X, IMAGES], ids=["rows", "images"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("names", [None, TASKS])
def test_is_the_combination_that_its_matrix_says(inputs, per_channel, names):
    layer = CrossStitch(names, per_channel=per_channel)
    layer(inputs)
    matrix = RNG.normal(size=layer.matrix.shape).astype("float32")
    layer.set_weights([matrix])
    outputs = layer(inputs)
    order = names or sorted(TASKS)
    for t, name in enumerate(order):
        expected = sum(matrix[..., t, s] * inputs[o] for s, o in enumerate(order))
        np.testing.assert_allclose(to_numpy(outputs[name]), expected, atol=1e-5)


def test_starts_near_the_identity_with_rows_that_sum_to_one():
    layer = CrossStitch()
    layer(X)
    expected = np.full((3, 3), 0.05) + 0.85 * np.eye(3)
    np.testing.assert_allclose(to_numpy(layer.matrix), expected, atol=1e-6)
    only = CrossStitch()
    only({"a": X["a"]})
    np.testing.assert_array_equal(to_numpy(only.matrix), [[1.0]])


def test_at_the_identity_networks_are_separate():
    layer = CrossStitch(own=1.0)
    for name, y in layer(X).items():
        np.testing.assert_allclose(to_numpy(y), X[name], atol=1e-6)

    inputs = keras.Input((5,))
    own = {n: keras.layers.Dense(4, "relu", name=f"own_{n}") for n in TASKS}
    stitch = CrossStitch(own=1.0, trainable=False)
    outputs = stitch({n: dense(inputs) for n, dense in own.items()})
    model = keras.Model(inputs, outputs["a"])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = {n: to_numpy(dense.kernel).copy() for n, dense in own.items()}
    model.train_on_batch(X["a"], np.ones((10, 4)))
    moved = {n for n in TASKS if (before[n] != to_numpy(own[n].kernel)).any()}
    assert moved == {"a"}


def test_all_tasks_share_what_is_stitched():
    inputs = keras.Input((5,))
    features = {n: keras.layers.Dense(4, name=f"own_{n}")(inputs) for n in TASKS}
    stitched = CrossStitch(name="stitch")(features)
    outputs = {n: keras.layers.Dense(1, name=n)(h) for n, h in stitched.items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    rows = {row.layer: row for row in model.sharing_summary(print_fn=lambda line: None)}
    assert rows["own_a"].kind == rows["stitch"].kind == "shared"
    assert rows["a"].kind == "private"


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_scales_with_its_input(scale):
    layer = CrossStitch()
    y = layer(X)
    scaled = layer({name: x * np.float32(scale) for name, x in X.items()})
    for name in TASKS:
        np.testing.assert_allclose(
            to_numpy(scaled[name]),
            to_numpy(y[name]) * scale,
            rtol=1e-4,
            atol=1e-6 * scale,
        )


@pytest.mark.parametrize("own", [0, 1.1, -0.5, "near"])
def test_refuses_an_own_weight_out_of_range(own):
    with pytest.raises(ValueError, match=r"`own` must be a finite number.*Received"):
        CrossStitch(own=own)


def test_refuses_one_tensor():
    with pytest.raises(ValueError, match=r"a dict or a list with one tensor for each"):
        CrossStitch()(X["a"])
    with pytest.raises(ValueError, match=r"a dict or a list with one tensor for each"):
        CrossStitch(TASKS)(X["a"])


def test_refuses_features_of_other_shapes():
    with pytest.raises(ValueError, match=r"must have one shape. Received: shapes"):
        CrossStitch()({"a": X["a"], "b": X["b"][:, :3]})
