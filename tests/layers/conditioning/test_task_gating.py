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

from keras_mtl.layers import TaskGating

RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 5)).astype("float32")
STEPS = RNG.normal(size=(10, 4, 5)).astype("float32")
INDEX = np.arange(10, dtype="int32") % 3
ONE_HOT = np.eye(3, dtype="float32")[INDEX]
SOFT = RNG.dirichlet(np.ones(3), 10).astype("float32")
METADATA = RNG.normal(size=(10, 2)).astype("float32")


def to_numpy(x):
    return ops.convert_to_numpy(x)


def mlp():
    return keras.Sequential(
        [keras.layers.Dense(6, "tanh"), keras.layers.Dense(2, name="out")]
    )


def test_layer():
    check_layer(lambda: TaskGating(keras.layers.Dense(4, "relu"), 3), (STEPS, INDEX))


def test_layer_with_a_soft_gate_on_metadata():
    check_layer(lambda: TaskGating([mlp(), mlp()], gate="softmax"), (X, METADATA))


def test_layer_with_a_dict_of_different_networks():
    def make():
        inputs = keras.Input((5,))
        functional = keras.Model(inputs, keras.layers.Dense(2)(inputs))
        return TaskGating({"b": mlp(), "a": keras.layers.Dense(2), "c": functional})

    check_layer(make, (X, INDEX))


@slow_to_compile
def test_jit():
    check_jit(lambda: TaskGating(mlp(), 3), (X, INDEX))


def test_half_precision():
    check_half_precision_gradients(lambda: TaskGating(mlp(), 3), (X, INDEX))


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_the_networks_decide_about_the_mask():
    steps = STEPS.copy()
    steps[2:5, 1:] = 0
    check_mask(lambda: TaskGating(keras.layers.Dense(4), 3), (steps, INDEX))
    check_mask(
        lambda: TaskGating(keras.layers.LSTM(4), 3), (steps, INDEX), passes=False
    )
    recurrent = keras.Sequential(
        [keras.layers.LSTM(4, return_sequences=True), keras.layers.Dense(2)]
    )
    check_mask(lambda: TaskGating(recurrent, 3), (steps, INDEX))


def test_the_networks_see_the_mask():
    steps = STEPS.copy()
    steps[:, 2:] = 0
    masked = keras.layers.Masking()(steps)
    layer = TaskGating(keras.layers.GlobalAveragePooling1D(), 3)
    y = to_numpy(layer(masked, INDEX))
    np.testing.assert_allclose(y, steps[:, :2].mean(1), rtol=1e-5, atol=1e-6)


def test_each_row_has_the_answer_of_its_own_network():
    layer = TaskGating(mlp(), 3)
    for task in (INDEX, INDEX[:, None], ONE_HOT):
        y = to_numpy(layer(X, task))
        for i, j in enumerate(INDEX):
            own = to_numpy(layer.networks[j](X))[i]
            np.testing.assert_allclose(y[i], own, rtol=1e-5, atol=1e-6)


def test_a_soft_descriptor_mixes_the_networks():
    layer = TaskGating(mlp(), 3)
    y = to_numpy(layer(X, SOFT))
    expected = sum(SOFT[:, j, None] * to_numpy(layer.networks[j](X)) for j in range(3))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_the_soft_gate_is_the_softmax_of_a_linear_map():
    layer = TaskGating(mlp(), 3, gate="softmax")
    y = to_numpy(layer(X, METADATA))
    logits = METADATA @ to_numpy(layer.gate_map.kernel)
    gates = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = sum(gates[:, j, None] * to_numpy(layer.networks[j](X)) for j in range(3))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_no_parameter_is_shared(scale, one_hot):
    """One step on rows of task 1 alone leaves the others bit for bit as they were."""
    network = mlp() if scale == 1.0 else keras.layers.Dense(2, use_bias=False)
    layer = TaskGating(network, 3)
    x = keras.Input((5,))
    task = keras.Input((3,)) if one_hot else keras.Input((), dtype="int32")
    model = keras.Model([x, task], layer(x, task))
    model.compile(keras.optimizers.SGD(0.1 / scale), loss="mae")
    before = [
        [np.copy(w) for w in numpy_values(network.trainable_variables)]
        for network in layer.networks
    ]
    descriptor = np.eye(3, dtype="float32")[[1] * 10] if one_hot else np.full(10, 1)
    features = X * np.float32(scale)
    model.train_on_batch([features, descriptor], np.full((10, 2), -scale))
    for j, network in enumerate(layer.networks):
        after = numpy_values(network.trainable_variables)
        for old, new in zip(before[j], after, strict=True):
            assert np.array_equal(old, new) == (j != 1)


def test_an_infinity_in_one_network_stays_there():
    class Overflow(keras.layers.Layer):
        def call(self, x):
            return x * np.inf

    layer = TaskGating([keras.layers.Identity(), Overflow()])
    y = to_numpy(layer(X, np.zeros(10, "int32")))
    np.testing.assert_array_equal(y, X)


def test_copies_start_apart_and_take_the_configuration():
    template = keras.layers.Dense(4, "relu", name="expert")
    layer = TaskGating(template, 3)
    layer(X, INDEX)
    assert [n.name for n in layer.networks] == ["expert_0", "expert_1", "expert_2"]
    assert all(n.activation is keras.activations.relu for n in layer.networks)
    kernels = [to_numpy(n.kernel) for n in layer.networks]
    assert (kernels[0] != kernels[1]).all() and (kernels[1] != kernels[2]).all()
    assert not template.built


def test_the_order_of_a_dict_is_that_of_the_index():
    networks = {"z": keras.layers.Rescaling(1.0), "a": keras.layers.Rescaling(-1.0)}
    layer = TaskGating(networks)
    y = to_numpy(layer(X[:2], np.array([0, 1])))
    np.testing.assert_array_equal(y, [X[0], -X[1]])
    copy = TaskGating.from_config(layer.get_config())
    np.testing.assert_array_equal(to_numpy(copy(X[:2], np.array([0, 1]))), y)


def test_an_index_out_of_range_inside_a_step_gives_zero():
    x, task = keras.Input((5,)), keras.Input((), dtype="int32")
    model = keras.Model([x, task], TaskGating(mlp(), 3)(x, task))
    y = model.predict([X[:3], np.array([-1, 0, 3], "int32")], verbose=0)
    assert (y[[0, 2]] == 0).all() and (y[1] != 0).all()


def test_refuses_an_index_out_of_range():
    with pytest.raises(ValueError, match=r"in \[0, 3\).*Received: indices from 0 to 3"):
        TaskGating(mlp(), 3)(X, np.arange(10) % 4)


@pytest.mark.parametrize("task", [np.zeros(10, "float32"), SOFT[:, :2]])
def test_refuses_what_is_neither_index_nor_descriptor(task):
    with pytest.raises(ValueError, match=r"integer index of shape.*Received: task of"):
        TaskGating(mlp(), 3)(X, task)


def test_the_soft_gate_refuses_an_index():
    with pytest.raises(ValueError, match=r"TaskEmbedding first"):
        TaskGating(mlp(), 3, gate="softmax")(X, INDEX)


@pytest.mark.parametrize("networks", [[], {}, [keras.layers.ReLU(), 3], "dense", 4])
def test_refuses_what_are_no_networks(networks):
    with pytest.raises(ValueError, match=r"`networks` must.*Received: "):
        TaskGating(networks)


@pytest.mark.parametrize("num_tasks", [None, 0])
def test_a_single_network_needs_the_number_of_tasks(num_tasks):
    with pytest.raises(ValueError, match=f"Received: num_tasks={num_tasks}"):
        TaskGating(keras.layers.Dense(4), num_tasks)


def test_refuses_another_number_of_tasks():
    networks = [keras.layers.Dense(4), keras.layers.Dense(4)]
    with pytest.raises(ValueError, match=r"Received: num_tasks=3, 2 networks"):
        TaskGating(networks, 3)


def test_refuses_one_network_for_two_tasks():
    network = keras.layers.Dense(4)
    with pytest.raises(ValueError, match=r"a different layer for each task"):
        TaskGating([network, network])


def test_refuses_an_unknown_gate():
    with pytest.raises(ValueError, match=r"Received: 'sigmoid'"):
        TaskGating(mlp(), 3, gate="sigmoid")


@pytest.mark.parametrize("symbolic", [True, False])
def test_refuses_networks_with_outputs_of_several_shapes(symbolic):
    layer = TaskGating([keras.layers.Dense(4), keras.layers.Dense(1)])
    x, task = X, INDEX % 2
    if symbolic:
        x, task = keras.Input((5,)), keras.Input((), dtype="int32")
    with pytest.raises(ValueError, match=r"outputs of one shape. Received: "):
        layer(x, task)


@pytest.mark.parametrize("symbolic", [True, False])
def test_refuses_networks_with_several_outputs(symbolic):
    inputs = keras.Input((5,))
    network = keras.Model(inputs, [keras.layers.Dense(4)(inputs) for _ in range(2)])
    x, task = X, INDEX
    if symbolic:
        x, task = keras.Input((5,)), keras.Input((), dtype="int32")
    with pytest.raises(ValueError, match=r"one tensor as its output. Received: "):
        TaskGating(network, 3)(x, task)
