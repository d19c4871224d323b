import functools

import keras
import numpy as np
import pytest
from keras import ops
from layer_check import (
    check_batch_sizes,
    check_config,
    check_dtype_policies,
    check_permutation,
    check_saving,
    check_shapes_and_dtypes,
    check_training,
)

import keras_mtl
from keras_mtl.layers import PositionBiasTower

RNG = np.random.default_rng(0)
LOGIT = RNG.normal(size=(10, 1)).astype("float32")
LOGITS = {n: RNG.normal(size=(10, 1)).astype("float32") for n in ("b", "a")}
POSITION = np.eye(10, dtype="float32")[RNG.integers(0, 10, size=10)]


def to_numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize(
    "logits", [LOGIT, LOGITS, list(LOGITS.values())], ids=["one", "dict", "list"]
)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {
            "hidden_units": (4,),
            "dropout": 0.3,
            "activation": "tanh",
            "kernel_initializer": "he_normal",
            "seed": 1,
        },
    ],
)
def test_layer(logits, arguments):
    def make():
        return PositionBiasTower(**arguments)

    inputs = (logits, POSITION)
    for check in (
        check_shapes_and_dtypes,
        check_config,
        check_saving,
        functools.partial(check_dtype_policies, keeps_dtype=True),
        check_permutation,
        check_batch_sizes,
        check_training,
    ):
        check(make, inputs)


@pytest.mark.parametrize("logits", [LOGIT, LOGITS], ids=["one", "dict"])
def test_changes_no_serving_output(logits):
    layer = PositionBiasTower((4,))
    outputs = layer(logits, POSITION)
    keras.tree.map_structure(
        lambda y, z: np.testing.assert_array_equal(to_numpy(y), z), outputs, logits
    )


def test_adds_a_logit_of_each_task_in_training():
    layer = PositionBiasTower(dropout=0)
    outputs = layer(LOGITS, POSITION, training=True)
    kernel = to_numpy(layer.tower[0].kernel)
    for column, name in enumerate(sorted(LOGITS)):
        expected = LOGITS[name] + POSITION @ kernel[:, column : column + 1]
        np.testing.assert_allclose(to_numpy(outputs[name]), expected, atol=1e-6)


def test_drops_the_features_of_rows():
    layer = PositionBiasTower(dropout=0.3, seed=1)
    position = np.repeat(POSITION[:1], 5000, axis=0)
    added = to_numpy(layer(np.zeros((5000, 1), "float32"), position, training=True))
    kernel = to_numpy(layer.tower[0].kernel)
    whole = np.isclose(added, position[:1] @ kernel)
    assert np.logical_or(whole, added == 0).all()
    assert (added == 0).mean() == pytest.approx(0.3, abs=0.03)


def test_takes_the_bias_off_the_main_logit():
    """Clicks fall with the position, which tells something of the item as well."""
    generator = np.random.default_rng(0)
    rows = 20_000
    wanted = generator.normal(size=rows)
    # A ranking that is half right shows wanted items first.
    score = wanted + generator.normal(size=rows)
    position = np.argsort(np.argsort(-score)) * 10 // rows
    logit = 1.0 * wanted - 0.5 * position + 1.0
    click = generator.uniform(size=rows) < 1 / (1 + np.exp(-logit))

    def slope(with_tower):
        x, p = keras.Input((1,)), keras.Input((10,))
        z = keras.layers.Dense(1)(x)
        if with_tower:
            z = PositionBiasTower(dropout=0.0)(z, p)
        model = keras.Model([x, p], keras.layers.Activation("sigmoid")(z))
        model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy")
        inputs = [wanted[:, None], np.eye(10)[position]]
        model.fit(inputs, click, batch_size=500, epochs=12, verbose=0)
        weights = [w for w in model.get_weights() if w.shape == (1, 1)]
        return float(weights[0][0, 0])

    assert slope(with_tower=True) == pytest.approx(1.0, abs=0.12)
    assert slope(with_tower=False) > 1.5


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"hidden_units": 3}, "`hidden_units` must be a tuple"),
        ({"hidden_units": (0,)}, "`hidden_units` must be a whole number"),
        ({"dropout": 1.0}, "`dropout` must be less than 1"),
        ({"dropout": -0.1}, "`dropout` must be a finite number"),
    ],
)
def test_refuses(arguments, match):
    with pytest.raises(ValueError, match=match) as error:
        PositionBiasTower(**arguments)
    assert "Received: " in str(error.value)


@pytest.mark.parametrize(
    "logits, features, match",
    [
        (LOGIT[:, 0], POSITION, "The logits must be of shape"),
        (LOGIT, POSITION[:, 0], "The features must be of shape"),
    ],
)
def test_refuses_other_shapes(logits, features, match):
    with pytest.raises(ValueError, match=match) as error:
        PositionBiasTower()(logits, features)
    assert "Received: " in str(error.value)


def test_half_precision_serves_the_main_logit_to_the_last_digit():
    logit = np.array([[12.3456]], "float32")
    tower = PositionBiasTower(dtype="mixed_float16")
    np.testing.assert_array_equal(to_numpy(tower(logit, POSITION[:1])), logit)


def test_layers_before_the_logit_of_a_task_are_its_own():
    x, position = keras.Input((4,)), keras.Input((10,))
    h = keras.layers.Dense(3, name="trunk")(x)
    logits = {n: keras.layers.Dense(1, name=f"own_{n}")(h) for n in "ab"}
    tower = PositionBiasTower(dropout=0.0, name="tower")
    model = keras_mtl.MultiTaskModel([x, position], tower(logits, position))
    rows = {row.layer: row for row in model.sharing_summary(print_fn=lambda line: None)}
    assert rows["own_a"].tasks == ("a",)
    assert rows["trunk"].kind == "shared"

    start = [to_numpy(v).copy() for v in model.trainable_variables]
    data = [np.ones((8, 4)), np.zeros((8, 10))], {n: np.ones((8, 1)) for n in "ab"}
    kernels = []
    for arguments in ({}, {"aggregator": "mean", "aggregate_at": "parameters"}):
        for variable, value in zip(model.trainable_variables, start, strict=True):
            variable.assign(value)
        model.compile(keras.optimizers.SGD(0.1), "mse", **arguments)
        model.train_on_batch(*data)
        kernels.append(to_numpy(model.get_layer("own_a").kernel).copy())
    np.testing.assert_allclose(kernels[1], kernels[0], atol=1e-6)
