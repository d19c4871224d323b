import keras
import numpy as np
import pytest
from keras import ops
from layer_check import check_jit, check_layer, check_mask, slow_to_compile

import keras_mtl
from keras_mtl.layers import RelationshipPrior

RNG = np.random.default_rng(0)
TASKS = ["b", "a", "c"]
X = RNG.normal(size=(10, 5)).astype("float32")


def to_numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("prior", ["matrix", "tensor"])
def test_layer(prior):
    check_layer(
        lambda: RelationshipPrior(2, TASKS, hidden_units=(4,), prior=prior), (X,)
    )


def test_layer_with_every_argument():
    check_layer(
        lambda: RelationshipPrior(
            2,
            ("a", "b"),
            activation="sigmoid",
            hidden_units=(4,),
            use_bias=False,
            weight=0.01,
            prior="tensor",
            momentum=0.5,
            epsilon=0.1,
        ),
        (X,),
    )


def test_mask():
    steps = RNG.normal(size=(10, 4, 5))
    steps[2:5, 1:] = 0
    check_mask(lambda: RelationshipPrior(2, TASKS), (steps,))


@slow_to_compile
def test_jit():
    check_jit(lambda: RelationshipPrior(2, TASKS, prior="tensor"), (X,))


def random_covariance(size):
    root = RNG.normal(size=(size, 2 * size))
    return (root @ root.T / (2 * size)).astype("float32")


@pytest.mark.parametrize("prior", ["matrix", "tensor"])
def test_the_loss_is_that_of_the_normal_distribution(prior):
    layer = RelationshipPrior(2, TASKS, prior=prior, weight=0.3)
    layer(X)
    covariances = [random_covariance(c.shape[0]) for c in layer.covariances[0]]
    for variable, value in zip(layer.covariances[0], covariances, strict=True):
        variable.assign(value)
    layer(X)
    full = np.ones((1, 1))
    for size, value in zip((3, 5, 2), [*covariances, None, None], strict=False):
        full = np.kron(full, np.eye(size) if value is None else value)
    w = to_numpy(layer.kernels[0]).ravel().astype("float64")
    expected = 0.15 * w @ np.linalg.solve(full, w)
    assert float(sum(layer.losses)) == pytest.approx(expected, rel=1e-4)


def test_the_covariance_of_tasks_is_that_of_their_kernels():
    layer = RelationshipPrior(2, TASKS, momentum=0.0, epsilon=1e-3)
    layer(X, training=True)
    w = to_numpy(layer.kernels[0]).reshape(3, -1)
    expected = w @ w.T / w.shape[1] + 1e-3 * np.eye(3)
    np.testing.assert_allclose(layer.task_covariance(), expected, atol=1e-5)
    scale = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(
        layer.task_correlation(), expected / np.outer(scale, scale), atol=1e-4
    )


def test_momentum():
    layer = RelationshipPrior(2, TASKS, momentum=0.75)
    layer(X, training=True)
    once = RelationshipPrior(2, TASKS, momentum=0.0)
    once.build(X.shape)
    once.set_weights(
        [np.eye(3) if w.shape == (3, 3) else w for w in layer.get_weights()]
    )
    once(X, training=True)
    expected = 0.75 * np.eye(3) + 0.25 * once.task_covariance()
    np.testing.assert_allclose(layer.task_covariance(), expected, atol=1e-5)


def test_inference_leaves_the_covariance_alone():
    layer = RelationshipPrior(2, TASKS)
    layer(X)
    np.testing.assert_array_equal(layer.task_covariance(), np.eye(3))


def test_flip_flop_comes_to_a_fixed_point():
    """At the maximum of the likelihood every axis fits the others."""
    layer = RelationshipPrior(4, TASKS, prior="tensor", momentum=0.0, epsilon=1e-4)
    layer.build(X.shape)
    for _ in range(60):
        layer(X, training=True)
    for covariance in layer.covariances[0]:
        size = covariance.shape[0]
        assert np.abs(to_numpy(covariance) - np.eye(size)).max() > 0.05
    before = [to_numpy(c).copy() for c in layer.covariances[0]]
    layer(X, training=True)
    for old, new in zip(before, layer.covariances[0], strict=True):
        np.testing.assert_allclose(to_numpy(new), old, atol=0.02 * np.abs(old).max())


def test_learns_which_tasks_are_related_and_draws_them_together():
    """Tasks "a" and "b" are the same, "c" is opposed, "d" is another."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(400, 12)).astype("float32")
    w, other = generator.normal(size=(2, 12, 1))
    y = {"a": x @ w, "b": x @ w, "c": -x @ w, "d": x @ other}
    inputs = keras.Input((12,))
    heads = RelationshipPrior(1, list(y), weight=1e-3)
    model = keras_mtl.MultiTaskModel(inputs, heads(inputs))
    model.compile(keras.optimizers.Adam(0.05), loss="mse")
    model.fit(x, y, epochs=30, batch_size=100, verbose=0)
    correlation = heads.task_correlation()
    assert correlation[0, 1] > 0.9
    assert correlation[0, 2] < -0.9
    assert abs(correlation[0, 3]) < 0.75


def test_a_task_with_few_labels_learns_from_its_relative():
    generator = np.random.default_rng(1)
    x = generator.normal(size=(300, 20)).astype("float32")
    w = generator.normal(size=(20, 1))
    y = {"a": x @ w, "b": x @ w}
    y["b"] = np.where(np.arange(300)[:, None] < 8, y["b"], np.nan)

    def error(weight):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((20,))
        heads = RelationshipPrior(
            1, ["a", "b"], weight=weight, epsilon=1e-2, use_bias=False
        )
        model = keras_mtl.MultiTaskModel(inputs, heads(inputs))
        model.compile(keras.optimizers.Adam(0.02), loss="mse")
        model.fit(x, y, epochs=300, batch_size=300, verbose=0)
        return np.mean((model.predict(x, verbose=0)["b"] - x @ w) ** 2)

    assert error(0.02) < 0.75 * error(0.0)


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"prior": "normal"}, "`prior` must be one of"),
        ({"weight": -1}, "`weight` must be a finite number at least 0"),
        ({"momentum": 1.0}, "`momentum` must be less than 1"),
        ({"epsilon": 0}, "`epsilon` must be a finite number greater than 0"),
        ({"units": 0}, "must be positive"),
    ],
)
def test_refuses(arguments, match):
    with pytest.raises(ValueError, match=match) as error:
        RelationshipPrior(**{"units": 2, "task_names": TASKS, **arguments})
    assert "Received: " in str(error.value)


def test_an_axis_is_fitted_to_the_kernel_whitened_along_the_others():
    layer = RelationshipPrior(2, TASKS, prior="tensor", momentum=0.0, epsilon=1e-3)
    layer(X)
    covariances = [random_covariance(c.shape[0]) for c in layer.covariances[0]]
    for variable, value in zip(layer.covariances[0], covariances, strict=True):
        variable.assign(value)
    layer(X, training=True)
    w = to_numpy(layer.kernels[0]).astype("float64")
    _, features, units = (np.asarray(c, "float64") for c in covariances)
    rows = w.reshape(3, -1)
    whitened = np.linalg.solve(np.kron(features, units), rows.T)
    expected = rows @ whitened / rows.shape[1] + 1e-3 * np.eye(3)
    np.testing.assert_allclose(layer.task_covariance(), expected, rtol=1e-3)


def test_a_list_of_inputs():
    by_task = {name: RNG.normal(size=(4, 5)).astype("float32") for name in TASKS}
    layer = RelationshipPrior(2, TASKS)
    expected = layer(by_task)
    outputs = layer([by_task[name] for name in TASKS])
    for name in TASKS:
        np.testing.assert_array_equal(to_numpy(outputs[name]), to_numpy(expected[name]))
