import keras
import numpy as np
import pytest
from keras import ops
from layer_check import check_jit, check_layer, check_mask, slow_to_compile

from keras_mtl.layers import Sluice

RNG = np.random.default_rng(0)
TASKS = ["b", "a", "c"]
X = RNG.normal(size=(10, 5)).astype("float32")
STEPS = RNG.normal(size=(10, 4, 5)).astype("float32")
BY_TASK = {name: RNG.normal(size=(10, 5)).astype("float32") for name in TASKS}


def to_numpy(x):
    return ops.convert_to_numpy(x)


def by_hand(layer, x_of):
    """The network written out subspace by subspace."""
    tasks, subspaces = len(layer.task_names), layer.subspaces
    inputs = [x_of[layer.task_names[i // subspaces]] for i in range(tasks * subspaces)]
    beta = to_numpy(layer.beta)
    outputs = dict.fromkeys(layer.task_names, 0.0)
    for depth, (dense, alpha) in enumerate(zip(layer.dense, layer.alphas, strict=True)):
        kernel, bias = to_numpy(dense.kernels[0]), to_numpy(dense.biases[0])
        h = [
            np.maximum(x @ k + b, 0)
            for x, k, b in zip(inputs, kernel, bias, strict=True)
        ]
        alpha = to_numpy(alpha)
        inputs = [sum(a * y for a, y in zip(row, h, strict=True)) for row in alpha]
        for t, name in enumerate(layer.task_names):
            own = np.concatenate(inputs[t * subspaces : (t + 1) * subspaces], axis=-1)
            outputs[name] = outputs[name] + beta[t, depth] * own
    return outputs


@pytest.mark.parametrize(
    "inputs",
    [X, STEPS, BY_TASK, list(BY_TASK.values())],
    ids=["one", "steps", "dict", "list"],
)
def test_layer(inputs):
    check_layer(lambda: Sluice(TASKS, units=6, orthogonality=1e-3), (inputs,))


def test_layer_with_every_argument():
    def make():
        return Sluice(
            ("only",),
            units=6,
            num_layers=3,
            subspaces=3,
            orthogonality=1e-3,
            own=0.7,
            activation="tanh",
            use_bias=False,
            kernel_initializer=keras.initializers.HeNormal(seed=3),
            bias_initializer="ones",
            kernel_regularizer="l2",
        )

    check_layer(make, (X,))


def test_mask():
    steps = STEPS.copy()
    steps[2:5, 1:] = 0
    check_mask(lambda: Sluice(TASKS, units=6), (steps,))


@slow_to_compile
def test_jit():
    check_jit(lambda: Sluice(TASKS, units=6), (X,))


@pytest.mark.parametrize("subspaces", [1, 2, 3])
@pytest.mark.parametrize("inputs", [X, STEPS, BY_TASK], ids=["one", "steps", "dict"])
def test_is_what_its_formula_says(inputs, subspaces):
    layer = Sluice(
        TASKS, 6, num_layers=3, subspaces=subspaces, bias_initializer="normal"
    )
    layer(inputs)
    layer.set_weights([RNG.normal(size=w.shape) for w in layer.get_weights()])
    outputs = layer(inputs)
    x_of = inputs if isinstance(inputs, dict) else dict.fromkeys(TASKS, inputs)
    for name, expected in by_hand(layer, x_of).items():
        np.testing.assert_allclose(
            to_numpy(outputs[name]), expected, rtol=1e-4, atol=1e-3
        )


def test_the_penalty_is_the_overlap_of_subspaces_of_the_same_task():
    layer = Sluice(TASKS, 6, num_layers=2, subspaces=3, orthogonality=0.5)
    layer(X)
    expected = 0.0
    for dense in layer.dense:
        kernels = to_numpy(dense.kernels[0]).reshape(3, 3, -1, 2)
        for own in kernels:
            for s in range(3):
                for r in range(s):
                    expected += 0.5 * np.sum((own[r].T @ own[s]) ** 2)
    assert float(sum(layer.losses)) == pytest.approx(expected, rel=1e-4)


def test_training_on_the_penalty_makes_subspaces_orthogonal():
    inputs = keras.Input((8,))
    layer = Sluice(["a", "b"], 4, num_layers=1, orthogonality=1.0)
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(0.1), {"a": "mse", "b": "mse"}, [0.0, 0.0])
    x = RNG.normal(size=(16, 8))
    layer(x)
    before = float(sum(layer.losses))
    y = {"a": np.zeros((16, 4)), "b": np.zeros((16, 4))}
    model.fit(x, y, epochs=100, verbose=0)
    layer(x)
    assert float(sum(layer.losses)) < 1e-3 * before


def test_with_one_subspace_there_is_no_penalty():
    layer = Sluice(TASKS, 6, subspaces=1)
    layer(X)
    assert float(sum(layer.losses)) == 0


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"units": 5}, "`units` must be a multiple of `subspaces`"),
        ({"units": 0}, "`units` must be a whole number of at least 1"),
        ({"num_layers": 0}, "`num_layers` must be a whole number"),
        ({"subspaces": 0}, "`subspaces` must be a whole number"),
        ({"orthogonality": -1}, "`orthogonality` must be a finite number"),
        ({"own": 0}, "`own` must be a finite number"),
    ],
)
def test_refuses(arguments, match):
    with pytest.raises(ValueError, match=match) as error:
        Sluice(**{"task_names": TASKS, "units": 6, **arguments})
    assert "Received: " in str(error.value)
