"""Faults of Keras that do not reach users of `MultiTaskModel`."""

import keras
import numpy as np
import pytest
from keras import ops
from small_models import (
    IN_A_GRAPH,
    LOSSES,
    assert_close,
    compiled,
    copy_weights,
    data,
    layer_weights,
    two_tasks,
)

from keras_mtl import MultiTaskModel

BACKEND = keras.backend.backend()


class Batches(keras.utils.PyDataset):
    """Batches of 16 of arrays in dicts and tuples."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return -(-len(self.arrays[0]) // 16)

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        return keras.tree.map_structure(lambda a: a[rows], self.arrays)


def test_task_losses_with_a_partial_last_batch():
    """Keras on TensorFlow divides by the size of another batch."""
    model = compiled(optimizer=keras.optimizers.SGD(0.0), **IN_A_GRAPH)
    x, y = data(40)
    y["a"][32:] += 10
    p = model.predict(x, verbose=0)
    expected = {
        "a_loss": np.mean(np.square(p["a"] - y["a"])),
        "b_loss": -np.mean(np.log(np.where(y["b"] > 0, p["b"], 1 - p["b"]))),
    }
    expected["loss"] = sum(expected.values())
    kwargs = {"batch_size": 32, "verbose": 0}
    history = model.fit(x, y, validation_data=(x, y), shuffle=False, **kwargs).history
    logs = model.evaluate(x, y, return_dict=True, **kwargs)
    for name, value in expected.items():
        np.testing.assert_allclose(history[name][0], value, rtol=1e-5)
        np.testing.assert_allclose(history[f"val_{name}"][0], value, rtol=1e-5)
        np.testing.assert_allclose(logs[name], value, rtol=1e-5)


def test_a_loaded_model_is_compiled(tmp_path):
    """Keras skips an overridden `compile` on load, and says that it has compiled."""
    model = compiled(loss_weights={"a": 2.0}, metrics={"b": "auc"}, mask_value=-9.0)
    x, y = data()
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.compiled and loaded.optimizer is not None
    y["a"][:10] = -9
    assert_close(
        model.evaluate(x, y, verbose=0, return_dict=True),
        loaded.evaluate(x, y, verbose=0, return_dict=True),
    )
    model.fit(x, y, verbose=0, shuffle=False)
    loaded.fit(x, y, verbose=0, shuffle=False)
    assert_close(layer_weights(model), layer_weights(loaded))


@pytest.mark.parametrize("call", ["fit", "data_set", "train_on_batch", "evaluate"])
def test_partial_sample_weights(call):
    """Keras wants weights for every task, or none."""
    one, other = two_tasks(), two_tasks()
    copy_weights(one, other)
    x, y = data(16)
    weight = np.linspace(0.1, 3, 16).astype("float32")
    full = {"a": np.ones(16, "float32"), "b": weight}
    logs = []
    for model, weights in ((one, {"b": weight}), (other, full)):
        compiled(model)
        if call == "fit":
            history = model.fit(
                x, y, sample_weight=weights, validation_data=(x, y, weights), verbose=0
            ).history
            logs.append({k: v[0] for k, v in history.items()})
        elif call == "data_set":
            history = model.fit(Batches(x, y, weights), verbose=0).history
            logs.append({k: v[0] for k, v in history.items()})
        elif call == "train_on_batch":
            logs.append(model.train_on_batch(x, y, weights, return_dict=True))
        else:
            logs.append(
                model.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
            )
    assert_close(*logs)
    assert_close(layer_weights(one), layer_weights(other))


def test_sample_weights_that_are_none():
    model = compiled()
    x, y = data(16)
    weight = np.linspace(0.1, 3, 16)
    logs = model.test_on_batch(x, y, {"a": None, "b": weight}, return_dict=True)
    assert_close(logs, model.test_on_batch(x, y, {"b": weight}, return_dict=True))


def test_sample_weights_of_unknown_tasks_are_refused():
    model = compiled()
    x, y = data(16)
    with pytest.raises(ValueError, match=r"Keys of `sample_weight`.*\['c'\]"):
        model.fit(x, y, sample_weight={"c": np.ones(16)}, verbose=0)


@pytest.mark.parametrize("value", [2, np.float64(2), np.float32(2), np.int64(2)])
def test_loss_weights_of_some_tasks_and_of_any_number_type(value):
    """Keras wants all weights, and on TensorFlow none of float64."""
    model = compiled(loss_weights={"b": value})
    x, y = data(16)
    logs = model.train_on_batch(x, y, return_dict=True)
    expected = logs["a_loss"] + 2 * logs["b_loss"]
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-6)
    assert (logs["a_weight"], logs["b_weight"]) == (1, 2)
    config = model.get_compile_config()
    assert config["loss_weights"] == {"b": 2.0}


def test_labels_without_a_loss_and_losses_without_labels():
    """Keras refuses both."""
    x, y = data(16)
    model = compiled(loss={"b": LOSSES["b"]})
    logs = model.train_on_batch(x, y, return_dict=True)
    assert sorted(logs) == ["b_loss", "b_weight", "loss"]
    np.testing.assert_allclose(logs["loss"], logs["b_loss"], rtol=1e-6)


def test_metrics_of_a_task_without_labels():
    """Keras raises a KeyError."""
    model = compiled(metrics={"a": "mae", "b": "mae"})
    x, y = data(16)
    with pytest.warns(UserWarning, match="no labels"):
        logs = model.evaluate(x, {"b": y["b"]}, verbose=0, return_dict=True)
    assert logs["a_mae"] == 0 < logs["b_mae"]


def test_a_metric_of_an_output_without_loss():
    model = compiled(loss={"b": LOSSES["b"]}, metrics={"a": "mae"})
    x, y = data(16)
    expected = np.mean(np.abs(model.predict(x, verbose=0)["a"] - y["a"]))
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["a_mae"], expected, rtol=1e-5)


@pytest.mark.parametrize("for_all", [False, True])
def test_one_metric_object_for_two_tasks(for_all):
    """Keras lets both tasks write into it and reports the blend for both."""
    metric = keras.metrics.MeanAbsoluteError(name="mae")
    metrics = [metric] if for_all else {"a": metric, "b": [metric]}
    model = compiled(metrics=metrics)
    x, y = data(16)
    p = model.predict(x, verbose=0)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    for task in "ab":
        expected = np.mean(np.abs(p[task] - y[task]))
        np.testing.assert_allclose(logs[f"{task}_mae"], expected, rtol=1e-5)


def test_nan_labels_of_weight_zero():
    """In Keras 0 times NaN is NaN, for the other task too on JAX and PyTorch."""
    one, other = two_tasks(), two_tasks()
    copy_weights(one, other)
    compiled(one)
    compiled(other)
    x, y = data(16)
    weight = {"a": np.arange(16) % 2 * 1.0}
    one.train_on_batch(x, y, weight)
    y["a"][::2] = np.nan
    other.train_on_batch(x, y, weight)
    assert_close(layer_weights(one), layer_weights(other), 1e-7)


def test_one_task_has_its_own_loss_in_the_logs():
    model = MultiTaskModel(
        (inputs := keras.Input((4,))), {"only": keras.layers.Dense(1)(inputs)}
    )
    model.compile("sgd", loss={"only": "mse"})
    x, y = data(16)
    history = model.fit(x, {"only": y["a"]}, validation_split=0.5, verbose=0).history
    assert sorted(history) == [
        "loss", "only_loss", "only_weight", "val_loss", "val_only_loss",
    ]  # fmt: skip
    assert history["loss"] == history["only_loss"]


def test_the_list_of_evaluate_is_in_the_order_of_metrics_names():
    """In Keras the names are ['loss', 'compile_metrics', ...]."""
    metrics = {"b": ["auc", "mae"], "a": "mae"}
    model = compiled(metrics=metrics)
    x, y = data(16)
    names_before = model.metrics_names
    values = model.evaluate(x, y, verbose=0)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert names_before == model.metrics_names
    assert [logs[name] for name in model.metrics_names] == values
    assert sorted(logs) == sorted(model.metrics_names)


@pytest.mark.parametrize(
    "jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_a_lambda_as_a_loss_does_not_poison_later_models(jit_compile):
    """On TensorFlow '<lambda>' is no valid scope, and the error stays behind."""
    if BACKEND == "torch" and jit_compile:
        pytest.skip("names no scope")
    x, y = data(16)
    loss = {"a": lambda t, p: ops.square(t - p), "b": LOSSES["b"]}
    metrics = {"a": lambda t, p: ops.abs(t - p)}
    model = compiled(loss=loss, metrics=metrics, jit_compile=jit_compile, **IN_A_GRAPH)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    plain = compiled(two_tasks(), metrics={"a": "mae"})
    copy_weights(model, plain)
    expected = plain.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["a_loss"], expected["a_loss"], rtol=1e-5)
    np.testing.assert_allclose(logs["a_lambda"], expected["a_mae"], rtol=1e-5)
    model.fit(x, y, verbose=0)
    keras.Sequential([keras.layers.Dense(1)])(x)


class Schedule(keras.callbacks.Callback):
    """Gives task "a" a new loss weight before every batch."""

    def on_train_batch_begin(self, batch, logs=None):
        self.model.set_loss_weights({"a": float(batch)})


def test_loss_weights_changed_while_training_are_live():
    """Keras on JAX freezes a variable among the loss weights when it compiles."""
    model = compiled(optimizer=keras.optimizers.SGD(0.0), **IN_A_GRAPH)
    x, y = data(48)
    seen = []
    model.fit(
        x, y, batch_size=16, shuffle=False, verbose=0,
        callbacks=[
            Schedule(),
            keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: seen.append(logs)
            ),
        ],
    )  # fmt: skip
    # Logs are running means over the batches, whose weights are 0, 1 and 2.
    np.testing.assert_allclose([s["a_weight"] for s in seen], [0, 0.5, 1], atol=1e-6)
    one_batch = [
        model.evaluate(x[k : k + 16], {t: v[k : k + 16] for t, v in y.items()},
                       verbose=0, return_dict=True)
        for k in (0, 16, 32)
    ]  # fmt: skip
    totals = [k * s["a_loss"] + s["b_loss"] for k, s in enumerate(one_batch)]
    np.testing.assert_allclose(seen[2]["loss"], np.mean(totals), rtol=1e-5)


def test_an_error_in_the_first_step_is_shown():
    """What is done after training must not hide it, as on JAX, where state is lost."""

    def wrong(y_true, y_pred):
        raise RuntimeError("from the loss")

    model = compiled(loss={"a": wrong, "b": LOSSES["b"]})
    x, y = data(16)
    with pytest.raises(RuntimeError, match="from the loss"):
        model.fit(x, y, verbose=0)


def test_training_goes_on_after_an_interrupt_with_a_moving_average():
    """Keras on JAX lets the average and the weight be one array, which is donated."""
    model = compiled(optimizer=keras.optimizers.SGD(0.1, use_ema=True))
    x, y = data(16)

    def interrupt(epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt

    hook = keras.callbacks.LambdaCallback(on_epoch_begin=interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, epochs=3, callbacks=[hook], verbose=0)
    before = layer_weights(model)
    model.fit(x, y, epochs=2, verbose=0)
    assert np.abs(layer_weights(model)[0] - before[0]).max() > 0


def test_a_mean_over_present_labels_does_not_depend_on_how_many_are_missing():
    """A 0/1 sample weight makes the loss of Keras smaller by the missing share."""
    model = compiled()
    x, y = data(16)
    here = np.arange(16) < 4
    part = model.evaluate(
        x[here], {t: v[here] for t, v in y.items()}, verbose=0, return_dict=True
    )
    weight = {"a": here * 1.0, "b": here * 1.0}
    whole = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    assert_close(part, whole, 1e-5)
