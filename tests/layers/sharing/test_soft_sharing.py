import itertools

import keras
import numpy as np
import pytest
from keras import ops
from layer_check import check_jit, check_layer, check_mask, slow_to_compile

import keras_mtl
from keras_mtl.layers import SoftSharing
from keras_mtl.layers.sharing.soft_sharing import trace_norm

RNG = np.random.default_rng(0)
TASKS = ["b", "a", "c"]
X = RNG.normal(size=(10, 5)).astype("float32")
STEPS = RNG.normal(size=(10, 4, 5)).astype("float32")
BY_TASK = {name: RNG.normal(size=(10, 5)).astype("float32") for name in TASKS}


def to_numpy(x):
    return ops.convert_to_numpy(x)


def trunk():
    return keras.Sequential(
        [
            keras.layers.Dense(4, "tanh", name="lower"),
            keras.layers.Dense(3, name="upper"),
        ]
    )


def kernels(layer, name):
    return [
        to_numpy(copy.get_layer(name).kernel).astype("float64") for copy in layer.copies
    ]


def nuclear(matrix):
    return np.linalg.svd(matrix, compute_uv=False).sum()


@pytest.mark.parametrize("penalty", ["l2", "trace_norm", "tucker"])
@pytest.mark.parametrize(
    "inputs",
    [X, BY_TASK, list(BY_TASK.values())],
    ids=["one", "dict", "list"],
)
def test_layer(inputs, penalty):
    check_layer(
        lambda: SoftSharing(keras.layers.Dense(3), TASKS, penalty, weight=0.01),
        (inputs,),
    )


def test_a_model_with_a_factor_for_each_layer():
    check_layer(
        lambda: SoftSharing(trunk(), TASKS, weight={"lower": 0.1, "upper": 0.01}), (X,)
    )


def test_inputs_of_other_shapes_for_layers_that_take_them():
    inputs = {"a": STEPS, "b": STEPS[:, :2]}
    check_layer(lambda: SoftSharing(keras.layers.Dense(3), ["a", "b"]), (inputs,))


def test_mask():
    steps = STEPS.copy()
    steps[2:5, 1:] = 0
    check_mask(lambda: SoftSharing(keras.layers.LayerNormalization(), TASKS), (steps,))


@slow_to_compile
@pytest.mark.parametrize("penalty", ["l2", "trace_norm"])
def test_jit(penalty):
    check_jit(lambda: SoftSharing(keras.layers.Dense(3), TASKS, penalty), (X,))


def test_outputs_are_those_of_the_copies():
    layer = SoftSharing(trunk(), TASKS)
    outputs = layer(BY_TASK)
    for name, copy in zip(TASKS, layer.copies, strict=True):
        np.testing.assert_array_equal(
            to_numpy(outputs[name]), to_numpy(copy(BY_TASK[name]))
        )
    lower = kernels(layer, "lower")
    assert not np.allclose(lower[0], lower[1])


@pytest.mark.parametrize("weight", [0.5, {"lower": 0.5, "upper": 0.25}, {"upper": 2.0}])
def test_l2_is_the_sum_over_pairs_of_tasks(weight):
    layer = SoftSharing(trunk(), TASKS, weight=weight)
    layer(X)
    layer.set_weights([RNG.normal(size=w.shape) for w in layer.get_weights()])
    layer(X)
    expected = 0.0
    for name in ("lower", "upper"):
        factor = weight if isinstance(weight, float) else weight.get(name, 0)
        weights = [copy.get_layer(name).get_weights() for copy in layer.copies]
        for one, other in itertools.combinations(weights, 2):
            for a, b in zip(one, other, strict=True):
                expected += factor * np.sum((a - b) ** 2)
    assert float(sum(layer.losses)) == pytest.approx(expected, rel=1e-5)


def test_trace_norm_is_the_sum_of_singular_values():
    layer = SoftSharing(trunk(), TASKS, "trace_norm", weight=0.5)
    layer(X)
    expected = sum(
        nuclear(np.stack([k.ravel() for k in kernels(layer, name)]))
        for name in ("lower", "upper")
    )
    assert float(sum(layer.losses)) == pytest.approx(0.5 * expected, rel=1e-5)


def test_tucker_is_the_mean_over_unfoldings():
    layer = SoftSharing(keras.layers.Dense(4), TASKS, "tucker", weight=0.5)
    layer(X)
    tensor = np.stack([to_numpy(copy.kernel) for copy in layer.copies])
    expected = np.mean(
        [
            nuclear(np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1))
            for axis in range(3)
        ]
    )
    assert float(sum(layer.losses)) == pytest.approx(0.5 * expected, rel=1e-5)


def numpy_gradient(function, x):
    variable = keras.Variable(x)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            y = function(variable)
        return to_numpy(tape.gradient(y, variable.value))
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(variable.value))
    y = function(variable.value)
    y.backward()
    return to_numpy(variable.value.grad)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (1, 5)])
def test_trace_norm_and_its_gradient(shape, scale):
    x = (scale * RNG.normal(size=shape)).astype("float32")
    assert float(trace_norm(ops.convert_to_tensor(x))) == pytest.approx(
        nuclear(x.astype("float64")), rel=1e-4
    )
    u, _, v = np.linalg.svd(x.astype("float64"), full_matrices=False)
    np.testing.assert_allclose(numpy_gradient(trace_norm, x), u @ v, atol=2e-3)


def test_trace_norm_of_dependent_rows_has_the_least_subgradient():
    row = RNG.normal(size=(1, 6)).astype("float32")
    x = np.concatenate([row, 2 * row, -row])
    assert float(trace_norm(ops.convert_to_tensor(x))) == pytest.approx(
        nuclear(x), rel=2e-3
    )
    expected = np.outer([1, 2, -1], row) / (np.sqrt(6) * np.linalg.norm(row))
    np.testing.assert_allclose(numpy_gradient(trace_norm, x), expected, atol=2e-3)
    assert not numpy_gradient(trace_norm, np.zeros((3, 6), "float32")).any()


@pytest.mark.parametrize("penalty", ["l2", "trace_norm"])
def test_a_large_factor_makes_tasks_alike_or_of_low_rank(penalty):
    inputs = keras.Input((5,))
    layer = SoftSharing(keras.layers.Dense(4), TASKS, penalty, weight=0.05)
    model = keras.Model(inputs, layer(inputs))
    model.compile(
        keras.optimizers.SGD(0.1),
        dict.fromkeys(TASKS, "mse"),
        dict.fromkeys(TASKS, 0.0),
    )
    y = {name: np.zeros((10, 4)) for name in TASKS}
    before = np.stack([to_numpy(c.kernel).ravel() for c in layer.copies])
    model.fit(X, y, epochs=300, verbose=0)
    after = np.stack([to_numpy(c.kernel).ravel() for c in layer.copies])
    if penalty == "l2":
        assert after.std(axis=0).max() < 1e-3 * before.std(axis=0).max()
        np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=1e-5)
    else:
        # Each singular value falls by 0.05 x 0.1 a step, to zero.
        expected = np.maximum(np.linalg.svd(before, compute_uv=False) - 1.5, 0)
        np.testing.assert_allclose(
            np.linalg.svd(after, compute_uv=False), expected, atol=0.02
        )


def test_each_copy_is_private_to_its_task():
    inputs = keras.Input((5,))
    layer = SoftSharing(keras.layers.Dense(4), TASKS, name="soft")
    outputs = {n: keras.layers.Dense(1)(h) for n, h in layer(inputs).items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    rows = {row.layer: row for row in model.sharing_summary(print_fn=lambda line: None)}
    for name in TASKS:
        assert rows[f"soft_{name}"].tasks == (name,)
        assert rows[f"soft_{name}"].kind == "private"


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"layer": "dense"}, "`layer` must be a keras.layers.Layer"),
        ({"penalty": "l1"}, "`penalty` must be one of"),
        ({"weight": -1}, "`weight` must be a finite number at least 0"),
        ({"weight": {"dense": -1}}, "must be a finite number at least 0"),
    ],
)
def test_refuses(arguments, match):
    defaults = {"layer": keras.layers.Dense(3), "task_names": TASKS}
    with pytest.raises(ValueError, match=match) as error:
        SoftSharing(**{**defaults, **arguments})
    assert "Received: " in str(error.value)


def test_refuses_a_factor_for_no_layer():
    layer = SoftSharing(trunk(), TASKS, weight={"lowest": 1.0})
    with pytest.raises(ValueError, match=r"of \['lower', 'upper'\]. Received: \['low"):
        layer(X)


def test_a_frozen_copy_pulls_the_others_and_stays():
    layer = SoftSharing(keras.layers.Dense(3), TASKS, weight=1.0, frozen_tasks=["a"])
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layer(inputs))
    own = [to_numpy(copy.kernel).copy() for copy in layer.copies]
    expected = sum(
        np.sum((own[s] - own[t]) ** 2) for s in range(3) for t in range(s + 1, 3)
    )
    layer(X)
    assert float(sum(layer.losses)) == pytest.approx(expected, rel=1e-4)
    model.compile(keras.optimizers.SGD(0.01), dict.fromkeys(TASKS, "mse"))
    model.train_on_batch(X, {name: np.zeros((10, 3)) for name in TASKS})
    moved = [
        not np.array_equal(to_numpy(copy.kernel), old)
        for copy, old in zip(layer.copies, own, strict=True)
    ]
    assert moved == [name != "a" for name in TASKS]
    again = SoftSharing.from_config(layer.get_config())
    assert [copy.trainable for copy in again.copies] == moved


def test_a_layer_that_is_frozen_has_a_factor_nevertheless():
    trunk = keras.Sequential([keras.layers.Dense(2, name="den")])
    trunk.trainable = False
    SoftSharing(trunk, ["a", "b"], weight={"den": 1.0})(X)


def test_copies_of_a_seeded_layer_are_drawn_independently():
    initializer = keras.initializers.GlorotUniform(seed=1)
    kernels = []
    for _ in range(2):
        template = keras.layers.Dense(2, kernel_initializer=initializer)
        layer = SoftSharing(template, ["a", "b"])
        layer(X)
        kernels.append([to_numpy(copy.kernel) for copy in layer.copies])
    assert np.abs(kernels[0][0] - kernels[0][1]).min() > 1e-6
    np.testing.assert_array_equal(kernels[0], kernels[1])


def test_refuses_frozen_tasks_that_are_none():
    with pytest.raises(ValueError, match="`frozen_tasks` must be a list of tasks"):
        SoftSharing(keras.layers.Dense(2), ["a", "b"], frozen_tasks=["c"])
