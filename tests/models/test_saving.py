"""A saved model is the same model: in a new process it trains on as if never left."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from small_models import (
    EAGER,
    FEATURES,
    IN_A_GRAPH,
    LOSSES,
    Scaled,
    TwoHeads,
    assert_close,
    compiled,
    conditioned,
    conditioned_data,
    data,
    layer_weights,
    network,
    state,
    two_tasks,
)
from weightings_for_tests import InverseMean, LogVariance

from keras_mtl import MultiTaskModel

BACKEND = keras.backend.backend()
ROWS = 32


@keras.saving.register_keras_serializable("keras_mtl_tests")
class Quantile(keras.losses.Loss):
    """A loss of the user's own."""

    def __init__(self, q=0.5, **kwargs):
        super().__init__(**kwargs)
        self.q = q

    def call(self, y_true, y_pred):
        error = y_true - y_pred
        return ops.mean(ops.maximum(self.q * error, (self.q - 1) * error), -1)

    def get_config(self):
        return {**super().get_config(), "q": self.q}


@keras.saving.register_keras_serializable("keras_mtl_tests")
class Bias(keras.metrics.Metric):
    """A metric of the user's own."""

    def __init__(self, name="bias", scale=1.0, **kwargs):
        super().__init__(name=name, **kwargs)
        self.scale = scale
        self.total = self.add_weight(name="total", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        error = ops.squeeze(y_pred - y_true, -1)
        weight = ops.ones_like(error) if sample_weight is None else sample_weight
        self.total.assign(self.total + self.scale * ops.sum(weight * error))
        self.count.assign(self.count + ops.sum(weight))

    def result(self):
        return self.total / self.count

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


@keras.saving.register_keras_serializable("keras_mtl_tests")
def absolute_error(y_true, y_pred):
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


@keras.saving.register_keras_serializable("keras_mtl_tests")
class Doubled(MultiTaskModel):
    """Passes all on to `MultiTaskModel`, with an argument of its own."""

    def __init__(self, *args, factor=2.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.factor = factor

    def compute_task_losses(self, *args, **kwargs):
        losses, counts = super().compute_task_losses(*args, **kwargs)
        return self.factor * losses, counts

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def functional():
    extra = [keras.layers.Dropout(0.3, seed=5), keras.layers.BatchNormalization()]
    return compiled(
        two_tasks(extra=extra),
        optimizer=keras.optimizers.Adam(0.01),
        metrics={"a": ["mae"], "b": ["auc", "accuracy"]},
        weighted_metrics={"b": "accuracy"},
        loss_weights={"a": 0.5},
        mask_value={"b": -1},
        weighting="uncertainty",
        **IN_A_GRAPH,
    )


def random_weights():
    return compiled(weighting="random_weighting")


def of_rows():
    model = conditioned()
    model.compile(
        keras.optimizers.RMSprop(0.01),
        loss={"a": "mse", "b": keras.losses.Huber(0.7), "c": "mae"},
        metrics="mae",
        weighting="dwa",
        run_eagerly=EAGER,
    )
    return model


def subclassed():
    model = compiled(
        TwoHeads(width=6),
        optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
        weighting="grad_norm",
    )
    return model


def functional_subclass():
    return compiled(Scaled(width=5), weighting="famo")


def passing_subclass():
    return compiled(Doubled(*network(), factor=3.0), weighting=LogVariance())


def own_classes():
    return compiled(
        loss={"a": Quantile(0.8), "b": absolute_error},
        metrics={"a": [Bias(scale=2.0), absolute_error], "b": Bias()},
        weighting=InverseMean(),
    )


def scaled_losses():
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.01), initial_scale=1024.0, dynamic_growth_steps=4
    )
    return compiled(optimizer=optimizer, weighting="uncertainty")


def half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = compiled(
        optimizer=keras.optimizers.Adam(0.01),
        weighting="uncertainty",
    )
    keras.config.set_dtype_policy("float32")
    return model


def moving_average():
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9)
    return compiled(optimizer=optimizer, weighting="dwa")


FORMS = {
    form.__name__: form
    for form in (
        functional,
        random_weights,
        of_rows,
        subclassed,
        functional_subclass,
        passing_subclass,
        own_classes,
        scaled_losses,
        half_precision,
        moving_average,
    )
}


def data_of(form):
    if form == "of_rows":
        return conditioned_data(ROWS)
    x, y = data(ROWS)
    if form == "functional":
        y["a"][::5] = np.nan
        y["b"][::7] = -1
    return x, y


def train(model, form):
    """Two epochs; returns what there is to compare."""
    x, y = data_of(form)
    history = model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0).history
    return history, state(model)


def train_on_in_this_process(folder, *forms):
    """Loads each model that was saved and trains it; run in a new process."""
    folder = pathlib.Path(folder)
    for form in forms:
        model = keras.models.load_model(folder / f"{form}.keras")
        history, values = train(model, form)
        (folder / f"{form}.json").write_text(json.dumps(history))
        np.savez(folder / f"{form}.npz", *values)


def assert_trains_on_in_a_fresh_process(folder, forms):
    expected = {}
    for form in forms:
        keras.utils.set_random_seed(1)
        model = FORMS[form]()
        train(model, form)
        model.save(folder / f"{form}.keras")
        expected[form] = train(model, form)
    here = pathlib.Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1])])
    code = (
        "import sys, test_saving; test_saving.train_on_in_this_process(*sys.argv[1:])"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(folder), *forms],
        check=True,
        env={**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": path},
    )
    for form, (history, values) in expected.items():
        assert_close(history, json.loads((folder / f"{form}.json").read_text()))
        archive = np.load(folder / f"{form}.npz")
        assert_close(values, [archive[name] for name in archive.files])


def test_training_goes_on_in_a_fresh_process(tmp_path):
    """All forms in one process, since to start one takes most of the time."""
    assert_trains_on_in_a_fresh_process(tmp_path, ["functional", "of_rows"])


@pytest.mark.slow
def test_training_of_every_form_goes_on_in_a_fresh_process(tmp_path):
    assert_trains_on_in_a_fresh_process(tmp_path, list(FORMS))


@pytest.mark.parametrize(
    "form",
    [
        "subclassed",
        "passing_subclass",
        "own_classes",
        "half_precision",
        pytest.param("functional", marks=pytest.mark.slow),
        pytest.param("random_weights", marks=pytest.mark.slow),
        pytest.param("of_rows", marks=pytest.mark.slow),
        pytest.param("functional_subclass", marks=pytest.mark.slow),
        pytest.param("scaled_losses", marks=pytest.mark.slow),
        pytest.param("moving_average", marks=pytest.mark.slow),
    ],
)
def test_training_goes_on_after_loading(tmp_path, form):
    keras.utils.set_random_seed(1)
    model = FORMS[form]()
    train(model, form)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    history, values = train(model, form)
    loaded_history, loaded_values = train(loaded, form)
    assert_close(history, loaded_history)
    assert_close(values, loaded_values)


# Parts of a model


def test_weights_file_holds_weighting_optimizer_and_seeds(tmp_path):
    one = functional()
    train(one, "functional")
    one.save_weights(tmp_path / "model.weights.h5")
    other = functional()
    other.optimizer.build(other.trainable_variables)
    other.load_weights(tmp_path / "model.weights.h5")
    assert_close(state(one), state(other), 0)


def test_weights_load_into_a_model_that_is_not_compiled(tmp_path):
    one = compiled(weighting="uncertainty")
    one.save_weights(tmp_path / "model.weights.h5")
    other = two_tasks()
    other.load_weights(tmp_path / "model.weights.h5")
    assert_close(layer_weights(one), layer_weights(other), 0)


def test_load_without_compiling(tmp_path):
    model = functional()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert loaded.weighting is None and not loaded.compiled
    x, y = data_of("functional")
    assert_close(model.predict(x, verbose=0), loaded.predict(x, verbose=0))
    with pytest.raises(ValueError, match=r"compile\(\)"):
        loaded.fit(x, y, verbose=0)
    compiled(loaded, weighting="dwa", mask_value={"b": -1})
    loaded.fit(x, y, verbose=0)


def test_a_model_that_was_never_compiled(tmp_path):
    model = two_tasks()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x, _ = data()
    assert_close(model.predict(x, verbose=0), loaded.predict(x, verbose=0))
    assert loaded.task_names == ["a", "b"]


@pytest.mark.parametrize("form", ["functional", "of_rows"])
def test_json(form):
    model = FORMS[form]()
    loaded = keras.models.model_from_json(model.to_json())
    assert type(loaded) is type(model)
    assert loaded.task_names == model.task_names
    assert loaded.task_input == model.task_input
    assert type(loaded.weighting) is type(model.weighting)
    assert [w.shape for w in loaded.weights] == [w.shape for w in model.weights]


def test_the_order_of_tasks_is_kept(tmp_path):
    """States of a weighting are vectors in this order."""
    inputs = keras.Input((FEATURES,))
    outputs = {name: keras.layers.Dense(1)(inputs) for name in ("z", "m", "a")}
    model = MultiTaskModel(inputs, outputs)
    model.compile("sgd", loss="mse", weighting=InverseMean(), run_eagerly=EAGER)
    assert model.task_names == ["z", "m", "a"]
    x, y = data(16)
    model.fit(x, {"z": y["a"], "m": 10 * y["a"], "a": 0 * y["a"]}, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.task_names == ["z", "m", "a"]
    assert_close(
        [ops.convert_to_numpy(model.weighting.average)],
        [ops.convert_to_numpy(loaded.weighting.average)],
    )


def test_loss_weights_in_force_are_saved(tmp_path):
    model = compiled(loss_weights={"a": 2.0})
    model.set_loss_weights({"b": 5.0})
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.loss_weights == {"a": 2.0, "b": 5.0}


@pytest.mark.parametrize(
    ("loss", "argument", "value"),
    [
        (keras.losses.Huber(0.3), "delta", 0.3),
        (keras.losses.CosineSimilarity(axis=1), "axis", 1),
        (keras.losses.SparseCategoricalCrossentropy(axis=1), "axis", 1),
        (keras.losses.BinaryCrossentropy(label_smoothing=0.1), "label_smoothing", 0.1),
    ],
)
@pytest.mark.parametrize("for_all", [False, True])
def test_arguments_of_losses_are_saved(loss, argument, value, for_all):
    """Keras forgets the delta of Huber, and the axis of some."""
    model = compiled(loss=loss if for_all else {"a": loss})
    config = json.loads(json.dumps(model.get_compile_config()))
    other = two_tasks()
    other.compile_from_config(config)
    saved = other.get_compile_config()["loss"]
    assert saved == config["loss"]
    assert (saved if for_all else saved["a"])["config"][argument] == value


def test_frozen_layers_are_saved(tmp_path):
    model = two_tasks()
    model.get_layer("trunk").trainable = False
    compiled(model, weighting=LogVariance())
    train(model, "two_tasks")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not loaded.get_layer("trunk").trainable
    _, one = train(model, "two_tasks")
    _, other = train(loaded, "two_tasks")
    assert_close(one, other)


# Export


def test_export_to_a_saved_model(tmp_path):
    tf = pytest.importorskip("tensorflow")
    model = compiled(weighting="uncertainty")
    x, y = data(8)
    model.fit(x, y, verbose=0)
    path = str(tmp_path / "exported")
    if BACKEND == "torch":
        # Keras cannot, for any model; format="torch" is what it has.
        with pytest.raises(Exception, match=r".+"):
            model.export(path, format="tf_saved_model", verbose=False)
        return
    model.export(path, verbose=False)
    exported = tf.saved_model.load(path)
    served = exported.serve(x)
    served = {name: np.asarray(values) for name, values in served.items()}
    assert_close(model.predict(x, verbose=0), served, 1e-5)


@pytest.mark.skipif(BACKEND != "torch", reason="the format of PyTorch")
@pytest.mark.parametrize("form", ["functional", "of_rows"])
def test_export_to_torch(tmp_path, form):
    import torch

    model = FORMS[form]()
    x, y = keras.tree.map_structure(lambda values: values[:1], data_of(form))
    model.train_on_batch(x, y)
    path = str(tmp_path / "exported.pt2")
    model.export(path, format="torch", verbose=False)
    program = torch.export.load(path).module()
    inputs = keras.tree.map_structure(torch.as_tensor, x)
    with torch.no_grad():
        served = keras.tree.flatten(program(inputs))
    predicted = keras.tree.flatten(model.predict(x, verbose=0))
    assert_close([p.numpy() for p in served], predicted, 1e-5)


@pytest.mark.skipif(BACKEND == "torch", reason="no saved model of Keras on PyTorch")
def test_export_of_a_conditioned_model(tmp_path):
    tf = pytest.importorskip("tensorflow")
    model = of_rows()
    x, y = data_of("of_rows")
    model.fit(x, y, verbose=0)
    path = str(tmp_path / "exported")
    model.export(path, verbose=False)
    exported = tf.saved_model.load(path)
    served = exported.serve(x)
    np.testing.assert_allclose(
        model.predict(x, verbose=0), np.asarray(served), rtol=1e-5, atol=1e-5
    )


def test_losses_of_a_plain_function_need_their_name_to_load(tmp_path):
    """Lambdas are saved by Keras, but loaded only with `safe_mode=False`."""
    model = compiled(loss={"a": lambda t, p: (t - p) ** 2, "b": LOSSES["b"]})
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="safe_mode"):
        keras.models.load_model(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=False)
    x, y = data()
    assert_close(
        model.evaluate(x, y, verbose=0, return_dict=True),
        loaded.evaluate(x, y, verbose=0, return_dict=True),
    )


def test_a_model_of_a_graph_needs_no_build_config():
    """Keras Tuner hands its weights on with one that is empty."""
    model = compiled(two_tasks())
    config = json.loads(json.dumps(model.get_build_config()))
    before = layer_weights(model)
    model.build_from_config(config)
    model.build_from_config({"input_shape": None})
    assert_close(layer_weights(model), before)
