import keras
import numpy as np
import pytest
from keras import ops
from layer_check import (
    check_half_precision_gradients,
    check_jit,
    check_layer,
    check_mask,
    numpy_values,
    slow_to_compile,
)

from keras_mtl.layers import SharedTrunk

RNG = np.random.default_rng(0)


def to_numpy(x):
    return ops.convert_to_numpy(x)


def features(rows_b=10, rows_a=10, inner=(5,)):
    return {
        "b": RNG.normal(size=(rows_b, *inner)).astype("float32"),
        "a": RNG.normal(size=(rows_a, *inner)).astype("float32"),
    }


def mlp():
    return keras.Sequential([keras.layers.Dense(6, "tanh"), keras.layers.Dense(2)])


def functional():
    inputs = keras.Input((5,))
    h = keras.layers.BatchNormalization()(keras.layers.Dense(6, "relu")(inputs))
    return keras.Model(inputs, keras.layers.Dense(2)(h))


def test_layer():
    check_layer(lambda: SharedTrunk(functional()), (features(),))


def test_layer_on_images():
    check_layer(
        lambda: SharedTrunk(keras.layers.Conv2D(2, 3)), (features(inner=(6, 5, 1)),)
    )


@slow_to_compile
def test_jit():
    check_jit(lambda: SharedTrunk(functional()), (features(),))


def test_half_precision():
    check_half_precision_gradients(lambda: SharedTrunk(functional()), (features(),))


@pytest.mark.parametrize("jit_compile", [True, False])
def test_steps_with_changing_batch_sizes(jit_compile):
    if jit_compile and keras.backend.backend() == "torch":
        pytest.skip("torch compiles anew for each size, many seconds each")
    layer = SharedTrunk(functional())
    inputs = {"a": keras.Input((5,), name="a"), "b": keras.Input((5,), name="b")}
    model = keras.Model(inputs, layer(inputs))
    model.compile(
        keras.optimizers.SGD(0.1),
        loss={"a": "mse", "b": "mse"},
        jit_compile=jit_compile,
    )
    for rows_a, rows_b in ((4, 4), (6, 2), (1, 7)):
        x = features(rows_b, rows_a)
        y = {task: np.ones((len(v), 2), "float32") for task, v in x.items()}
        assert np.isfinite(model.train_on_batch(x, y)).all()
    predicted = model(features(3, 1))
    assert predicted["a"].shape == (1, 2) and predicted["b"].shape == (3, 2)


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_mask_of_a_layer_that_keeps_the_steps():
    x = features(inner=(4, 5))
    x["a"][2:5, 1:] = 0
    check_mask(lambda: SharedTrunk(keras.layers.Dense(3)), (x,))
    check_mask(lambda: SharedTrunk(keras.layers.LSTM(3, return_sequences=True)), (x,))
    check_mask(
        lambda: SharedTrunk(
            keras.Sequential(
                [keras.layers.LSTM(3, return_sequences=True), keras.layers.Dense(3)]
            )
        ),
        (x,),
    )


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_mask_ends_where_the_steps_do():
    x = features(inner=(4, 5))
    x["a"][2:5, 1:] = 0
    check_mask(lambda: SharedTrunk(keras.layers.LSTM(3)), (x,), passes=False)
    pooled = keras.Sequential([keras.layers.Dense(3), keras.layers.LSTM(3)])
    check_mask(lambda: SharedTrunk(pooled), (x,), passes=False)


def test_the_trunk_sees_the_masks_of_the_tasks_that_have_one():
    x = features(inner=(4, 5))
    x["a"][:, 2:] = 0
    layer = SharedTrunk(keras.layers.GlobalAveragePooling1D())
    y = layer({"a": keras.layers.Masking()(x["a"]), "b": x["b"]})
    np.testing.assert_allclose(to_numpy(y["a"]), x["a"][:, :2].mean(1), atol=1e-6)
    np.testing.assert_allclose(to_numpy(y["b"]), x["b"].mean(1), atol=1e-6)


@pytest.mark.parametrize("rows_b, rows_a", [(10, 10), (7, 3), (1, 4), (0, 5), (5, 0)])
@pytest.mark.parametrize("training", [True, False])
def test_equals_the_trunk_on_the_concatenation(rows_b, rows_a, training):
    x = features(rows_b, rows_a)
    trunk = functional()
    twin = keras.models.clone_model(trunk)
    twin.set_weights(trunk.get_weights())
    y = SharedTrunk(trunk)(x, training=training)
    expected = to_numpy(twin(np.concatenate([x["a"], x["b"]]), training=training))
    np.testing.assert_allclose(to_numpy(y["a"]), expected[:rows_a], atol=1e-6)
    np.testing.assert_allclose(to_numpy(y["b"]), expected[rows_a:], atol=1e-6)
    for w, e in zip(trunk.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(w, e, atol=1e-6)  # moving statistics of all rows


def test_the_trunk_runs_once():
    calls = []

    class Counting(keras.layers.Layer):
        def call(self, x):
            calls.append(x.shape)
            return x

    SharedTrunk(Counting())(features(7, 3))
    assert [tuple(shape) for shape in calls] == [(10, 5)]


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_rows_come_back_to_their_task(scale):
    x = {task: v * np.float32(scale) for task, v in features(7, 3).items()}
    y = SharedTrunk(keras.layers.Identity())(x)
    for task, v in x.items():
        np.testing.assert_array_equal(to_numpy(y[task]), v)


def test_the_order_of_the_dict_changes_nothing():
    x = features(7, 3)
    layer = SharedTrunk(keras.layers.BatchNormalization())
    y = layer(x, training=True)
    turned = layer({"a": x["a"], "b": x["b"]}, training=True)
    assert list(y) == ["b", "a"] and list(turned) == ["a", "b"]
    for task in x:
        np.testing.assert_array_equal(to_numpy(y[task]), to_numpy(turned[task]))


def test_its_parameters_serve_every_task():
    layer = SharedTrunk(keras.layers.Dense(2))
    inputs = {"a": keras.Input((5,), name="a"), "b": keras.Input((5,), name="b")}
    outputs = layer(inputs)
    for task in ("a", "b"):
        model = keras.Model(inputs, outputs[task])
        model.compile(keras.optimizers.SGD(0.1), loss="mse")
        before = [np.copy(w) for w in numpy_values(layer.trainable_variables)]
        model.train_on_batch(features(), np.ones((10, 2), "float32"))
        after = numpy_values(layer.trainable_variables)
        assert all((o != n).any() for o, n in zip(before, after, strict=True))


def test_a_trunk_with_several_outputs_gives_them_for_each_task():
    def make():
        inputs = keras.Input((5,))
        h, g = keras.layers.Dense(2)(inputs), keras.layers.Dense(3)(inputs)
        return SharedTrunk(keras.Model(inputs, {"h": h, "g": g}))

    check_layer(make, (features(),))
    y = make()(features(7, 3))
    assert y["b"]["h"].shape == (7, 2) and y["a"]["g"].shape == (3, 3)


def test_static_batch_sizes_stay_static():
    layer = SharedTrunk(keras.layers.Dense(2))
    inputs = {"a": keras.Input((5,), batch_size=4), "b": keras.Input((5,))}
    y = layer(inputs)
    assert y["a"].shape == (4, 2) and y["b"].shape == (None, 2)


@pytest.mark.parametrize("inputs", [{}, [np.ones((2, 5), "float32")]])
def test_refuses_what_is_no_dict(inputs):
    with pytest.raises(ValueError, match=r"must be a dict {task: tensor}.*Received: "):
        SharedTrunk(mlp())(inputs)


def test_refuses_several_tensors_for_a_task():
    x = {"a": [np.ones((2, 5), "float32"), np.ones((2, 5), "float32")]}
    with pytest.raises(ValueError, match=r"one tensor for each task.*Received: "):
        SharedTrunk(mlp())(x)


@pytest.mark.parametrize("shape", [(2, 4), (2, 5, 1)])
@pytest.mark.parametrize("symbolic", [True, False])
def test_refuses_shapes_that_differ(shape, symbolic):
    x = {"a": np.ones((3, 5), "float32"), "b": np.ones(shape, "float32")}
    if symbolic:
        x = {task: keras.Input(v.shape[1:]) for task, v in x.items()}
    with pytest.raises(ValueError, match=r"one shape after the batch axis.*Received: "):
        SharedTrunk(mlp())(x)


@pytest.mark.parametrize("symbolic", [True, False])
def test_refuses_dtypes_that_differ(symbolic):
    x = {"a": np.ones((3, 5), "float32"), "b": np.ones((3, 5), "int32")}
    if symbolic:
        x = {task: keras.Input((5,), dtype=v.dtype.name) for task, v in x.items()}
    with pytest.raises(ValueError, match=r"one dtype. Received: dtypes"):
        SharedTrunk(mlp())(x)


def test_refuses_what_is_no_layer():
    with pytest.raises(ValueError, match=r"must be a keras.layers.Layer. Received: "):
        SharedTrunk(lambda x: x)
