"""Labels that are missing, in every way that they may be, change nothing else."""

import os
import pathlib

import keras
import numpy as np
import pytest
from keras import ops
from small_models import (
    EAGER,
    FEATURES,
    IN_A_GRAPH,
    LOSSES,
    assert_close,
    compiled,
    conditioned,
    conditioned_data,
    copy_weights,
    data,
    layer_weights,
    two_tasks,
)
from weightings_for_tests import (
    GradientNorms,
    InverseMean,
    LogVariance,
    LossesAfterStep,
)

from keras_mtl import MultiTaskModel

ROWS = 24
WEIGHTINGS = [None, InverseMean, LogVariance, GradientNorms, LossesAfterStep]


def make(weighting):
    return None if weighting is None else weighting()


def missing_rows():
    return np.arange(ROWS) % 3 == 1


def with_nan(y, missing):
    return {**y, "a": np.where(missing[:, None], np.nan, y["a"])}, {}


def with_mask_value(y, missing):
    return {**y, "a": np.where(missing[:, None], -99.0, y["a"])}, {
        "mask_value": {"a": -99}
    }


def with_one_mask_value_for_all(y, missing):
    return with_mask_value(y, missing)[0], {"mask_value": -99}


def with_zero_weight(y, missing):
    return y, {"sample_weight": {"a": np.where(missing, 0.0, 1.0)}}


def with_nan_and_zero_weight(y, missing):
    return with_nan(y, missing)[0], with_zero_weight(y, missing)[1]


WAYS = [
    with_nan,
    with_mask_value,
    with_one_mask_value_for_all,
    with_zero_weight,
    with_nan_and_zero_weight,
]


def prepared(way, model=None, **kwargs):
    """A compiled model, its inputs and labels, and its sample weights."""
    x, y = data(ROWS)
    y, arguments = way(y, missing_rows())
    weight = arguments.pop("sample_weight", None)
    return compiled(model, **arguments, **kwargs), x, y, weight


# Losses and metrics are those of the labels that are there


@pytest.mark.parametrize("way", WAYS)
def test_losses_and_metrics_are_means_over_present_labels(way):
    model, x, y, weight = prepared(
        way, metrics={"a": "mae", "b": ["accuracy", "auc"]}, run_eagerly=EAGER
    )
    p = model.predict(x, verbose=0)
    here = ~missing_rows()
    error = (p["a"] - data(ROWS)[1]["a"])[here]
    expected = {"a_loss": np.mean(error**2), "a_mae": np.mean(np.abs(error))}
    expected["b_accuracy"] = np.mean((p["b"] > 0.5) == y["b"])
    logs = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    trained = model.train_on_batch(x, y, sample_weight=weight, return_dict=True)
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-5)
        np.testing.assert_allclose(trained[name], value, rtol=1e-5)
    np.testing.assert_allclose(logs["loss"], logs["a_loss"] + logs["b_loss"], rtol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_missing_rows_train_as_rows_left_out(way):
    """The gradient of a task is that of its present rows alone."""
    arguments = {"loss": {"a": "mse"}, "run_eagerly": EAGER}
    model, x, y, weight = prepared(way, **arguments)
    reference = compiled(**arguments)
    copy_weights(model, reference)
    here = ~missing_rows()
    reference.train_on_batch(x[here], {"a": data(ROWS)[1]["a"][here]})
    model.train_on_batch(x, {"a": y["a"]}, sample_weight=weight)
    assert_close(layer_weights(reference), layer_weights(model), 1e-6)


@pytest.mark.parametrize("way", [with_nan, with_mask_value, with_zero_weight])
def test_fit_in_a_graph(way):
    model, x, y, weight = prepared(way, metrics={"a": "mae", "b": "auc"}, **IN_A_GRAPH)
    history = model.fit(
        x, y, sample_weight=weight, batch_size=10, epochs=6, verbose=0
    ).history
    assert all(np.isfinite(values).all() for values in history.values())
    assert history["a_loss"][-1] < history["a_loss"][0]


def test_an_epochs_loss_is_the_mean_over_all_its_present_labels():
    """With batches of different size and with different numbers of labels."""
    model = compiled(
        optimizer=keras.optimizers.SGD(0.0), metrics={"a": "mse"}, **IN_A_GRAPH
    )
    x, y = data(ROWS)
    missing = np.arange(ROWS) < 14
    y["a"][missing] = np.nan
    p = model.predict(x, verbose=0)["a"]
    expected = np.mean(np.square(p - y["a"])[~missing])
    history = model.fit(
        x, y, batch_size=10, validation_data=(x, y), shuffle=False, verbose=0
    ).history
    for name in ("a_loss", "val_a_loss", "a_mse", "val_a_mse"):
        np.testing.assert_allclose(history[name][0], expected, rtol=1e-5)


# A task without any label


def all_nan(y):
    return {**y, "a": np.full_like(y["a"], np.nan)}, None


def all_masked(y):
    return {**y, "a": np.full_like(y["a"], -99.0)}, None


def all_zero_weight(y):
    return y, {"a": np.zeros(ROWS), "b": np.ones(ROWS)}


def no_key(y):
    return {"b": y["b"]}, None


def none(y):
    return {"a": None, "b": y["b"]}, None


@pytest.mark.filterwarnings("ignore:There are no labels")
@pytest.mark.parametrize(
    ("way", "weighting"),
    [
        *((all_nan, weighting) for weighting in WEIGHTINGS),
        *((way, InverseMean) for way in (all_masked, all_zero_weight, no_key, none)),
    ],
)
def test_an_absent_task_changes_nothing_of_its_own(way, weighting):
    model = compiled(
        metrics={"a": ["mae", "mse"], "b": "mae"},
        mask_value={"a": -99.0},
        weighting=make(weighting),
    )
    x, y = data(ROWS)
    model.train_on_batch(x, y)
    head = model.get_layer("head_a")
    before = [w.copy() for w in head.get_weights()]
    b_before = [w.copy() for w in model.get_layer("head_b").get_weights()]
    states = [
        ops.convert_to_numpy(v).copy()
        for v in model.weighting.variables
        if v.shape == (2,)
    ]
    model.reset_metrics()
    y, weight = way(y)
    logs = model.train_on_batch(x, y, sample_weight=weight, return_dict=True)
    assert_close(before, head.get_weights(), 0)
    assert np.abs(b_before[0] - model.get_layer("head_b").get_weights()[0]).max() > 0
    after = [
        ops.convert_to_numpy(v) for v in model.weighting.variables if v.shape == (2,)
    ]
    assert len(states) == (weighting is not None)
    for old, new in zip(states, after, strict=True):
        assert old[0] == new[0]
        assert old[1] != new[1]
    assert all(np.isfinite(value) for value in logs.values())
    assert logs["a_loss"] == logs["a_mae"] == logs["a_mse"] == 0
    assert logs["a_weight"] == 0
    assert logs["b_loss"] > 0


@pytest.mark.filterwarnings("ignore:There are no labels")
def test_an_absent_task_trains_the_trunk_by_the_other_alone():
    one, other = two_tasks(), two_tasks()
    copy_weights(one, other)
    compiled(one)
    compiled(other, loss={"b": LOSSES["b"]})
    x, y = data(ROWS)
    one.train_on_batch(x, all_nan(y)[0])
    other.train_on_batch(x, {"b": y["b"]})
    assert_close(layer_weights(one), layer_weights(other), 1e-7)


@pytest.mark.parametrize("weighting", [None, "uncertainty", "grad_norm", "famo"])
def test_a_task_absent_from_most_batches(weighting):
    """The loss of the epoch is that of the batch that has labels."""
    model = compiled(
        optimizer=keras.optimizers.SGD(0.0),
        metrics={"a": "mae"},
        weighting=weighting,
        **IN_A_GRAPH,
    )
    x, y = data(ROWS)
    error = model.predict(x, verbose=0)["a"] - y["a"]
    y["a"][:20] = np.nan
    history = model.fit(x, y, batch_size=8, shuffle=False, verbose=0).history
    np.testing.assert_allclose(
        history["a_loss"][0], np.mean(error[20:] ** 2), rtol=1e-5
    )
    np.testing.assert_allclose(
        history["a_mae"][0], np.mean(np.abs(error[20:])), rtol=1e-5
    )
    assert all(np.isfinite(values).all() for values in history.values())


def test_no_label_of_any_task_in_a_batch():
    model = compiled(weighting="uncertainty")
    x, y = data(ROWS)
    before = layer_weights(model)
    nothing = {task: np.full_like(labels, np.nan) for task, labels in y.items()}
    logs = model.train_on_batch(x, nothing, return_dict=True)
    assert logs["loss"] == logs["a_loss"] == logs["b_loss"] == 0
    assert_close(before, layer_weights(model), 0)


def test_labels_for_no_task_are_refused():
    model = compiled()
    x, y = data(ROWS)
    for labels in ({}, {"a": None, "b": None}):
        with pytest.raises(ValueError, match=r"at least one task.*Received"):
            model.fit(x, labels, verbose=0)
    with pytest.raises(ValueError, match=r"Keys of `y`.*\['c'\]"):
        model.fit(x, {**y, "c": y["a"]}, verbose=0)
    with pytest.raises(ValueError, match=r"dict by task.*Received"):
        model.fit(x, y["a"], verbose=0)


def test_an_absent_task_is_told():
    model = compiled()
    x, y = data(ROWS)
    with pytest.warns(UserWarning, match=r"no labels for tasks \['a'\]"):
        model.fit(x, {"b": y["b"]}, verbose=0)


class Alternating(keras.utils.PyDataset):
    """Batches that have the labels of one task each."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = slice(6 * index, 6 * index + 6)
        task = ("a", "b")[index % 2]
        y = {t: np.full_like(v[rows], np.nan) for t, v in self.y.items()}
        y[task] = self.y[task][rows]
        return self.x[rows], y


def test_a_data_set_whose_batches_have_one_task_each():
    model = compiled(optimizer=keras.optimizers.SGD(0.0))
    x, y = data(ROWS)
    p = model.predict(x, verbose=0)
    rows = np.arange(ROWS) // 6 % 2 == 0
    expected = np.mean(np.square(p["a"] - y["a"])[rows])
    logs = model.fit(Alternating(x, y), verbose=0, shuffle=False).history
    np.testing.assert_allclose(logs["a_loss"][0], expected, rtol=1e-5)


# Single elements of a row


@pytest.mark.parametrize(
    ("loss", "values"),
    [
        ("mse", lambda y, p: (y - p) ** 2),
        ("mae", lambda y, p: np.abs(y - p)),
        (
            "binary_crossentropy",
            lambda y, p: -(y * np.log(p) + (1 - y) * np.log(1 - p)),
        ),
        (
            keras.losses.Huber(0.1),
            lambda y, p: np.where(
                np.abs(y - p) < 0.1, (y - p) ** 2 / 2, 0.1 * np.abs(y - p) - 0.005
            ),
        ),
        ("log_cosh", lambda y, p: np.log(np.cosh(y - p))),
        ("hinge", lambda y, p: np.maximum(0, 1 - (2 * y - 1) * p)),
    ],
)
def test_single_elements_of_elementwise_losses(loss, values):
    inputs = keras.Input((FEATURES,))
    output = keras.layers.Dense(3, "sigmoid")(inputs)
    model = MultiTaskModel(inputs, {"m": output})
    model.compile(
        "sgd", loss={"m": loss}, metrics={"m": ["mae", "accuracy"]}, run_eagerly=EAGER
    )
    rng = np.random.default_rng(0)
    x, _ = data(ROWS)
    y = rng.integers(0, 2, (ROWS, 3)).astype("float32")
    missing = rng.uniform(size=y.shape) < 0.4
    p = model.predict(x, verbose=0)["m"]
    there = ~missing
    logs = model.evaluate(
        x, {"m": np.where(missing, np.nan, y)}, verbose=0, return_dict=True
    )
    np.testing.assert_allclose(logs["m_loss"], np.mean(values(y, p)[there]), rtol=1e-5)
    np.testing.assert_allclose(logs["m_mae"], np.mean(np.abs(y - p)[there]), rtol=1e-5)
    hit = (p > 0.5) == (y > 0.5)
    np.testing.assert_allclose(logs["m_accuracy"], np.mean(hit[there]), rtol=1e-5)


def test_a_missing_element_of_other_losses_drops_the_row():
    inputs = keras.Input((FEATURES,))
    model = MultiTaskModel(inputs, {"m": keras.layers.Dense(3)(inputs)})
    model.compile("sgd", loss={"m": "cosine_similarity"}, run_eagerly=EAGER)
    x, _ = data(ROWS)
    y = np.random.default_rng(0).normal(size=(ROWS, 3))
    p = model.predict(x, verbose=0)["m"]
    cosine = (
        -np.sum(y * p, -1) / np.linalg.norm(y, axis=-1) / np.linalg.norm(p, axis=-1)
    )
    y[::4, 1] = np.nan
    logs = model.evaluate(x, {"m": y}, verbose=0, return_dict=True)
    expected = np.mean(cosine[np.arange(ROWS) % 4 != 0])
    np.testing.assert_allclose(logs["m_loss"], expected, rtol=1e-4)


# Integer labels, metrics with a state of their own, precision


def classifier(**kwargs):
    inputs = keras.Input((FEATURES,))
    outputs = {
        "k": keras.layers.Dense(3, "softmax")(inputs),
        "b": keras.layers.Dense(1, "sigmoid")(inputs),
    }
    model = MultiTaskModel(inputs, outputs)
    model.compile(
        "sgd",
        loss={"k": "sparse_categorical_crossentropy", "b": "binary_crossentropy"},
        metrics={"k": "accuracy", "b": ["auc", "accuracy"]},
        **kwargs,
    )
    return model


def test_integer_labels_with_a_mask_value():
    metrics = pytest.importorskip("sklearn.metrics")
    model = classifier(mask_value=-1)
    x, y = data(200)
    y = {"k": np.arange(200) % 3, "b": y["b"].astype("int32")[:, 0]}
    missing = np.arange(200) % 5 < 2
    p = model.predict(x, verbose=0)
    labels = {task: np.where(missing, -1, values) for task, values in y.items()}
    there = ~missing
    logs = model.evaluate(x, labels, batch_size=64, verbose=0, return_dict=True)
    k = y["k"][there]
    expected = {
        "k_loss": metrics.log_loss(k, p["k"][there]),
        "k_accuracy": np.mean(np.argmax(p["k"][there], -1) == k),
        "b_loss": metrics.log_loss(y["b"][there], p["b"][there]),
        "b_accuracy": np.mean((p["b"][there, 0] > 0.5) == y["b"][there]),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-4)
    auc = metrics.roc_auc_score(y["b"][there], p["b"][there])
    np.testing.assert_allclose(logs["b_auc"], auc, atol=0.02)  # 200 thresholds


# Rows of different tasks in one batch


def test_a_conditioned_task_without_rows_or_labels():
    model = conditioned()
    model.compile(
        keras.optimizers.SGD(0.1),
        loss={"a": "mse", "b": "huber", "c": "mse"},
        metrics={"a": "mae", "c": "mae"},
        weighting="uncertainty",
        run_eagerly=EAGER,
    )
    x, y = conditioned_data(ROWS)
    x["task"] = np.arange(ROWS, dtype="int32") % 2  # none of "c"
    y = np.where(np.arange(ROWS)[:, None] < 4, np.nan, y)
    embedding = model.get_layer("embedding").get_weights()[0]
    error = model.predict(x, verbose=0) - y
    of_a = (x["task"] == 0) & (np.arange(ROWS) >= 4)
    logs = model.train_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(logs["a_loss"], np.mean(error[of_a] ** 2), rtol=1e-5)
    np.testing.assert_allclose(logs["a_mae"], np.mean(np.abs(error[of_a])), rtol=1e-5)
    assert logs["c_loss"] == logs["c_mae"] == logs["c_weight"] == 0
    moved = model.get_layer("embedding").get_weights()[0] - embedding
    assert np.abs(moved[2]).max() == 0 < np.abs(moved[:2]).max()


@pytest.mark.parametrize("mask_value", [-1, {"a": -1, "b": 7}])
def test_a_conditioned_classifier_with_mask_values(mask_value):
    x = keras.Input((FEATURES,), name="x")
    task = keras.Input((2,), name="task")  # one-hot
    h = keras.layers.Concatenate()([x, task])
    output = keras.layers.Dense(3, "softmax")(h)
    model = MultiTaskModel(
        {"x": x, "task": task}, output, task_names=["a", "b"], task_input="task"
    )
    model.compile(
        "sgd",
        loss="sparse_categorical_crossentropy",
        metrics="accuracy",
        mask_value=mask_value,
        run_eagerly=EAGER,
    )
    rows = np.arange(ROWS)
    inputs = {"x": data(ROWS)[0], "task": np.eye(2, dtype="float32")[rows % 2]}
    y = rows % 3
    p = model.predict(inputs, verbose=0)
    missing = rows < 10
    b_value = mask_value["b"] if isinstance(mask_value, dict) else mask_value
    labels = np.where(missing, np.where(rows % 2 == 0, -1, b_value), y)
    logs = model.evaluate(inputs, labels, verbose=0, return_dict=True)
    for index, name in enumerate("ab"):
        of_task = (rows % 2 == index) & ~missing
        log_p = np.log(p[rows, y])
        np.testing.assert_allclose(
            logs[f"{name}_loss"], -np.mean(log_p[of_task]), rtol=1e-5
        )
        hit = np.argmax(p, -1) == y
        np.testing.assert_allclose(
            logs[f"{name}_accuracy"], np.mean(hit[of_task]), rtol=1e-5
        )


def test_labels_of_a_conditioned_model_mean_what_the_task_of_their_row_says():
    """A regression label is no class of another task, and raises no error there."""
    x = keras.Input((FEATURES,), name="x")
    task = keras.Input((), dtype="int32", name="task")
    h = keras.layers.Concatenate()([x, keras.layers.Embedding(2, 2)(task)])
    output = keras.layers.Dense(3, "softmax")(h)
    model = MultiTaskModel(
        {"x": x, "task": task}, output, task_names=["a", "b"], task_input="task"
    )

    def first(y_true, y_pred):
        return ops.square(y_true[:, 0] - y_pred[:, 0])

    loss = {"a": "sparse_categorical_crossentropy", "b": first}
    model.compile("sgd", loss=loss, run_eagerly=EAGER)
    rows = np.arange(ROWS)
    inputs = {"x": data(ROWS)[0], "task": (rows % 2).astype("int32")}
    y = np.where(rows % 2 == 0, rows % 3, 100.0 + rows)[:, None]
    p = model.predict(inputs, verbose=0)
    logs = model.evaluate(inputs, y, verbose=0, return_dict=True)
    expected = -np.mean(np.log(p[rows, rows % 3][::2]))
    np.testing.assert_allclose(logs["a_loss"], expected, rtol=1e-5)
    expected = np.mean((y[1::2, 0] - p[1::2, 0]) ** 2)
    np.testing.assert_allclose(logs["b_loss"], expected, rtol=1e-5)


def test_class_weights_of_a_conditioned_model_are_by_task():
    x = keras.Input((FEATURES,), name="x")
    task = keras.Input((), dtype="int32", name="task")
    h = keras.layers.Concatenate()([x, keras.layers.Embedding(2, 2)(task)])
    output = keras.layers.Dense(1, "sigmoid")(h)
    model = MultiTaskModel(
        {"x": x, "task": task}, output, task_names=["a", "b"], task_input="task"
    )
    model.compile("sgd", loss="binary_crossentropy", run_eagerly=EAGER)
    inputs = {"x": data(ROWS)[0], "task": np.arange(ROWS, dtype="int32") % 2}
    y = data(ROWS)[1]["b"]
    p = model.predict(inputs, verbose=0)
    values = -np.log(np.where(y > 0, p, 1 - p))[:, 0]
    table = {"a": {0: 1.0, 1: 3.0}, "b": {0: 0.5, 1: 2.0}}
    logs = model.train_on_batch(inputs, y, class_weight=table, return_dict=True)
    for index, name in enumerate("ab"):
        rows = inputs["task"] == index
        weight = np.where(y[:, 0] > 0, table[name][1], table[name][0])
        np.testing.assert_allclose(
            logs[f"{name}_loss"], np.mean((weight * values)[rows]), rtol=1e-5
        )


def test_a_loss_of_the_whole_batch_refuses_what_it_cannot_leave_out():
    def spread(y_true, y_pred):
        return ops.std(y_true - y_pred)

    x, y = data(ROWS)
    model = compiled(loss={"a": spread, "b": LOSSES["b"]})
    expected = np.std(y["a"] - model.predict(x, verbose=0)["a"])
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["a_loss"], expected, rtol=1e-5)
    # A missing label cannot be left out, and must not be passed over in silence.
    missing = np.where(np.arange(ROWS)[:, None] == 3, np.nan, y["a"])
    logs = model.evaluate(x, {**y, "a": missing}, verbose=0, return_dict=True)
    assert np.isnan(logs["a_loss"])
    with pytest.raises(ValueError, match=r"one number.*Received"):
        model.evaluate(x, y, sample_weight={"a": np.ones(ROWS)}, verbose=0)


# Real data


def load(name):
    folder = os.environ.get("KERAS_MTL_DATA")
    path = pathlib.Path(folder or "", name)
    if not folder or not path.is_file():
        pytest.skip(f"needs {name} in the directory KERAS_MTL_DATA")
    return np.load(path, allow_pickle=False)


@pytest.mark.slow
def test_tox21():
    archive = load("tox21_ecfp1024.npz")
    x = np.unpackbits(archive["fp"][:1500], axis=1).astype("float32")
    labels = archive["y"][:1500]
    y = {f"task_{k}": labels[:, k] for k in range(labels.shape[1])}
    assert 0.05 < np.mean(labels == -1) < 0.5
    inputs = keras.Input((1024,))
    h = keras.layers.Dense(32, "relu")(inputs)
    outputs = {task: keras.layers.Dense(1, "sigmoid")(h) for task in y}
    model = MultiTaskModel(inputs, outputs)
    model.compile(
        "adam",
        loss="binary_crossentropy",
        metrics="auc",
        mask_value=-1,
        weighting="uncertainty",
    )
    history = model.fit(x, y, batch_size=128, epochs=4, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    for task in y:
        assert history[f"{task}_loss"][-1] < history[f"{task}_loss"][0]
    p = model.predict(x, verbose=0)["task_3"][:, 0]
    there = labels[:, 3] != -1
    expected = -np.mean(np.log(np.where(labels[:, 3] == 1, p, 1 - p))[there])
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["task_3_loss"], expected, rtol=1e-4)


def test_air_quality():
    archive = load("air_quality.npz")
    x, y = archive["X"][:1500], archive["Y"][:1500]
    scale = np.nanstd(y, axis=0)
    y = (y - np.nanmean(y, axis=0)) / scale
    x = np.nan_to_num((x - np.nanmean(x, axis=0)) / np.nanstd(x, axis=0))
    inputs = keras.Input((x.shape[1],))
    h = keras.layers.Dense(32, "relu")(inputs)
    outputs = {f"gas_{k}": keras.layers.Dense(1)(h) for k in range(y.shape[1])}
    model = MultiTaskModel(inputs, outputs)
    model.compile("adam", loss="mse", metrics="mae", weighting="dwa")
    labels = {f"gas_{k}": y[:, k] for k in range(y.shape[1])}
    assert np.isnan(y).mean() > 0.03
    history = model.fit(x, labels, batch_size=64, epochs=4, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    for task in labels:
        assert history[f"{task}_loss"][-1] < history[f"{task}_loss"][0]
    p = model.predict(x, verbose=0)
    logs = model.evaluate(x, labels, verbose=0, return_dict=True)
    for task, values in labels.items():
        expected = np.nanmean((p[task][:, 0] - values) ** 2)
        np.testing.assert_allclose(logs[f"{task}_loss"], expected, rtol=1e-4)
