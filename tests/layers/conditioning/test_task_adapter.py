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
    randomize,
    slow_to_compile,
)

from keras_mtl.layers import TaskAdapter

RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 5)).astype("float32")
STEPS = RNG.normal(size=(10, 4, 5)).astype("float32")
IMAGE = RNG.normal(size=(10, 4, 3, 5)).astype("float32")
INDEX = np.arange(10, dtype="int32") % 3
ONE_HOT = np.eye(3, dtype="float32")[INDEX]
SOFT = RNG.dirichlet(np.ones(3), 10).astype("float32")


def to_numpy(x):
    return ops.convert_to_numpy(x)


def adapters_by_hand(layer, x):
    """What the adapter of each task adds to all rows, task after task."""
    down, down_bias = to_numpy(layer.down_kernel), to_numpy(layer.down_bias)
    up, up_bias = to_numpy(layer.up_kernel), to_numpy(layer.up_bias)
    return [
        np.maximum(x @ down[t] + down_bias[t], 0) @ up[t] + up_bias[t] for t in range(3)
    ]


@pytest.mark.parametrize(
    "x, task",
    [(X, INDEX), (IMAGE, SOFT), (STEPS, RNG.random((10, 4, 3)))],
    ids=["dense", "image", "task_of_each_step"],
)
def test_layer(x, task):
    # A bottleneck of two ReLUs may be dead at the start.
    check_layer(lambda: TaskAdapter(3, 2, "tanh"), (x, task))


def test_layer_with_every_argument():
    def make():
        return TaskAdapter(
            3,
            2,
            activation="gelu",
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer="l2",
        )

    check_layer(make, (STEPS, INDEX))


def test_mask():
    steps = STEPS.copy()
    steps[2:5, 1:] = 0
    check_mask(lambda: TaskAdapter(3, 2), (steps, INDEX))


@slow_to_compile
def test_jit():
    check_jit(lambda: TaskAdapter(3, 2, "tanh"), (STEPS, INDEX))


def test_half_precision():
    check_half_precision_gradients(lambda: TaskAdapter(3, 2, "tanh"), (STEPS, INDEX))


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
@pytest.mark.parametrize("x", [X, STEPS, IMAGE], ids=["dense", "sequence", "image"])
def test_it_starts_as_the_identity(x, scale):
    x = x * np.float32(scale)
    np.testing.assert_array_equal(to_numpy(TaskAdapter(3, 2)(x, INDEX)), x)


@pytest.mark.parametrize("x", [X, STEPS, IMAGE], ids=["dense", "sequence", "image"])
def test_each_row_passes_the_adapter_of_its_own_task(x):
    layer = TaskAdapter(3, 2)
    layer(x, INDEX)
    randomize(layer)
    updates = adapters_by_hand(layer, x)
    expected = np.stack([x[i] + updates[t][i] for i, t in enumerate(INDEX)])
    for task in (INDEX, INDEX[:, None], ONE_HOT):
        np.testing.assert_allclose(
            to_numpy(layer(x, task)), expected, rtol=1e-4, atol=1e-6
        )


def test_a_soft_descriptor_mixes_the_adapters():
    layer = TaskAdapter(3, 2)
    layer(X, SOFT)
    randomize(layer)
    updates = adapters_by_hand(layer, X)
    expected = X + sum(SOFT[:, t, None] * updates[t] for t in range(3))
    np.testing.assert_allclose(to_numpy(layer(X, SOFT)), expected, rtol=1e-4, atol=1e-6)


def test_tasks_share_no_parameter():
    layer = TaskAdapter(3, 2)
    x, task = keras.Input((5,)), keras.Input((), dtype="int32")
    model = keras.Model([x, task], layer(x, task))
    randomize(layer)
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    before = [np.copy(w) for w in numpy_values(layer.trainable_variables)]
    model.train_on_batch([X, np.full(10, 1)], np.ones((10, 5), "float32"))
    for old, new in zip(before, numpy_values(layer.trainable_variables), strict=True):
        np.testing.assert_array_equal(old[[0, 2]], new[[0, 2]])
        assert (old[1] != new[1]).any()


def test_every_adapter_has_the_scale_of_its_own_fan_in_and_draws_of_its_own():
    layer = TaskAdapter(8, 100, kernel_initializer="he_normal")
    layer.build((None, 200), (None,))
    kernel = to_numpy(layer.down_kernel)
    np.testing.assert_allclose(kernel.std((1, 2)), np.sqrt(2 / 200), rtol=0.05)
    correlation = np.corrcoef(kernel.reshape(8, -1)) - np.eye(8)
    assert np.abs(correlation).max() < 0.05


def test_variables_are_stacked_by_task():
    layer = TaskAdapter(3, 2)
    layer.build((None, 5), (None,))
    assert layer.stacked_by_task
    assert all(v.shape[0] == 3 for v in layer.weights)


def test_an_index_out_of_range_inside_a_step_passes_unchanged():
    x, task = keras.Input((5,)), keras.Input((), dtype="int32")
    layer = TaskAdapter(3, 2)
    model = keras.Model([x, task], layer(x, task))
    randomize(layer)
    y = model.predict([X[:3], np.array([-1, 0, 3], "int32")], verbose=0)
    np.testing.assert_array_equal(y[[0, 2]], X[[0, 2]])
    assert (y[1] != X[1]).all()


def test_refuses_an_index_out_of_range():
    with pytest.raises(ValueError, match=r"in \[0, 3\).*Received: indices from 0 to 3"):
        TaskAdapter(3, 2)(X, np.arange(10) % 4)


@pytest.mark.parametrize("task", [np.zeros(10, "float32"), SOFT[:, :2]])
def test_refuses_what_is_neither_index_nor_descriptor(task):
    with pytest.raises(ValueError, match=r"integer index of shape.*Received: task of"):
        TaskAdapter(3, 2)(X, task)
    with pytest.raises(ValueError, match=r"integer index of shape.*Received: task of"):
        TaskAdapter(3, 2)(keras.Input((5,)), keras.Input(task.shape[1:]))


def test_refuses_other_batches():
    with pytest.raises(ValueError, match=r"must be the first axes of the features"):
        TaskAdapter(3, 2)(X, INDEX[:4])


@pytest.mark.parametrize("num_tasks, bottleneck", [(0, 2), (3, 0)])
def test_refuses_sizes_below_one(num_tasks, bottleneck):
    with pytest.raises(ValueError, match=f"Received: num_tasks={num_tasks}"):
        TaskAdapter(num_tasks, bottleneck)


def test_refuses_features_of_unknown_size():
    with pytest.raises(ValueError, match=r"last axis of known size. Received: "):
        TaskAdapter(3, 2)(keras.Input((4, None)), keras.Input((), dtype="int32"))
