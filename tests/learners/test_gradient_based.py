"""Learners that descend on the support, against descents by hand."""

import keras
import numpy as np
import pytest

from keras_mtl import MetaModel, learners
from keras_mtl.data import Episodes


def line(learner, weight, bias):
    """Returns a model of one dense layer, y = weight x + bias."""
    model = MetaModel(learner)
    x = np.zeros((1, 2, 1), "float32")
    model({"support_x": x, "support_y": x, "query_x": x})
    variables = learner.trainable_variables
    kernel, offset = (v for v in variables if "rate" not in v.path)
    kernel.assign([[weight]])
    offset.assign([bias])
    return model


X = np.array([[[1.0], [2.0]], [[-1.0], [3.0]]], "float32")
Y = np.array([[[2.0], [1.0]], [[0.0], [1.0]]], "float32")
QUERY = np.array([[[4.0]], [[5.0]]], "float32")


def descended(weight, bias, x, y, steps, rate):
    for _ in range(steps):
        error = weight * x + bias - y
        weight, bias = (
            weight - rate * 2 * (error * x).mean(),
            bias - rate * 2 * error.mean(),
        )
    return weight, bias


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", ["MAML", "ANIL", "Reptile"])
def test_phi_is_the_end_of_the_descent(name, steps):
    arguments = {"output_dim": 1, "inner_steps": steps, "inner_rate": 0.1}
    if name == "ANIL":
        # The layer before is the identity, and stays.
        arguments["network"] = keras.Sequential([keras.layers.Rescaling(1.0)])
    else:
        arguments["hidden"] = ()
    learner = getattr(learners, name)(distribution=None, **arguments)
    model = line(learner, 0.5, -1.0)
    predicted = model.predict_query(model.adapt(X, Y), QUERY)
    for task in range(2):
        weight, bias = descended(0.5, -1.0, X[task], Y[task], steps, 0.1)
        expected = weight * QUERY[task] + bias
        np.testing.assert_allclose(predicted[task], expected, rtol=1e-5)


@pytest.mark.parametrize("first_order", [False, True])
def test_outer_gradient_of_maml(first_order):
    """Of L(phi(w)) at a query, with phi = w - rate dL/dw: by finite differences, or
    with the derivative of phi left out.
    """
    learner = learners.MAML(
        output_dim=1,
        distribution=None,
        hidden=(),
        inner_steps=2,
        inner_rate=0.1,
        first_order=first_order,
    )
    model = line(learner, 0.5, -1.0)
    rate = 1e-3
    model.compile(keras.optimizers.SGD(rate), loss="mse")
    target = np.array([[[1.0]], [[2.0]]], "float32")
    inputs = {"support_x": X, "support_y": Y, "query_x": QUERY}
    model.train_on_batch(inputs, target)
    weight = float(keras.ops.convert_to_numpy(learner.trainable_variables[0])[0, 0])
    found = (0.5 - weight) / rate

    def outer(start):
        losses = []
        for task in range(2):
            w, b = descended(start, -1.0, X[task].astype("float64"), Y[task], 2, 0.1)
            losses.append((w * QUERY[task] + b - target[task]) ** 2)
        return np.mean(losses)

    expected = (outer(0.5 + 1e-5) - outer(0.5 - 1e-5)) / 2e-5
    if first_order:
        slopes = []
        for task in range(2):
            w, b = descended(0.5, -1.0, X[task], Y[task], 2, 0.1)
            error = w * QUERY[task] + b - target[task]
            slopes.append(2 * error * QUERY[task])
        expected = np.mean(slopes)
    np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_reptile_moves_to_the_mean_of_the_ends():
    learner = learners.Reptile(output_dim=1, hidden=(), inner_steps=3, inner_rate=0.1)
    model = line(learner, 0.5, -1.0)
    model.compile(keras.optimizers.SGD(0.25), loss="mse")
    target = np.array([[[1.0]], [[2.0]]], "float32")
    model.train_on_batch({"support_x": X, "support_y": Y, "query_x": QUERY}, target)
    ends = []
    for task in range(2):
        x = np.concatenate([X[task], QUERY[task]])
        y = np.concatenate([Y[task], target[task]])
        ends.append(descended(0.5, -1.0, x, y, 3, 0.1)[0])
    expected = 0.5 + 0.25 * (np.mean(ends) - 0.5)
    weight = keras.ops.convert_to_numpy(learner.trainable_variables[0])[0, 0]
    np.testing.assert_allclose(weight, expected, rtol=1e-5)


def test_context_of_cavia():
    # y = a x + b c, c from 0: one step moves it by - rate dL/dc.
    learner = learners.CAVIA(
        output_dim=1, distribution=None, hidden=(), context=1, inner_rate=0.1
    )
    model = MetaModel(learner)
    model({"support_x": X, "support_y": Y, "query_x": QUERY})
    learner.trainable_variables[0].assign([[0.5], [2.0]])
    phi = model.adapt(X, Y)
    slope = (2 * (0.5 * X - Y) * 2.0).mean(axis=(1, 2))
    np.testing.assert_allclose(phi["context"][:, 0], -0.1 * slope, rtol=1e-5)


def test_learned_rates_are_used():
    learner = learners.MAML(
        output_dim=1,
        distribution=None,
        hidden=(),
        inner_steps=2,
        rates="shared",
        rates_per_step=True,
    )
    model = line(learner, 0.5, -1.0)
    (rates,) = learner.rate_variables
    rates.assign([0.1, 0.0])  # the second step does nothing
    predicted = model.predict_query(model.adapt(X, Y), QUERY)
    weight, bias = descended(0.5, -1.0, X[0], Y[0], 1, 0.1)
    np.testing.assert_allclose(predicted[0], weight * QUERY[0] + bias, rtol=1e-5)


def convolutions(data_format):
    return keras.Sequential(
        [
            keras.layers.Conv2D(
                4, 3, strides=2, activation="relu", data_format=data_format
            ),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )


def test_any_network_of_keras():
    torch = keras.backend.backend() == "torch"
    data_format, shape = "channels_last", (2, 4, 6, 6, 1)
    if torch:
        data_format, shape = "channels_first", (2, 4, 1, 6, 6)
    model = MetaModel(learners.MAML(ways=2, network=convolutions(data_format)))
    images = np.random.default_rng(0).uniform(size=shape).astype("float32")
    labels = np.array([[0, 1, 0, 1], [1, 0, 1, 0]])
    phi = model.adapt(images, labels)
    together = model.predict_query(phi, images)
    assert together.shape == (2, 4, 2)
    for task in range(2):
        alone = model.predict_query(
            model.adapt(images[task], labels[task]), images[task]
        )
        np.testing.assert_allclose(alone, together[task], atol=1e-5)


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize(
    "learner", [learners.MAML, learners.Reptile], ids=["MAML", "Reptile"]
)
def test_convolutions_train_and_are_saved(learner, tmp_path):
    """Compiled by XLA on TensorFlow and JAX."""
    network = keras.Sequential(
        [
            learners.PatchConv2D(4, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    rates = {"rates": "parameter"} if learner is learners.MAML else {}
    model = MetaModel(learner(ways=2, network=network, inner_steps=2, **rates))
    compiled = keras.backend.backend() != "torch"
    model.compile("adam", loss="categorical_crossentropy", jit_compile=compiled)
    x = np.random.default_rng(0).normal(size=(40, 6, 6, 1)).astype("float32")
    y = np.repeat(np.arange(4), 10)
    before = x[:4], np.array([0, 1, 0, 1])
    train = Episodes(x, y, ways=2, queries=3, episodes_per_batch=4, num_batches=6)
    history = model.fit(train, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    phi = model.adapt(*before)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.predict_query(loaded.adapt(*before), x),
        model.predict_query(phi, x),
        atol=1e-5,
    )


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="others can do it")
def test_convolutions_on_torch_must_be_channels_first():
    model = MetaModel(learners.MAML(ways=2, network=convolutions("channels_last")))
    with pytest.raises(ValueError, match="channels_first"):
        model.adapt(np.zeros((4, 6, 6, 1)), np.array([0, 1, 0, 1]))


def test_reptile_has_no_scale():
    with pytest.raises(ValueError, match="`distribution` must be None"):
        learners.Reptile(output_dim=1, distribution="gaussian")
