"""Packing changes how tensors travel, never what a model learns or logs."""

import keras
import numpy as np
import pytest

import keras_mtl
from keras_mtl.engine.packing import (
    is_packed,
    pack_arrays,
    pack_logs,
    unpack_batch,
    unpack_logs,
)

NAMES = [f"task {index}" for index in range(6)]


@pytest.fixture
def labels():
    generator = np.random.default_rng(0)
    return {name: generator.normal(size=(40, 1)).astype("float32") for name in NAMES}


def make_model(cls=keras_mtl.MultiTaskModel, **compile_arguments):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    h = keras.layers.Dense(8, "relu")(inputs)
    model = cls(inputs, {name: keras.layers.Dense(1)(h) for name in NAMES})
    model.compile("adam", "mse", **compile_arguments)
    return model


def test_arrays_of_all_tasks_become_one_and_come_back(labels):
    packed, weights = pack_arrays(labels, None)
    assert is_packed(packed)
    assert weights is None
    assert [array.shape for array in packed.values()] == [(40, 6, 1)]
    _, unpacked = unpack_batch((np.zeros((40, 3)), packed))
    assert list(unpacked) == NAMES
    for name in NAMES:
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(unpacked[name]), labels[name]
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda labels: labels.update({NAMES[0]: labels[NAMES[0]][:, 0]}),
        lambda labels: labels.update({NAMES[0]: labels[NAMES[0]].astype("int32")}),
        lambda labels: labels.update({NAMES[0]: labels[NAMES[0]].tolist()}),
        lambda labels: [labels.pop(name) for name in NAMES[3:]],
        lambda labels: labels.update({n: np.zeros((40, 9, 9)) for n in NAMES}),
    ],
    ids=["shapes differ", "dtypes differ", "no array", "few tasks", "large labels"],
)
def test_arrays_that_cannot_or_need_not_be_packed_stay_as_they_are(labels, change):
    change(labels)
    assert pack_arrays(labels, None) is None


def test_labels_stay_by_task_if_their_weights_must(labels):
    weights = {name: np.ones(40) for name in NAMES}
    weights[NAMES[0]] = np.ones((40, 1))
    assert pack_arrays(labels, weights) is None


def test_a_batch_that_was_never_packed_is_left_alone():
    for data in (
        (np.zeros(3),),
        (np.zeros(3), {"a": np.zeros(3)}),
        (np.zeros(3), np.zeros(3), None),
        np.zeros(3),
    ):
        assert unpack_batch(data) is data


def test_numbers_of_logs_travel_in_one_vector():
    numbers = {f"loss {i}": keras.ops.convert_to_tensor(float(i)) for i in range(9)}
    matrix = keras.ops.ones((2, 2))
    packed = pack_logs({**numbers, "matrix": matrix})
    assert len(packed) == 2
    logs = unpack_logs(packed, keras.ops.unstack)
    assert logs["matrix"] is matrix
    assert {k: float(v) for k, v in logs.items() if k != "matrix"} == {
        k: float(v) for k, v in numbers.items()
    }


def test_numbers_of_another_dtype_keep_it():
    logs = {str(i): keras.ops.convert_to_tensor(float(i)) for i in range(9)}
    logs["count"] = keras.ops.convert_to_tensor(2**24 + 1, dtype="int32")
    assert int(pack_logs(logs)["count"]) == 2**24 + 1


@pytest.mark.parametrize("weighted", [False, True])
def test_fit_on_arrays_equals_fit_batch_by_batch(labels, weighted):
    generator = np.random.default_rng(1)
    x = generator.normal(size=(40, 3)).astype("float32")
    labels[NAMES[2]][::3] = np.nan
    weights = {n: generator.uniform(size=40).astype("float32") for n in NAMES}
    if not weighted:
        weights = None
    packed = make_model(weighting="uncertainty")
    history = packed.fit(
        x,
        labels,
        sample_weight=weights,
        batch_size=16,
        shuffle=False,
        verbose=0,
        validation_split=0.2,
    ).history
    by_hand = make_model(weighting="uncertainty")
    for start in (0, 16):
        rows = slice(start, min(start + 16, 32))
        by_hand.train_on_batch(
            x[rows],
            {name: label[rows] for name, label in labels.items()},
            weights and {n: w[rows] for n, w in weights.items()},
        )
    for one, other in zip(packed.weights, by_hand.weights, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(one),
            keras.ops.convert_to_numpy(other),
            rtol=1e-5,
            atol=1e-6,
        )
    expected = by_hand.evaluate(
        x[32:],
        {name: label[32:] for name, label in labels.items()},
        sample_weight=None
        if weights is None
        else {n: w[32:] for n, w in weights.items()},
        verbose=0,
        return_dict=True,
    )
    for name, value in expected.items():
        np.testing.assert_allclose(history[f"val_{name}"], [value], rtol=1e-5)


def test_a_subclass_sees_labels_and_logs_by_name(labels):
    seen = {}

    class Watching(keras_mtl.MultiTaskModel):
        def compute_loss(self, x=None, y=None, y_pred=None, *args, **kwargs):
            seen["labels"] = list(y)
            return super().compute_loss(x, y, y_pred, *args, **kwargs)

        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            logs = super().compute_metrics(x, y, y_pred, sample_weight)
            seen["logs"] = list(logs)
            return {**logs, "twice": 2 * logs["loss"]}

    model = make_model(Watching)
    logs = model.fit(np.ones((40, 3)), labels, verbose=0).history
    assert seen["labels"] == NAMES
    assert f"{NAMES[0]}_loss" in seen["logs"]
    np.testing.assert_allclose(logs["twice"], 2 * np.array(logs["loss"]), rtol=1e-6)


def test_callbacks_get_plain_numbers(labels):
    kinds = set()

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            kinds.update(map(type, logs.values()))
            assert {f"{name}_loss" for name in NAMES} <= set(logs)

    make_model().fit(np.ones((40, 3)), labels, verbose=0, callbacks=[Watch()])
    assert kinds == {float}
