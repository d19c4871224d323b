"""With equal weights and all labels there, training is that of `keras.Model`."""

import keras
import numpy as np
import pytest
from keras import ops
from small_models import (
    EAGER,
    FEATURES,
    LOSSES,
    assert_close,
    copy_weights,
    data,
    layer_weights,
    network,
)

from keras_mtl import MultiTaskModel

ROWS = 48


def absolute_fourth_root(y_true, y_pred):
    return ops.mean(ops.sqrt(ops.sqrt(ops.abs(y_true - y_pred) + 1e-3)), axis=-1)


def first_column(y_true, y_pred):
    """A function that is written for tensors of rank 2."""
    return ops.square(y_true[:, 0] - y_pred[:, 0]) + 0.1 * ops.square(y_pred[:, 1])


@keras.saving.register_keras_serializable("keras_mtl_tests")
class Pinball(keras.losses.Loss):
    """The loss of a quantile, written for tensors of rank 2."""

    def __init__(self, quantile=0.8, **kwargs):
        super().__init__(**kwargs)
        self.quantile = quantile

    def call(self, y_true, y_pred):
        error = y_true[:, 0] - y_pred[:, 0]
        return ops.maximum(self.quantile * error, (self.quantile - 1) * error)

    def get_config(self):
        return {**super().get_config(), "quantile": self.quantile}


def real(columns):
    return lambda rng: rng.normal(size=(ROWS, columns)).astype("float32")


def binary(columns):
    return lambda rng: rng.integers(0, 2, (ROWS, columns)).astype("int32")


def signs(columns):
    return lambda rng: 2 * rng.integers(0, 2, (ROWS, columns)).astype("float32") - 1


def classes(rng):
    return rng.integers(0, 3, ROWS).astype("int32")


def class_column(rng):
    return classes(rng)[:, None]


def one_hot(rng):
    return np.eye(3, dtype="float32")[classes(rng)]


def probabilities(rng):
    return rng.dirichlet(np.ones(3), ROWS).astype("float32")


PINBALL = Pinball(0.2)  # one object for two tasks
REGRESSIONS = {
    "mse": (1, None, "mse", real(1)),
    "mse_again": (1, None, "mse", real(1)),
    "mse_of_three": (3, None, keras.losses.MeanSquaredError(), real(3)),
    "mae": (2, None, "mae", real(2)),
    "huber": (1, None, "huber", real(1)),
    "small_huber": (1, None, keras.losses.Huber(0.2), real(1)),
    "large_huber": (1, None, keras.losses.Huber(2.0), real(1)),
    "log_cosh": (2, None, "log_cosh", real(2)),
    "cosine": (3, None, keras.losses.CosineSimilarity(), real(3)),
    "cosine_axis": (3, None, keras.losses.CosineSimilarity(axis=1), real(3)),
    "function": (2, None, absolute_fourth_root, real(2)),
    "function_again": (2, None, absolute_fourth_root, real(2)),
    "rank_two": (2, None, first_column, real(2)),
    "pinball": (1, None, PINBALL, real(1)),
    "pinball_again": (1, None, PINBALL, real(1)),
    "sum": (1, None, keras.losses.MeanSquaredError(reduction="sum"), real(1)),
    "weighted": (
        1,
        None,
        keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"),
        real(1),
    ),
}
CLASSIFICATIONS = {
    "binary": (1, "sigmoid", "binary_crossentropy", binary(1)),
    "logits": (1, None, keras.losses.BinaryCrossentropy(from_logits=True), binary(1)),
    "multi_label": (3, "sigmoid", "binary_crossentropy", binary(3)),
    "smoothed": (
        3,
        "sigmoid",
        keras.losses.BinaryCrossentropy(label_smoothing=0.2, axis=1),
        binary(3),
    ),
    "focal": (1, "sigmoid", "binary_focal_crossentropy", binary(1)),
    "hinge": (1, "tanh", "hinge", signs(1)),
    "hinge_of_bits": (1, "tanh", "hinge", lambda rng: binary(1)(rng) * 1.0),
    "sparse": (3, "softmax", "sparse_categorical_crossentropy", classes),
    "sparse_column": (3, "softmax", "sparse_categorical_crossentropy", class_column),
    "sparse_logits": (
        3,
        None,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        classes,
    ),
    "ignored_class": (
        3,
        None,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=1),
        lambda rng: np.arange(ROWS, dtype="int32") % 4 % 3,
    ),
    "one_hot": (3, "softmax", "categorical_crossentropy", one_hot),
    "one_hot_axis": (
        3,
        "softmax",
        keras.losses.CategoricalCrossentropy(axis=1),
        one_hot,
    ),
    "one_hot_logits": (
        3,
        None,
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        one_hot,
    ),
    "kl": (3, "softmax", "kl_divergence", probabilities),
    "dice": (3, "sigmoid", keras.losses.Dice(), binary(3)),
    "dice_again": (3, "sigmoid", keras.losses.Dice(), binary(3)),
    "dice_of_rows": (3, "sigmoid", keras.losses.Dice(axis=(1,)), binary(3)),
}
OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.02, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
}


def pair(draw):
    """A plain model and one of ours, of the same graph and weights."""
    plain = keras.Model(*draw())
    ours = MultiTaskModel(*draw())
    copy_weights(plain, ours)
    return plain, ours


def heads(kinds):
    def draw():
        inputs = keras.Input((FEATURES,))
        h = keras.layers.Dense(8, "tanh")(inputs)
        return inputs, {
            name: keras.layers.Dense(units, activation, name=name)(h)
            for name, (units, activation, _, _) in kinds.items()
        }

    return draw


def assert_same_logs(plain, ours, tolerance=1e-5):
    """Compares histories; ours has the weights of the tasks beside."""
    ours = {k: v for k, v in ours.items() if not k.endswith("_weight")}
    assert sorted(plain) == sorted(ours)
    for name, values in plain.items():
        np.testing.assert_allclose(
            values, ours[name], rtol=tolerance, atol=tolerance, err_msg=name
        )


def assert_same_training(plain, ours, x, y, *sample_weight, epochs=2, batch_size=16):
    kwargs = {"epochs": epochs, "batch_size": batch_size, "shuffle": False}
    histories = [
        model.fit(
            x, y, sample_weight=weight, validation_data=(x, y, weight), verbose=0,
            **kwargs,
        ).history
        for model, weight in zip(
            (plain, ours), sample_weight or (None, None), strict=True
        )
    ]  # fmt: skip
    assert_same_logs(*histories)
    assert_close(layer_weights(plain), layer_weights(ours), 1e-5)


@pytest.mark.parametrize(
    ("kinds", "optimizer"),
    [
        pytest.param(REGRESSIONS, "momentum", id="regressions"),
        pytest.param(CLASSIFICATIONS, "adam", id="classifications"),
        pytest.param(REGRESSIONS, "adam", marks=pytest.mark.slow),
        pytest.param(CLASSIFICATIONS, "momentum", marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_loss(kinds, optimizer):
    plain, ours = pair(heads(kinds))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)).astype("float32")
    y = {name: labels(rng) for name, (_, _, _, labels) in kinds.items()}
    losses = {name: loss for name, (_, _, loss, _) in kinds.items()}
    for model in (plain, ours):
        model.compile(OPTIMIZERS[optimizer](), loss=losses, run_eagerly=EAGER)
    assert_same_training(plain, ours, x, y, epochs=1)


@pytest.mark.parametrize("name", list(REGRESSIONS) + list(CLASSIFICATIONS))
def test_one_task(name):
    """Alone, a loss is not computed together with those of other tasks."""
    kinds = {name: {**REGRESSIONS, **CLASSIFICATIONS}[name]}
    plain, ours = pair(heads(kinds))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)).astype("float32")
    y = {name: kinds[name][3](rng)}
    for model in (plain, ours):
        model.compile("sgd", loss={name: kinds[name][2]}, run_eagerly=EAGER)
    expected = plain.train_on_batch(x, y, return_dict=True)
    logs = ours.train_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(logs["loss"], expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(logs[f"{name}_loss"], expected["loss"], rtol=1e-5)
    assert_close(layer_weights(plain), layer_weights(ours), 1e-5)


@pytest.mark.parametrize(
    "optimizer", ["adam", pytest.param("momentum", marks=pytest.mark.slow)]
)
def test_loss_weights_sample_weights_and_metrics(optimizer):
    plain, ours = pair(network)
    for model in (plain, ours):
        model.compile(
            OPTIMIZERS[optimizer](),
            loss=LOSSES,
            loss_weights={"a": 2.0, "b": 0.5},
            metrics={"a": ["mae", "mse"], "b": ["accuracy", "auc", "mse"]},
            weighted_metrics={
                "b": ["accuracy", keras.metrics.Precision(name="precision")]
            },
        )
    x, y = data(ROWS)
    rng = np.random.default_rng(1)
    weight = {k: rng.uniform(0.1, 2, ROWS).astype("float32") for k in y}
    assert_same_training(plain, ours, x, y, weight, weight)


@pytest.mark.parametrize(
    "reduction", ["sum", "sum_over_batch_size", "mean_with_sample_weight"]
)
def test_reductions_with_sample_weights(reduction):
    plain, ours = pair(network)
    for model in (plain, ours):
        loss = {
            "a": keras.losses.MeanSquaredError(reduction=reduction),
            "b": keras.losses.BinaryCrossentropy(reduction=reduction),
        }
        model.compile(keras.optimizers.SGD(0.001), loss=loss, run_eagerly=EAGER)
    x, y = data(ROWS)
    weight = {"a": np.linspace(0.1, 3, ROWS), "b": np.linspace(2, 0.5, ROWS)}
    assert_same_training(plain, ours, x, y, weight, weight, epochs=1, batch_size=ROWS)


def test_a_mean_with_sample_weight_over_batches_is_that_of_the_epoch():
    """Keras averages the batches' means; over the labels is what it should be."""
    _, ours = pair(network)
    loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    ours.compile("sgd", loss={"a": loss}, run_eagerly=EAGER)
    x, y = data(20)
    weight = np.linspace(0.1, 3, 20).astype("float32")
    error = np.square(ours.predict(x, verbose=0)["a"] - y["a"])[:, 0]
    logs = ours.evaluate(
        x, {"a": y["a"]}, sample_weight={"a": weight}, batch_size=20, verbose=0,
        return_dict=True,
    )  # fmt: skip
    expected = np.sum(weight * error) / np.sum(weight)
    np.testing.assert_allclose(logs["a_loss"], expected, rtol=1e-5)


def test_callbacks_see_the_same_logs():
    plain, ours = pair(network)
    seen = []
    for model in (plain, ours):
        model.compile(keras.optimizers.SGD(0.1), loss=LOSSES, run_eagerly=EAGER)
        logs = []
        hook = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, seen=logs: seen.append(logs)
        )
        x, y = data(ROWS)
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0, callbacks=[hook])
        seen.append(logs)
    for expected, logs in zip(*seen, strict=True):
        assert_close(expected, {k: logs[k] for k in expected}, 1e-5)


# Sequences


def words_network():
    inputs = keras.Input((6,), dtype="int32")
    h = keras.layers.Embedding(10, 4, mask_zero=True)(inputs)
    return inputs, {
        "a": keras.layers.Dense(1, name="a")(h),
        "b": keras.layers.Dense(3, "softmax", name="b")(h),
        "c": keras.layers.Dense(1, "sigmoid", name="c")(keras.layers.GRU(3)(h)),
    }


def masking_network():
    inputs = keras.Input((6, 4))
    h = keras.layers.Masking(0.0)(inputs)
    h = keras.layers.SimpleRNN(5, return_sequences=True)(h)
    return inputs, {
        "a": keras.layers.Dense(1, name="a")(h),
        "b": keras.layers.Dense(3, "softmax", name="b")(h),
        "c": keras.layers.Dense(1, "sigmoid", name="c")(keras.layers.GRU(3)(h)),
    }


def sequence_data(draw):
    """Sequences of 2 to 6 steps, as many of each length in every batch of 16."""
    rng = np.random.default_rng(0)
    length = 2 + np.arange(ROWS) % 4
    there = np.arange(6) < length[:, None]
    if draw is words_network:
        x = (rng.integers(1, 10, (ROWS, 6)) * there).astype("int32")
    else:
        x = (rng.normal(size=(ROWS, 6, 4)) * there[..., None]).astype("float32")
    y = {
        "a": rng.normal(size=(ROWS, 6, 1)).astype("float32"),
        "b": rng.integers(0, 3, (ROWS, 6)).astype("int32"),
        "c": rng.integers(0, 2, (ROWS, 1)).astype("int32"),
    }
    return x, y, there


@pytest.mark.parametrize(
    ("draw", "weighted"),
    [
        (words_network, True),
        pytest.param(words_network, False, marks=pytest.mark.slow),
        pytest.param(masking_network, True, marks=pytest.mark.slow),
        pytest.param(masking_network, False, marks=pytest.mark.slow),
    ],
)
def test_masked_sequences(draw, weighted):
    plain, ours = pair(draw)
    for model in (plain, ours):
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            loss={
                "a": "mse",
                "b": "sparse_categorical_crossentropy",
                "c": "binary_crossentropy",
            },
            run_eagerly=EAGER,
        )
    x, y, _ = sequence_data(draw)
    weights = ()
    if weighted:
        weight = {
            "a": np.linspace(0.5, 2, ROWS * 6).reshape(ROWS, 6),
            "b": np.linspace(0.5, 2, ROWS * 6).reshape(ROWS, 6),
            "c": np.linspace(0.5, 2, ROWS),
        }
        weights = weight, weight
    assert_same_training(plain, ours, x, y, *weights, epochs=2)


@pytest.mark.parametrize("weighting", ["equal", "grad_norm"])
def test_losses_and_metrics_of_masked_sequences_leave_padding_out(weighting):
    """Also in training on JAX, where Keras's own metrics count the padding."""
    _, ours = pair(words_network)
    ours.compile(
        keras.optimizers.SGD(0.0),
        loss={"a": "mse", "b": "sparse_categorical_crossentropy"},
        metrics={"a": "mae", "b": "accuracy"},
        weighting=weighting,
        run_eagerly=EAGER,
    )
    x, y, there = sequence_data(words_network)
    del y["c"]
    p = ours.predict(x, verbose=0)
    error = (p["a"] - y["a"])[..., 0][there]
    right = (np.argmax(p["b"], -1) == y["b"])[there]
    expected = {
        "a_loss": np.mean(np.square(error)),
        "a_mae": np.mean(np.abs(error)),
        "b_accuracy": np.mean(right),
    }
    history = ours.fit(x, y, batch_size=20, verbose=0).history
    logs = ours.evaluate(x, y, batch_size=20, verbose=0, return_dict=True)
    for name, value in expected.items():
        np.testing.assert_allclose(history[name][0], value, rtol=1e-5)
        np.testing.assert_allclose(logs[name], value, rtol=1e-5)
