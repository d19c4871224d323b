"""Losses of many tasks at once are those of each task by itself."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_mtl.models.task_losses import TaskBatch, TaskLosses

generator = np.random.default_rng(0)


def computed(losses, batch, **kwargs):
    mask_values = kwargs.pop("mask_values", {})
    sums, denominators, counts = TaskLosses(losses, mask_values)(batch, **kwargs)
    with np.errstate(invalid="ignore"):
        values = ops.convert_to_numpy(sums) / ops.convert_to_numpy(denominators)
    return values, ops.convert_to_numpy(counts)


def batch_of(names, shape=(12, 1)):
    return {
        name: TaskBatch(
            generator.normal(size=shape).astype("float32"),
            ops.convert_to_tensor(generator.normal(size=shape).astype("float32")),
        )
        for name in names
    }


def test_losses_that_differ_in_an_argument_are_not_mixed_up():
    names = ["a", "b", "c", "d"]
    losses = {
        "a": keras.losses.Huber(delta=0.1),
        "b": keras.losses.Huber(delta=2.0),
        "c": keras.losses.BinaryCrossentropy(from_logits=True),
        "d": keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.2),
    }
    batch = batch_of(names)
    for name in "cd":
        batch[name].y_true = (batch[name].y_true > 0).astype("float32")
    values, _ = computed(losses, batch)
    expected = [float(losses[n](batch[n].y_true, batch[n].y_pred)) for n in names]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-10, 1e-5, 1.0, 1e5, 1e10])
def test_scales(scale):
    names = ["small", "large"]
    batch = batch_of(names)
    for part, factor in zip(batch.values(), (scale, 1 / scale), strict=True):
        part.y_true = part.y_true * np.float32(factor)
        part.y_pred = part.y_pred * np.float32(factor)
    values, _ = computed(dict.fromkeys(names, "mae"), batch)
    expected = [
        np.mean(np.abs(ops.convert_to_numpy(b.y_pred) - b.y_true))
        for b in batch.values()
    ]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_groups_come_back_in_the_order_of_the_tasks():
    names = ["a", "b", "c", "d", "e"]
    losses = dict(zip(names, ["mse", "mae", "mse", "mae", "mse"], strict=True))
    batch = batch_of(names)
    batch["c"] = None
    values, counts = computed(losses, batch)
    for index, name in enumerate(names):
        if name == "c":
            assert values[index] == 0 and counts[index] == 0
            continue
        error = ops.convert_to_numpy(batch[name].y_pred) - batch[name].y_true
        expected = np.mean(error**2 if losses[name] == "mse" else np.abs(error))
        np.testing.assert_allclose(values[index], expected, rtol=1e-5)
        assert counts[index] == 12


def test_elements_of_a_row_may_be_missing_where_the_loss_goes_by_element():
    y_true = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, 0.0]], "float32")
    y_pred = ops.zeros((2, 3))
    values, counts = computed({"a": "mse"}, {"a": TaskBatch(y_true, y_pred)})
    np.testing.assert_allclose(values, [10 / 3])
    assert counts == [3]


def test_a_row_counts_as_a_whole_where_the_loss_goes_by_row():
    y_true = np.array([[0.0, 1.0], [np.nan, 1.0]], "float32")
    y_pred = ops.convert_to_tensor(np.array([[0.2, 0.8], [0.5, 0.5]], "float32"))
    losses = {"a": "categorical_crossentropy"}
    values, counts = computed(losses, {"a": TaskBatch(y_true, y_pred)})
    np.testing.assert_allclose(values, [-np.log(0.8)], rtol=1e-5)
    assert counts == [1]


def test_membership_splits_the_rows_of_one_tensor():
    y_true = generator.normal(size=(6, 1)).astype("float32")
    y_pred = ops.zeros((6, 1))
    task = np.array([0, 1, 1, 0, 1, 1])
    part = TaskBatch(y_true, y_pred)
    names = ["a", "b", "c"]
    values, counts = computed(
        dict.fromkeys(names, "mse"),
        dict.fromkeys(names, part),
        membership=ops.convert_to_tensor(task[None] == np.arange(3)[:, None]),
    )
    expected = [np.mean(y_true[task == k] ** 2) for k in (0, 1)]
    np.testing.assert_allclose(values[:2], expected, rtol=1e-5)
    assert list(counts) == [2, 4, 0]


def test_a_function_of_ones_own_sees_the_shapes_of_one_task():
    seen = []

    def loss(y_true, y_pred):
        seen.append(tuple(y_pred.shape))
        return ops.mean(ops.square(y_true - y_pred), axis=-1)

    computed({"a": loss, "b": loss}, batch_of("ab", (5, 2)))
    assert set(seen) == {(5, 2)}
