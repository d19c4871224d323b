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
from keras_mtl.layers import LowRankAdapter

RNG = np.random.default_rng(0)
TASKS = ["b", "a", "c"]
X = RNG.normal(size=(10, 5)).astype("float32")
STEPS = RNG.normal(size=(10, 4, 5)).astype("float32")
BY_TASK = {name: RNG.normal(size=(10, 5)).astype("float32") for name in TASKS}


def to_numpy(x):
    return ops.convert_to_numpy(x)


def make(**arguments):
    dense = keras.layers.Dense(3, "tanh")
    return LowRankAdapter(dense, TASKS, **{"rank": 2, **arguments})


@pytest.mark.parametrize(
    "inputs",
    [X, STEPS, BY_TASK, list(BY_TASK.values())],
    ids=["one", "steps", "dict", "list"],
)
def test_layer(inputs):
    check_layer(make, (inputs,))


def test_layer_with_every_argument():
    check_layer(
        lambda: LowRankAdapter(
            keras.layers.Dense(3, use_bias=False),
            ("only",),
            rank=1,
            alpha=0.5,
            kernel_initializer=keras.initializers.HeNormal(seed=3),
            kernel_regularizer="l2",
        ),
        (X,),
    )


def test_mask():
    steps = STEPS.copy()
    steps[2:5, 1:] = 0
    check_mask(make, (steps,))


@slow_to_compile
def test_jit():
    check_jit(make, (X,))


def test_half_precision():
    check_half_precision_gradients(make, (X,))


@pytest.mark.parametrize("inputs", [X, BY_TASK], ids=["one", "dict"])
def test_starts_as_the_shared_layer(inputs):
    layer = make()
    for name, y in layer(inputs).items():
        x = inputs[name] if isinstance(inputs, dict) else inputs
        expected = to_numpy(layer.layer(x))
        np.testing.assert_allclose(to_numpy(y), expected, atol=1e-6)


@pytest.mark.parametrize("alpha", [None, 6.0])
@pytest.mark.parametrize("inputs", [X, STEPS, BY_TASK], ids=["one", "steps", "dict"])
def test_is_what_its_formula_says(inputs, alpha):
    layer = make(alpha=alpha)
    layer(inputs)
    layer.set_weights([RNG.normal(size=w.shape) for w in layer.get_weights()])
    down, up = (to_numpy(part.kernels[0]) for part in (layer.down, layer.up))
    kernel, bias = to_numpy(layer.layer.kernel), to_numpy(layer.layer.bias)
    scale = 1.0 if alpha is None else alpha / 2
    for t, (name, y) in enumerate(layer(inputs).items()):
        assert name == TASKS[t]
        x = inputs[name] if isinstance(inputs, dict) else inputs
        expected = np.tanh(x @ kernel + bias + scale * x @ down[t] @ up[t])
        np.testing.assert_allclose(to_numpy(y), expected, atol=1e-5)


def test_a_task_moves_its_own_update_alone():
    layer = make()
    layer.layer.trainable = False
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layer(inputs)["a"])
    layer.up.set_weights([RNG.normal(size=(3, 2, 3))])
    before = [w.copy() for w in layer.get_weights()]
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.train_on_batch(X, np.ones((10, 3)))
    for old, variable in zip(before, layer.weights, strict=True):
        moved = to_numpy(variable) != old
        if moved.shape[0] == 3 and moved.ndim == 3:
            assert list(moved.any(axis=(1, 2))) == [False, True, False]
        else:
            assert not moved.any()


def test_sharing_summary_in_a_trunk_of_two():
    inputs = keras.Input((5,))
    first, second = keras.layers.Dense(4, name="first"), keras.layers.Dense(3)
    h = LowRankAdapter(first, TASKS, name="lora_1")(inputs)
    h = LowRankAdapter(second, TASKS, name="lora_2")(h)
    outputs = {n: keras.layers.Dense(1, name=n)(x) for n, x in h.items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    rows = {row.layer: row for row in model.sharing_summary(print_fn=lambda line: None)}
    assert rows["first"].kind == "shared"
    for name in ("lora_1_down", "lora_1_up", "lora_2_down", "lora_2_up"):
        assert rows[name].kind == "stacked"


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"layer": keras.layers.Conv1D(2, 2)}, "`layer` must be a keras.layers.Dense"),
        ({"rank": 0}, "`rank` must be a whole number of at least 1"),
        ({"alpha": 0}, "`alpha` must be a finite number greater than 0"),
    ],
)
def test_refuses(arguments, match):
    defaults = {"layer": keras.layers.Dense(3), "task_names": TASKS}
    with pytest.raises(ValueError, match=match) as error:
        LowRankAdapter(**{**defaults, **arguments})
    assert "Received: " in str(error.value)
