import keras
import numpy as np
import pytest
from keras import ops
from layer_check import check_jit, check_layer, check_mask, slow_to_compile

from keras_mtl.layers import LearningToBranch

RNG = np.random.default_rng(0)
TASKS = ["b", "a", "c"]
X = RNG.normal(size=(10, 5)).astype("float32")
BY_TASK = {name: RNG.normal(size=(10, 5)).astype("float32") for name in TASKS}


def to_numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize(
    "inputs",
    [X, BY_TASK, list(BY_TASK.values())],
    ids=["one", "dict", "list"],
)
def test_layer(inputs):
    # With averages every layer is trained, not only those that a draw has picked.
    check_layer(lambda: LearningToBranch(TASKS, [4, 3], warmup_steps=1), (inputs,))


def test_layer_with_every_argument():
    check_layer(
        lambda: LearningToBranch(
            ("x", "y"),
            units=[4, 3, 2],
            width=4,
            activation="tanh",
            use_bias=False,
            temperature=2.0,
            anneal_steps=10,
            warmup_steps=2,
            kernel_initializer=keras.initializers.HeNormal(seed=3),
            bias_initializer="ones",
            kernel_regularizer="l2",
            seed=3,
        ),
        (X,),
    )


def test_mask():
    steps = RNG.normal(size=(10, 4, 5))
    steps[2:5, 1:] = 0
    check_mask(lambda: LearningToBranch(TASKS, [4, 3]), (steps,))


@slow_to_compile
def test_jit():
    check_jit(lambda: LearningToBranch(TASKS, [4, 3], warmup_steps=1), (X,))


def level_outputs(level, inputs):
    kernel, bias = to_numpy(level.kernels[0]), to_numpy(level.biases[0])
    return [
        np.maximum(x @ k + b, 0) for x, k, b in zip(inputs, kernel, bias, strict=True)
    ]


def test_children_have_the_output_of_their_parent():
    layer = LearningToBranch(TASKS, [4, 3], width=2, bias_initializer="normal")
    layer(X)
    layer.logits[0].assign([[0, 1], [1, 0]])
    layer.logits[1].assign([[1, 0], [0, 1], [0, 1]])
    assert [list(level) for level in layer.branches()] == [[1, 0], [0, 1, 1]]
    first = level_outputs(layer.levels[0], [X, X])
    second = level_outputs(layer.levels[1], [first[1], first[0]])
    outputs = layer(X)
    for name, parent in zip(TASKS, (0, 1, 1), strict=True):
        np.testing.assert_allclose(to_numpy(outputs[name]), second[parent], atol=1e-5)


def test_parents_are_averaged_in_the_warm_up():
    layer = LearningToBranch(TASKS, [4], width=2, warmup_steps=2)
    outputs = [layer(X, training=True) for _ in range(3)]
    parents = level_outputs(layer.levels[0], [X, X])
    for drawn in outputs[:2]:
        for name in TASKS:
            np.testing.assert_allclose(
                to_numpy(drawn[name]), np.mean(parents, axis=0), atol=1e-5
            )
    for name in TASKS:
        y = to_numpy(outputs[2][name])
        assert any(np.allclose(y, parent, atol=1e-5) for parent in parents)


def test_inference_is_deterministic_and_training_draws():
    layer = LearningToBranch(TASKS, [4, 3], seed=1)
    np.testing.assert_array_equal(to_numpy(layer(X)["a"]), to_numpy(layer(X)["a"]))
    drawn = [to_numpy(layer(X, training=True)["a"]) for _ in range(8)]
    assert len({y.tobytes() for y in drawn}) > 1


def test_learns_which_parent_suits_which_task():
    """Two linear layers that cannot be trained, and tasks that want one each."""
    x = RNG.normal(size=(256, 2)).astype("float32")
    inputs = keras.Input((2,))
    keras.utils.set_random_seed(0)
    layer = LearningToBranch(["a", "b", "c"], [1], width=2, activation=None)
    model = keras.Model(inputs, layer(inputs))
    layer.levels[0].kernels[0].assign([[[1], [0]], [[0], [1]]])
    layer.levels[0].trainable = False
    y = {"a": x[:, :1], "b": x[:, 1:], "c": x[:, :1]}
    model.compile(keras.optimizers.Adam(0.1), dict.fromkeys(y, "mse"))
    model.fit(x, y, epochs=20, verbose=0)
    assert list(layer.branches()[0]) == [0, 1, 0]


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"units": []}, "`units` must be a list with the size of each level"),
        ({"units": 3}, "`units` must be a list with the size of each level"),
        ({"units": [0]}, "`units` must be a whole number of at least 1"),
        ({"width": 0}, "`width` must be a whole number of at least 1"),
        ({"temperature": 0}, "`temperature` must be a finite number greater than 0"),
        ({"anneal_steps": 0}, "`anneal_steps` must be a whole number"),
    ],
)
def test_refuses(arguments, match):
    with pytest.raises(ValueError, match=match) as error:
        LearningToBranch(**{"task_names": TASKS, "units": [3], **arguments})
    assert "Received: " in str(error.value)


def test_refuses_an_input_for_each_task_with_another_width():
    with pytest.raises(ValueError, match=r"`width` must be 3. Received: width=2"):
        LearningToBranch(TASKS, [3], width=2)(BY_TASK)


def test_refuses_to_show_branches_before_it_is_built():
    with pytest.raises(ValueError, match=r"no branches before it is built.*Received: "):
        LearningToBranch(TASKS, [3]).branches()


def test_parents_are_averaged_in_the_warm_up_at_inference_too():
    layer = LearningToBranch(["a", "b"], units=[3], warmup_steps=1)
    layer.build(X.shape)
    expected = to_numpy(layer.levels[0](X)).mean(axis=1)
    np.testing.assert_allclose(to_numpy(layer(X)["a"]), expected, atol=1e-6)
    layer(X, training=True)
    assert np.abs(to_numpy(layer(X)["a"]) - expected).max() > 1e-3
