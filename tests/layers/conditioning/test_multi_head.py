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

from keras_mtl.layers import MultiHead

RNG = np.random.default_rng(0)
TASKS = ["b", "a", "c"]
X = RNG.normal(size=(10, 5)).astype("float32")
STEPS = RNG.normal(size=(10, 4, 5)).astype("float32")
FACTORS = {"b": 1.0, "a": 2.0, "c": -1.0}
IMAGE = RNG.normal(size=(10, 4, 3, 5)).astype("float32")


def to_numpy(x):
    return ops.convert_to_numpy(x)


def dense_stack(layer, task, shape=(None, 5)):
    """The same head as a stack of `Dense`, with the slices of the layer's weights."""
    sizes = (*layer.hidden_units, layer.units)
    activations = [layer.hidden_activation] * len(layer.hidden_units)
    stack = keras.Sequential(
        [
            keras.layers.Dense(size, activation, use_bias=layer.use_bias)
            for size, activation in zip(
                sizes, [*activations, layer.activation], strict=True
            )
        ]
    )
    stack.build(shape)
    slices = [to_numpy(w)[task] for w in layer.weights]
    stack.set_weights(slices)
    return stack


@pytest.mark.parametrize("x", [X, STEPS], ids=["dense", "sequence"])
def test_layer(x):
    check_layer(lambda: MultiHead(2, TASKS, hidden_units=(6,)), (x,))


def test_layer_with_every_argument():
    def make():
        return MultiHead(
            1,
            ("only",),
            activation="sigmoid",
            hidden_units=(6, 4),
            hidden_activation="tanh",
            use_bias=False,
            kernel_initializer=keras.initializers.HeNormal(seed=3),
            bias_initializer="ones",
            kernel_regularizer="l2",
        )

    check_layer(make, (X,))


def test_mask():
    steps = STEPS.copy()
    steps[2:5, 1:] = 0
    check_mask(lambda: MultiHead(2, TASKS, hidden_units=(6,)), (steps,))


@slow_to_compile
def test_jit():
    check_jit(lambda: MultiHead(2, TASKS, hidden_units=(6,)), (X,))


def test_half_precision():
    check_half_precision_gradients(lambda: MultiHead(2, TASKS, hidden_units=(6,)), (X,))


@pytest.mark.parametrize("x", [X, STEPS, IMAGE], ids=["dense", "sequence", "image"])
@pytest.mark.parametrize("hidden_units", [(), (6,), (6, 4)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_equals_separate_dense_stacks(x, hidden_units, use_bias):
    layer = MultiHead(
        2, TASKS, "tanh", hidden_units, use_bias=use_bias, bias_initializer="normal"
    )
    outputs = layer(x)
    for t, name in enumerate(TASKS):
        expected = to_numpy(dense_stack(layer, t, x.shape)(x))
        np.testing.assert_allclose(
            to_numpy(outputs[name]), expected, rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_a_linear_head_scales_with_its_input(scale):
    layer = MultiHead(2, TASKS, hidden_units=(6,), use_bias=False)
    y, scaled = layer(X), layer(X * np.float32(scale))
    for name in TASKS:
        np.testing.assert_allclose(
            to_numpy(scaled[name]),
            to_numpy(y[name]) * scale,
            rtol=1e-4,
            atol=1e-6 * scale,
        )


def test_it_trains_as_separate_dense_stacks_do():
    """One step of both gives the same weights."""
    layer = MultiHead(2, TASKS, hidden_units=(6,))
    inputs = keras.Input((5,))
    together = keras.Model(inputs, layer(inputs))
    stacks = [dense_stack(layer, t) for t in range(3)]
    apart = keras.Model(
        inputs, {n: s(inputs) for n, s in zip(TASKS, stacks, strict=True)}
    )
    targets = {name: RNG.normal(size=(10, 2)).astype("float32") for name in TASKS}
    for model in (together, apart):
        model.compile(keras.optimizers.SGD(0.1), loss=dict.fromkeys(TASKS, "mse"))
        model.train_on_batch(X, targets)
    for t, stack in enumerate(stacks):
        for w, expected in zip(layer.weights, stack.get_weights(), strict=True):
            np.testing.assert_allclose(to_numpy(w)[t], expected, rtol=1e-4, atol=1e-6)


def test_heads_share_no_parameter():
    layer = MultiHead(2, TASKS, hidden_units=(6,))
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layer(inputs)["a"])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    before = [np.copy(w) for w in numpy_values(layer.trainable_variables)]
    model.train_on_batch(X, np.ones((10, 2), "float32"))
    for old, new in zip(before, numpy_values(layer.trainable_variables), strict=True):
        np.testing.assert_array_equal(old[[0, 2]], new[[0, 2]])
        assert (old[1] != new[1]).any()


@pytest.mark.parametrize("seed", [None, 7])
def test_every_head_has_the_scale_of_its_own_fan_in_and_draws_of_its_own(seed):
    layer = MultiHead(
        100, range(8), kernel_initializer=keras.initializers.HeNormal(seed)
    )
    layer.build((None, 200))
    kernel = to_numpy(layer.kernels[0])
    np.testing.assert_allclose(kernel.std((1, 2)), np.sqrt(2 / 200), rtol=0.05)
    correlation = np.corrcoef(kernel.reshape(8, -1)) - np.eye(8)
    assert np.abs(correlation).max() < 0.05


def test_a_seed_gives_the_same_heads_again():
    def kernels():
        layer = MultiHead(
            4,
            TASKS,
            hidden_units=(5,),
            kernel_initializer=keras.initializers.HeNormal(7),
        )
        layer.build((None, 5))
        return [to_numpy(k) for k in layer.kernels]

    first, second = kernels(), kernels()
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first[0][..., :4] != first[1]).all(), "layers of a head repeat each other"


@pytest.mark.parametrize("x", [X, STEPS], ids=["dense", "sequence"])
@pytest.mark.parametrize("hidden_units", [(), (6,)])
def test_an_input_for_each_head_in_a_dict(x, hidden_units):
    inputs = {name: (FACTORS[name] * x).astype("float32") for name in TASKS}
    check_layer(lambda: MultiHead(2, TASKS, hidden_units=hidden_units), (inputs,))
    for units in (1, 2):
        layer = MultiHead(units, TASKS, hidden_units=hidden_units)
        outputs = layer(inputs)
        for name in TASKS:
            expected = to_numpy(layer(inputs[name])[name])
            np.testing.assert_allclose(
                to_numpy(outputs[name]), expected, rtol=1e-4, atol=1e-5
            )


def test_refuses_a_dict_with_other_keys_or_shapes():
    with pytest.raises(ValueError, match=r"a dict with the keys.*Received: keys"):
        MultiHead(1, TASKS)({"a": X, "b": X})
    with pytest.raises(ValueError, match=r"must have one shape. Received: shapes"):
        MultiHead(1, TASKS)({"a": X, "b": X, "c": X[:, :3]})


def test_outputs_come_in_the_order_of_the_names():
    layer = MultiHead(2, TASKS)
    assert list(layer(X)) == TASKS
    assert list(layer(keras.Input((5,)))) == TASKS
    assert list(layer.compute_output_shape((None, 5))) == TASKS


def test_variables_are_stacked_by_task():
    layer = MultiHead(2, TASKS, hidden_units=(6,))
    layer.build((None, 5))
    assert layer.stacked_by_task
    shapes = [(3, 5, 6), (3, 6), (3, 6, 2), (3, 2)]
    assert [tuple(v.shape) for v in layer.weights] == shapes


def test_an_empty_batch_gives_empty_outputs():
    for x in (X, STEPS):
        y = MultiHead(2, TASKS, hidden_units=(6,))(x[:0])
        assert all(tuple(h.shape) == (0, *x.shape[1:-1], 2) for h in y.values())


@pytest.mark.parametrize("names", [[], "income", ()])
def test_refuses_what_are_no_names(names):
    with pytest.raises(ValueError, match=r"`task_names` must be a list.*Received: "):
        MultiHead(1, names)


def test_refuses_a_name_twice():
    with pytest.raises(ValueError, match=r"must not hold a name twice. Received: "):
        MultiHead(1, ["a", "a"])


@pytest.mark.parametrize("units, hidden_units", [(0, ()), (1, (4, 0))])
def test_refuses_sizes_below_one(units, hidden_units):
    with pytest.raises(ValueError, match=f"must be positive. Received: units={units}"):
        MultiHead(units, TASKS, hidden_units=hidden_units)


def test_refuses_a_number_for_the_hidden_sizes():
    with pytest.raises(ValueError, match=r"must be a tuple.*Received: 64"):
        MultiHead(1, TASKS, hidden_units=64)


@pytest.mark.parametrize("shape", [(None,), (None, 4, None)])
def test_refuses_inputs_without_features(shape):
    with pytest.raises(ValueError, match=r"last axis of known size. Received: "):
        MultiHead(1, TASKS)(keras.Input(batch_shape=shape))


def test_refuses_another_number_of_features_than_it_was_built_for():
    layer = MultiHead(1, TASKS)
    layer(X)
    with pytest.raises(ValueError, match=r"last axis of the input must be 5.*Received"):
        layer(X[:, :4])


@pytest.mark.parametrize("inputs", [X, STEPS])
@pytest.mark.parametrize("hidden_units", [(), (4,)])
def test_an_input_for_each_head_in_the_order_of_the_names(inputs, hidden_units):
    layer = MultiHead(2, TASKS, hidden_units=hidden_units)
    alone = {task: layer(inputs * factor)[task] for task, factor in FACTORS.items()}
    together = np.stack([inputs * FACTORS[task] for task in sorted(TASKS)])
    found = layer(together, repeated=True)
    assert list(found) == TASKS
    for task in TASKS:
        np.testing.assert_allclose(
            to_numpy(found[task]), to_numpy(alone[task]), rtol=1e-4, atol=1e-5
        )
