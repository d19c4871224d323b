"""A model that learns to learn, under plain `fit`."""

import keras
import numpy as np
import pytest

from keras_mtl import MetaModel, learners, losses, metrics
from keras_mtl.data import Episodes, RegressionEpisodes, Sinusoids

WAYS = 3


@pytest.fixture(scope="module")
def images():
    """Classes that differ in where they are bright; 12 classes of 12 images."""
    rng = np.random.default_rng(0)
    patterns = rng.uniform(size=(12, 8, 8)) < 0.3
    noise = rng.integers(0, 100, size=(12, 12, 8, 8))
    pixels = 150 * patterns[:, None] + noise
    return pixels.reshape(144, 8, 8).astype("uint8"), np.repeat(np.arange(12), 12)


def encoder(norm="group", **kwargs):
    return learners.ConvolutionalEncoder(
        8, blocks=2, norm=norm, pool="stride", rescale=1 / 255, **kwargs
    )


def prototypes(norm="group", **kwargs):
    model = MetaModel(learners.PrototypicalNetwork(ways=WAYS), encoder(norm), **kwargs)
    model.compile("adam", loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def episodes(images, **kwargs):
    arguments = {"ways": WAYS, "shots": 2, "queries": 3, "episodes_per_batch": 8}
    return Episodes(*images, **{**arguments, **kwargs})


def test_it_learns_to_learn(images):
    train = episodes(images, classes=range(8), rotations=True)
    test = episodes(images, classes=range(8, 12), num_batches=5, seed=1)
    model = prototypes()
    model.fit(train, steps_per_epoch=30, verbose=0)
    results = model.evaluate(test, verbose=0)
    assert results["accuracy"] > 0.9
    assert results.keys() == {"accuracy", "accuracy_ci95", "loss", "loss_ci95"}


def test_intervals_are_over_episodes(images):
    test = episodes(images, queries=(2, 5), num_batches=3)
    model = prototypes()
    results = model.evaluate(test, verbose=0)
    accuracies, found_losses = [], []
    for inputs, labels, weights in (test[i] for i in range(3)):
        predicted = model.predict_on_batch(inputs)
        right = predicted.argmax(-1) == labels.argmax(-1)
        nats = -np.log((predicted * labels).sum(-1))
        for found, values in ((accuracies, right), (found_losses, nats)):
            found += list((values * weights).sum(1) / weights.sum(1))
    for name, values in (("accuracy", accuracies), ("loss", found_losses)):
        half = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values))
        np.testing.assert_allclose(results[name], np.mean(values), rtol=1e-4)
        np.testing.assert_allclose(results[f"{name}_ci95"], half, rtol=1e-3)


def test_training_logs_have_no_intervals(images):
    model = prototypes()
    test = episodes(images, num_batches=2)
    history = model.fit(
        episodes(images), steps_per_epoch=2, validation_data=test, verbose=0
    ).history
    assert {"accuracy", "loss", "val_accuracy", "val_accuracy_ci95"} <= history.keys()
    assert "accuracy_ci95" not in history


def test_the_loss_counts_episodes_alike():
    rng = np.random.default_rng(0)
    inputs = {
        "support_x": rng.normal(size=(2, 3, 4)).astype("float32"),
        "support_y": np.tile(np.arange(3), (2, 1)),
        "query_x": rng.normal(size=(2, 5, 4)).astype("float32"),
    }
    labels = rng.integers(3, size=(2, 5))
    weights = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], "float32")
    model = MetaModel(learners.PrototypicalNetwork(ways=3))
    model.compile(loss="sparse_categorical_crossentropy")
    predicted = model.predict(inputs, verbose=0)
    nats = -np.log(np.take_along_axis(predicted, labels[..., None], -1))[..., 0]
    expected = (nats[0].mean() + nats[1, 0]) / 2
    found = model.evaluate(inputs, labels, sample_weight=weights, verbose=0)
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)


def test_a_query_that_is_very_wrong_has_a_gradient():
    # Of a probability that rounds to zero no gradient can be had.
    inputs = {
        "support_x": np.array([[[0.0], [40.0]]], "float32"),
        "support_y": np.array([[0, 1]]),
        "query_x": np.array([[[39.0]]], "float32"),
    }
    model = MetaModel(
        learners.PrototypicalNetwork(ways=2),
        keras.layers.Dense(1, kernel_initializer="ones", use_bias=False),
    )
    model.compile(keras.optimizers.SGD(1e-6), loss="sparse_categorical_crossentropy")
    loss = model.train_on_batch(inputs, np.array([[0]]))
    np.testing.assert_allclose(np.ravel(loss)[0], 39**2 - 1, rtol=1e-5)
    (kernel,) = model.encoder.get_weights()
    # The derivative of w^2 (39^2 - 1) at w = 1.
    np.testing.assert_allclose(1 - kernel[0, 0], 1e-6 * 2 * (39**2 - 1), rtol=1e-3)


@pytest.mark.parametrize("norm", ["group", "layer", "batch", "support", "none"])
def test_no_norm_leaks_between_queries_or_episodes(images, norm):
    model = prototypes(norm)
    model.fit(episodes(images), steps_per_epoch=3, verbose=0)
    inputs, _ = episodes(images, queries=10)[0]
    every = model.predict_on_batch(inputs)
    one = {key: value[2:3] for key, value in inputs.items()}
    one["query_x"] = one["query_x"][:, 4:5]
    np.testing.assert_allclose(
        model.predict_on_batch(one)[0, 0], every[2, 4], atol=1e-5
    )
    phi = model.adapt(inputs["support_x"], inputs["support_y"])
    cached = model.predict_query(phi, inputs["query_x"], batch_size=64)
    np.testing.assert_allclose(cached, every, atol=1e-5)


def test_support_moments_are_of_the_support_alone(images):
    model = prototypes("support")
    inputs, labels = episodes(images)[0]
    model.train_on_batch(inputs, labels)
    # In training as well: other queries change nothing of what is known of the task.
    bright = {**inputs, "query_x": np.full_like(inputs["query_x"], 255)}
    bright["query_x"][:, 0] = inputs["query_x"][:, 0]
    given, other = (
        keras.ops.convert_to_numpy(model(x, training=True)) for x in (inputs, bright)
    )
    np.testing.assert_allclose(given[:, 0], other[:, 0], atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "support"])
def test_a_loaded_model_answers_alike(images, norm, tmp_path):
    model = prototypes(norm)
    model.fit(episodes(images), steps_per_epoch=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    inputs, _ = episodes(images)[0]
    np.testing.assert_allclose(
        model.predict_on_batch(inputs), loaded.predict_on_batch(inputs), atol=1e-6
    )
    results = loaded.evaluate(episodes(images, num_batches=1), verbose=0)
    assert {"accuracy", "accuracy_ci95"} <= results.keys()
    loaded.fit(episodes(images), steps_per_epoch=1, verbose=0)


def test_ranges_of_every_size(images):
    # Labels are as wide as the batch has ways: the model answers as wide.
    train = episodes(images, ways=(2, 3), shots=(1, 4), queries=(2, 3), shapes=2)
    model = prototypes()
    history = model.fit(train, steps_per_epoch=8, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    few = episodes(images, ways=(2, 3), queries=(2, 3), num_batches=4, seed=3)
    assert 0 <= model.evaluate(few, verbose=0)["accuracy"] <= 1


def test_one_task_is_a_batch_of_one(images):
    model = prototypes()
    inputs, _ = episodes(images)[0]
    every = model.predict_query(
        model.adapt(inputs["support_x"], inputs["support_y"]), inputs["query_x"]
    )
    phi = model.adapt(inputs["support_x"][3], inputs["support_y"][3].argmax(-1))
    one = model.predict_query(phi, inputs["query_x"][3])
    assert one.shape == (9, WAYS)
    np.testing.assert_allclose(one, every[3], atol=1e-5)


def test_adapting_comes_before_fitting():
    model = MetaModel(learners.PrototypicalNetwork(ways=2))
    phi = model.adapt(np.array([[0.0], [1.0]]), np.array([0, 1]))
    probabilities = model.predict_query(phi, np.array([[0.2]]))
    # exp(-0.04) and exp(-0.64)
    np.testing.assert_allclose(probabilities, [[0.6457, 0.3543]], atol=1e-4)


def test_regression_with_its_metrics():
    train = RegressionEpisodes(Sinusoids(), shots=(5, 10), queries=10)
    model = MetaModel(learners.ConditionalNeuralProcess(output_dim=1, width=32))
    model.compile(
        "adam",
        loss=losses.GaussianNegativeLogLikelihood(),
        metrics=[
            metrics.LogLikelihood(),
            metrics.SquaredErrorOfMean(),
            metrics.IntervalCoverage(),
            metrics.CalibrationError(),
        ],
    )
    model.fit(train, steps_per_epoch=5, verbose=0)
    test = RegressionEpisodes(Sinusoids(), shots=5, num_batches=3, seed=1)
    results = model.evaluate(test, verbose=0)
    np.testing.assert_allclose(results["log_likelihood"], -results["loss"], rtol=1e-4)
    assert "mse_ci95" in results
    # No mean over queries, so no mean over episodes.
    assert "calibration_error_ci95" not in results
    phi = model.adapt(np.zeros((3, 1)), np.zeros((3,)))
    assert model.predict_query(phi, np.ones((7, 1))).shape == (7, 1, 2)


def test_plain_numbers_and_a_loss_of_keras():
    train = RegressionEpisodes(Sinusoids(), shots=5, queries=10)
    learner = learners.DeepSet(output_dim=1, distribution=None, width=16)
    model = MetaModel(learner)
    model.compile("adam", loss="mse", metrics=["mae"])
    model.fit(train, steps_per_epoch=2, verbose=0)
    assert "mae_ci95" in model.evaluate(train, steps=2, verbose=0)


def test_sample_draws_functions():
    model = MetaModel(learners.NeuralProcess(output_dim=1, width=16))
    x = np.linspace(-1, 1, 5)[:, None]
    phi = model.adapt(x, np.sin(x))
    drawn = model.sample(phi, x, n=4, seed=0)
    assert drawn.shape == (4, 5, 1)
    np.testing.assert_array_equal(drawn, model.sample(phi, x, n=4, seed=0))
    assert np.abs(drawn - model.sample(phi, x, n=4, seed=1)).max() > 0
    many = model.sample(phi, x, n=500, seed=2)
    predicted = model.predict_query(phi, x)
    np.testing.assert_allclose(many.mean(0), predicted[..., 0], atol=0.1)


def test_an_objective_trains_the_encoder_in_training():
    # Dropout of all leaves nothing: where it is in force answers depend on no input.
    encoder = keras.Sequential(
        [keras.layers.Dense(4), keras.layers.Dropout(1 - 1e-7), keras.layers.Dense(4)]
    )
    model = MetaModel(learners.NeuralProcess(output_dim=1, width=8), encoder)
    model.compile(
        keras.optimizers.SGD(0.1), loss=losses.GaussianNegativeLogLikelihood()
    )
    train = RegressionEpisodes(Sinusoids(), shots=5)
    inputs, labels = train[0]
    model(inputs)
    before = encoder.layers[0].get_weights()[0]
    model.train_on_batch(inputs, labels)
    np.testing.assert_array_equal(before, encoder.layers[0].get_weights()[0])


def test_a_learner_of_ones_own():
    class Mean(learners.Learner):
        """Answers with the mean label."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.scale = keras.layers.Dense(1)

        def adapt(self, support_x, support_y, support_mask):
            return {"mean": keras.ops.mean(support_y, axis=1, keepdims=True)}

        def predict(self, phi, query_x):
            return self.scale(keras.ops.zeros_like(query_x) + phi["mean"])

    train = RegressionEpisodes(Sinusoids(), shots=5, queries=10)
    model = MetaModel(Mean())
    model.compile("adam", loss="mse")
    model.fit(train, steps_per_epoch=2, verbose=0)
    assert model.predict_query(model.adapt(np.ones((4, 1)), np.ones((4, 1))), [[1.0]])


_X, _Y = np.zeros((4, 2)), np.array([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("support", "message"),
    [
        ((_X, np.array([0, 1, 2, 3])), "`support_y` must be classes from 0 to 2"),
        ((_X, np.array([0, 1, -1, 2])), "`support_y` must be classes from 0 to 2"),
        ((_X, _Y[:3]), "as many tasks and examples"),
        ((_X[:0], _Y[:0]), "at least one example"),
        ((_X, _Y, np.zeros(4, bool)), "at least one example"),
        ((np.full((4, 2), np.nan), _Y), "`support_x` must be finite"),
        ((np.zeros((4, 3)), _Y), "examples of shape"),
        ((_X, np.full((4, 3), 0.5)), "must be one-hot"),
    ],
)
def test_supports_that_do_not_fit(support, message):
    model = MetaModel(learners.PrototypicalNetwork(ways=3))
    model.adapt(_X, _Y)
    with pytest.raises(ValueError, match=message) as error:
        model.adapt(*support)
    assert "Received: " in str(error.value)


def test_queries_that_do_not_fit():
    model = MetaModel(learners.PrototypicalNetwork(ways=3))
    with pytest.raises(ValueError, match="Queries need a model"):
        model.predict_query({}, _X)
    phi = model.adapt(_X, _Y)
    with pytest.raises(ValueError, match="one or more examples of shape"):
        model.predict_query(phi, np.zeros((4, 3)))
    with pytest.raises(ValueError, match="one or more examples of shape"):
        model.predict_query(phi, np.zeros((0, 2)))
    with pytest.raises(ValueError, match="for every task of `phi`"):
        model.predict_query(phi, np.zeros((2, 4, 2)))
    with pytest.raises(ValueError, match="latent variable"):
        model.sample(phi, _X, 3)


def test_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match="`adapt` and `predict`"):
        MetaModel(keras.layers.Dense(3))
    with pytest.raises(ValueError, match="`encoder` must be a layer"):
        MetaModel(learners.PrototypicalNetwork(ways=3), encoder=64)
    with pytest.raises(ValueError, match="`ways`, or for regression"):
        learners.DeepSet(ways=3, output_dim=1)
    with pytest.raises(ValueError, match="must be given `ways` or `output_dim`"):
        learners.DeepSet()
    model = MetaModel(learners.DeepSet(output_dim=1))
    with pytest.raises(ValueError, match="returns distributions"):
        model.compile(loss="mse")
    loss = losses.GaussianNegativeLogLikelihood()
    for metric in ("mse", keras.metrics.RootMeanSquaredError()):
        with pytest.raises(ValueError, match="`metrics` must be of distributions"):
            model.compile(loss=loss, metrics=[metric])
    model.compile(loss=loss, metrics=[lambda y, y_pred: y - y_pred[..., 0]])
    model = MetaModel(learners.DeepSet(ways=3))
    with pytest.raises(ValueError, match="`loss` is of distributions"):
        model.compile(loss=losses.GaussianNegativeLogLikelihood())
    with pytest.raises(ValueError, match="from_logits=False"):
        model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True))


def test_inputs_that_do_not_fit():
    model = MetaModel(learners.PrototypicalNetwork(ways=3))
    inputs = {"support_x": _X[None], "support_y": _Y[None], "query_x": _X[None]}
    with pytest.raises(ValueError, match="with the keys"):
        model({"support_x": _X[None]})
    with pytest.raises(ValueError, match="examples of the same shape"):
        model({**inputs, "query_x": np.zeros((1, 2, 5))})
    with pytest.raises(ValueError, match="one vector for each example"):
        model({**inputs, **dict.fromkeys(("support_x", "query_x"), np.ones((1, 4)))})
    with pytest.raises(ValueError, match="at most as many classes"):
        model({**inputs, "support_y": np.eye(4)[None]})


@pytest.mark.parametrize("jit_compile", [True, False])
def test_no_retracing(images, jit_compile):
    if keras.backend.backend() == "torch" and jit_compile:
        pytest.skip("PyTorch compiles for half a minute")
    if keras.backend.backend() == "jax" and not jit_compile:
        pytest.skip("JAX then traces nothing")
    traces = []

    class Counted(learners.PrototypicalNetwork):
        def adapt(self, *args):
            traces.append(1)
            return super().adapt(*args)

    model = MetaModel(Counted(ways=WAYS), encoder())
    model.compile("adam", loss="categorical_crossentropy", jit_compile=jit_compile)
    train = episodes(images)
    model.fit(train, steps_per_epoch=2, verbose=0)
    before = len(traces)
    model.fit(train, steps_per_epoch=5, verbose=0)
    if keras.backend.backend() == "torch":
        assert len(traces) == before + 5
    else:
        assert len(traces) == before
