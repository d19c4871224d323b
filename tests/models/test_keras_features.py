"""What Keras does with a model it still does with a model of several tasks."""

import keras
import numpy as np
import pytest
from keras import ops
from small_models import (
    EAGER,
    FEATURES,
    IN_A_GRAPH,
    LOSSES,
    CallCounter,
    TwoHeads,
    assert_close,
    compiled,
    conditioned,
    conditioned_data,
    copy_weights,
    data,
    layer_weights,
    network,
    state,
    two_tasks,
)
from weightings_for_tests import (
    GradientNorms,
    InverseMean,
    LogVariance,
    LossesAfterStep,
)

from keras_mtl import MultiTaskModel

BACKEND = keras.backend.backend()
STEPS = [None, GradientNorms, LossesAfterStep]
"""A weighting for each kind of training step."""

WEIGHTINGS = [
    *STEPS,
    pytest.param(InverseMean, marks=pytest.mark.slow),
    pytest.param(LogVariance, marks=pytest.mark.slow),
]
compiles_slowly = pytest.mark.slow if BACKEND == "torch" else ()


def make(weighting):
    return None if weighting is None else weighting()


def fitted(model, epochs=2, rows=48, **kwargs):
    x, y = data(rows)
    model.fit(x, y, batch_size=16, epochs=epochs, shuffle=False, verbose=0, **kwargs)
    return model


def same_start(count):
    """Models of the same weights."""
    models = [two_tasks() for _ in range(count)]
    for model in models[1:]:
        copy_weights(models[0], model)
    return models


class BatchSequence(keras.utils.PyDataset):
    """The data of `data()` in batches of 16."""

    def __init__(self, x, y, sample_weight=None, **kwargs):
        super().__init__(**kwargs)
        self.arrays = (x, y) if sample_weight is None else (x, y, sample_weight)

    def __len__(self):
        return len(self.arrays[0]) // 16

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        return keras.tree.map_structure(lambda a: a[rows], self.arrays)


def tf_dataset(*arrays):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(arrays).batch(16)


def torch_loader(x, y):
    torch = pytest.importorskip("torch")

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return len(x)

        def __getitem__(self, index):
            return x[index], {task: labels[index] for task, labels in y.items()}

    return torch.utils.data.DataLoader(Rows(), batch_size=16)


# How a step is run


@pytest.mark.parametrize(
    "weighting",
    [
        InverseMean,
        pytest.param(None, marks=pytest.mark.slow),
        pytest.param(GradientNorms, marks=pytest.mark.slow),
        pytest.param(LossesAfterStep, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(
            {"jit_compile": True, **IN_A_GRAPH}, marks=compiles_slowly, id="jit"
        ),
        pytest.param({"jit_compile": False, **IN_A_GRAPH}, id="no_jit"),
        pytest.param({"run_eagerly": True}, id="eager"),
    ],
)
def test_ways_to_run_a_step_agree(arguments, weighting):
    one, other = same_start(2)
    compiled(one, weighting=make(weighting), **IN_A_GRAPH)
    compiled(other, weighting=make(weighting), **arguments)
    assert_close(layer_weights(fitted(one)), layer_weights(fitted(other)), 1e-5)


def test_several_steps_per_execution():
    one, other = same_start(2)
    compiled(one, weighting=InverseMean(), **IN_A_GRAPH)
    if BACKEND == "torch":
        compiled(other, steps_per_execution=2, **IN_A_GRAPH)
        with pytest.raises(ValueError, match="steps_per_execution"):
            fitted(other)
        return
    compiled(other, weighting=InverseMean(), steps_per_execution=2, **IN_A_GRAPH)
    assert_close(layer_weights(fitted(one)), layer_weights(fitted(other)), 1e-5)
    assert_close(state(one), state(other), 1e-5)


def test_train_on_batch_is_one_step_of_fit():
    one, other = same_start(2)
    compiled(one, metrics={"b": "accuracy"})
    compiled(other, metrics={"b": "accuracy"})
    x, y = data(16)
    history = one.fit(x, y, verbose=0, shuffle=False).history
    logs = other.train_on_batch(x, y, return_dict=True)
    assert_close(layer_weights(one), layer_weights(other))
    assert_close({k: v[0] for k, v in history.items()}, logs)


def test_lists_of_train_on_batch_and_test_on_batch():
    model = compiled(metrics={"b": ["accuracy", "auc"]})
    x, y = data(16)
    values = model.test_on_batch(x, y)
    logs = model.test_on_batch(x, y, return_dict=True)
    assert_close(dict(zip(model.metrics_names, values, strict=True)), logs)
    assert model.metrics_names == ["loss", "a_loss", "b_loss", "b_accuracy", "b_auc"]
    assert_close(logs, model.evaluate(x, y, verbose=0, return_dict=True))
    trained = model.train_on_batch(x, y)
    assert len(trained) == len(values) + 2  # the weights of both tasks
    np.testing.assert_allclose(trained[:3], values[:3], rtol=1e-5)


# What a model is trained from


@pytest.mark.parametrize(
    ("make_data", "arguments"),
    [
        pytest.param(tf_dataset, IN_A_GRAPH, id="tf_data"),
        pytest.param(BatchSequence, {}, id="py_dataset"),
        pytest.param(torch_loader, {}, id="torch_loader"),
    ],
)
def test_data_sets_train_as_arrays(make_data, arguments):
    one, other = same_start(2)
    compiled(one, metrics={"a": "mae"})
    compiled(other, metrics={"a": "mae"}, **arguments)
    x, y = data()
    # The second task has labels for some rows only.
    y["a"][::3] = np.nan
    kwargs = {"epochs": 2, "verbose": 0, "shuffle": False}
    from_arrays = one.fit(x, y, batch_size=16, validation_data=(x, y), **kwargs)
    dataset = make_data(x, y)
    from_dataset = other.fit(dataset, validation_data=make_data(x, y), **kwargs)
    assert_close(layer_weights(one), layer_weights(other))
    for name, values in from_arrays.history.items():
        np.testing.assert_allclose(values, from_dataset.history[name], rtol=1e-4)
    assert_close(
        one.evaluate(x, y, batch_size=16, verbose=0, return_dict=True),
        other.evaluate(make_data(x, y), verbose=0, return_dict=True),
        1e-5,
    )
    predicted = other.predict(make_data(x, y), verbose=0)
    assert_close(one.predict(x, verbose=0), predicted, 1e-5)


def test_py_dataset_with_workers():
    one, other = same_start(2)
    x, y = data()
    compiled(one).fit(BatchSequence(x, y), verbose=0, shuffle=False)
    compiled(other).fit(BatchSequence(x, y, workers=2), verbose=0, shuffle=False)
    assert_close(layer_weights(one), layer_weights(other))


@pytest.mark.parametrize("make_data", [tf_dataset, BatchSequence])
def test_a_conditioned_model_trains_from_data_sets(make_data):
    one, other = conditioned(), conditioned()
    copy_weights(one, other)
    x, y = conditioned_data()
    for model in (one, other):
        model.compile(keras.optimizers.SGD(0.1), loss="mse", metrics="mae")
    one.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    if make_data is BatchSequence:
        dataset = ConditionedSequence(x, y)
    else:
        dataset = make_data(x, y)
    other.fit(dataset, verbose=0, shuffle=False)
    assert_close(layer_weights(one), layer_weights(other))


class ConditionedSequence(keras.utils.PyDataset):
    """Batches of 16 of dict inputs."""

    def __init__(self, x, y):
        super().__init__()
        self.arrays = x, y

    def __len__(self):
        return len(self.arrays[1]) // 16

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        return keras.tree.map_structure(lambda a: a[rows], self.arrays)


# Class weights


def by_class(labels, table):
    return np.vectorize(table.get)(labels.astype(int)).astype("float32").reshape(-1)


@pytest.mark.parametrize("from_dataset", [False, True])
def test_class_weights_are_sample_weights(from_dataset):
    one, other = same_start(2)
    compiled(one, weighted_metrics={"b": "accuracy"})
    compiled(other, weighted_metrics={"b": "accuracy"})
    x, y = data()
    table = {0: 0.5, 1: 4.0}
    kwargs = {"epochs": 2, "verbose": 0, "shuffle": False}
    if from_dataset:
        one.fit(BatchSequence(x, y), class_weight={"b": table}, **kwargs)
    else:
        one.fit(x, y, batch_size=16, class_weight={"b": table}, **kwargs)
    weight = {"b": by_class(y["b"], table)}
    other.fit(x, y, batch_size=16, sample_weight=weight, **kwargs)
    assert_close(layer_weights(one), layer_weights(other))
    plain = compiled(same_start(1)[0])
    plain.fit(x, y, batch_size=16, **kwargs)
    assert not np.allclose(layer_weights(one)[0], layer_weights(plain)[0], atol=1e-4)


def test_class_weights_multiply_sample_weights():
    one, other = same_start(2)
    compiled(one)
    compiled(other)
    x, y = data(16)
    table = {0: 0.5, 1: 4.0}
    given = np.linspace(0.1, 2, 16, dtype="float32")
    both = given * by_class(y["b"], table)
    logs = one.train_on_batch(
        x, y, {"b": given}, class_weight={"b": table}, return_dict=True
    )
    assert_close(logs, other.train_on_batch(x, y, {"b": both}, return_dict=True))
    assert_close(layer_weights(one), layer_weights(other))


def test_class_weights_are_not_for_evaluation():
    model = compiled()
    x, y = data()
    before = model.evaluate(x, y, verbose=0)
    model.optimizer.learning_rate = 0.0
    history = model.fit(
        x,
        y,
        validation_data=(x, y),
        class_weight={"b": {1: 100.0}},
        verbose=0,
    ).history
    np.testing.assert_allclose(history["val_loss"][0], before[0], rtol=1e-5)
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), before, rtol=1e-5)
    assert history["b_loss"][0] > 2 * before[2]


@pytest.mark.parametrize("one_hot", [False, True])
def test_class_weights_of_several_classes(one_hot):
    inputs = keras.Input((FEATURES,))
    outputs = {
        "k": keras.layers.Dense(3, "softmax", name="k")(inputs),
        "r": keras.layers.Dense(1, name="r")(inputs),
    }
    model = MultiTaskModel(inputs, outputs)
    loss = "categorical_crossentropy" if one_hot else "sparse_categorical_crossentropy"
    model.compile("sgd", loss={"k": loss, "r": "mse"})
    x, y = data(12)
    classes = np.arange(12) % 3
    labels = {"k": np.eye(3, dtype="float32")[classes] if one_hot else classes}
    labels["r"] = y["a"]
    table = {0: 1.0, 1: 3.0, 2: 0.25}
    p = model.predict(x, verbose=0)["k"][np.arange(12), classes]
    expected = np.mean(np.vectorize(table.get)(classes) * -np.log(p))
    logs = model.train_on_batch(x, labels, class_weight={"k": table}, return_dict=True)
    np.testing.assert_allclose(logs["k_loss"], expected, rtol=1e-5)


def test_class_weights_need_the_task():
    model = compiled()
    x, y = data(16)
    with pytest.raises(ValueError, match=r"class_weight.*Received"):
        model.fit(x, y, class_weight={0: 1.0, 1: 2.0}, verbose=0)
    with pytest.raises(ValueError, match=r"class_weight.*\['c'\]"):
        model.fit(x, y, class_weight={"c": {0: 1.0}}, verbose=0)


# Callbacks


def test_early_stopping_on_a_metric_of_a_task():
    model = compiled(optimizer=keras.optimizers.SGD(0.0), metrics={"a": "mae"})
    for monitor in ("a_mae", "val_a_loss"):
        stop = keras.callbacks.EarlyStopping(monitor, mode="min", patience=2)
        x, y = data()
        history = model.fit(
            x, y, epochs=9, validation_split=0.25, callbacks=[stop], verbose=0,
            shuffle=False, batch_size=36,
        )  # fmt: skip
        assert history.epoch == [0, 1, 2]


def test_early_stopping_restores_the_best_weights():
    model = compiled(optimizer=keras.optimizers.SGD(0.3))
    x, y = data()
    stop = keras.callbacks.EarlyStopping(
        "val_b_loss", mode="max", patience=2, restore_best_weights=True
    )
    history = model.fit(
        x, y, epochs=6, validation_data=(x, y), callbacks=[stop], verbose=0
    ).history
    best = max(history["val_b_loss"])
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["b_loss"], best, rtol=1e-5)


def test_reduce_learning_rate_on_plateau_of_a_task():
    model = compiled(optimizer=keras.optimizers.SGD(0.4))
    plateau = keras.callbacks.ReduceLROnPlateau(
        "val_a_loss", mode="min", factor=0.5, patience=1, min_delta=1e9
    )
    x, y = data()
    history = model.fit(
        x, y, epochs=4, validation_data=(x, y), callbacks=[plateau], verbose=0
    ).history
    np.testing.assert_allclose(history["learning_rate"], [0.4, 0.4, 0.2, 0.1])


@pytest.mark.parametrize("weighting", ["dwa", "uncertainty"])
def test_model_checkpoint_keeps_the_best_model(tmp_path, weighting):
    model = compiled(optimizer=keras.optimizers.SGD(0.3), weighting=weighting)
    x, y = data()
    path = str(tmp_path / "best.keras")
    checkpoint = keras.callbacks.ModelCheckpoint(
        path, monitor="val_a_loss", mode="min", save_best_only=True
    )
    history = model.fit(
        x, y, epochs=3, validation_data=(x, y), callbacks=[checkpoint], verbose=0
    ).history
    best = keras.models.load_model(path)
    logs = best.evaluate(x, y, verbose=0, return_dict=True)
    epoch = int(np.argmin(history["val_a_loss"]))
    if weighting == "dwa":
        logs.pop("loss")  # the file has the weights of the next epoch already
    for name, value in logs.items():
        np.testing.assert_allclose(value, history[f"val_{name}"][epoch], rtol=1e-5)


class Kill(keras.callbacks.Callback):
    """Raises at the beginning of an epoch, as if the process was killed."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def dropout_model(weighting, **kwargs):
    keras.utils.set_random_seed(3)
    extra = [keras.layers.Dropout(0.5, seed=7), keras.layers.BatchNormalization()]
    model = two_tasks(extra=extra)
    optimizer = keras.optimizers.Adam(0.05)
    return compiled(model, optimizer=optimizer, weighting=weighting, **kwargs)


@pytest.mark.parametrize(
    ("weighting", "arguments"),
    [
        ("uncertainty", {}),
        ("grad_norm", {}),
        pytest.param("equal", {}, marks=pytest.mark.slow),
        pytest.param("dwa", {}, marks=pytest.mark.slow),
        pytest.param("famo", {}, marks=pytest.mark.slow),
        pytest.param("random_weighting", {}, marks=pytest.mark.slow),
        pytest.param("uncertainty", IN_A_GRAPH, marks=pytest.mark.slow),
        pytest.param("grad_norm", IN_A_GRAPH, marks=pytest.mark.slow),
        pytest.param("famo", IN_A_GRAPH, marks=pytest.mark.slow),
    ],
)
def test_backup_and_restore_resumes_the_same_trajectory(tmp_path, weighting, arguments):
    x, y = data()
    y["b"][:16] = np.nan
    kwargs = {"epochs": 3, "batch_size": 16, "shuffle": False, "verbose": 0}
    uninterrupted = dropout_model(weighting, **arguments)
    expected = uninterrupted.fit(x, y, **kwargs).history

    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    with pytest.raises(KeyboardInterrupt):
        dropout_model(weighting, **arguments).fit(
            x, y, callbacks=[backup, Kill(2)], **kwargs
        )
    resumed = dropout_model(weighting, **arguments)
    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    history = resumed.fit(x, y, callbacks=[backup], **kwargs)

    assert history.epoch == [2]
    for name, values in history.history.items():
        np.testing.assert_allclose(values, expected[name][2:], rtol=1e-5)
    assert_close(state(resumed), state(uninterrupted))


# Optimisers


def test_gradient_accumulation_is_a_step_on_the_larger_batch():
    one, other = same_start(2)
    compiled(one, optimizer=keras.optimizers.SGD(0.1))
    compiled(
        other,
        optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
        **IN_A_GRAPH,
    )
    x, y = data(64)
    for model, batch_size in ((one, 32), (other, 16)):
        model.fit(x, y, batch_size=batch_size, epochs=2, shuffle=False, verbose=0)
    assert_close(layer_weights(one), layer_weights(other), 1e-5)


def averaged():
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9)
    return compiled(optimizer=optimizer)


class Recorder(keras.callbacks.Callback):
    """Keeps the trunk's kernel after every batch."""

    def on_train_begin(self, logs=None):
        self.kernels = [self.kernel()]

    def on_train_batch_end(self, batch, logs=None):
        self.kernels.append(self.kernel())

    def kernel(self):
        return ops.convert_to_numpy(self.model.get_layer("trunk").kernel).copy()


def test_moving_average_of_weights():
    model = averaged()
    recorder = Recorder()
    fitted(model, callbacks=[recorder])
    average = recorder.kernels[0]
    for kernel in recorder.kernels[1:]:
        average = 0.9 * average + 0.1 * kernel
    final = ops.convert_to_numpy(model.get_layer("trunk").kernel)
    # Keras starts the average at the first weights after a step, or before it.
    np.testing.assert_allclose(final, average, atol=0.02)
    assert np.abs(final - recorder.kernels[-1]).max() > 1e-3


def test_moving_average_over_fit_evaluate_fit_and_save(tmp_path):
    x, y = data()
    model = fitted(averaged())
    fitted(model)
    model.evaluate(x, y, verbose=0)
    fitted(model)
    before = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    fitted(model)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_close(loaded.predict(x, verbose=0), before)
    fitted(loaded)
    assert_close(layer_weights(loaded), layer_weights(model), 1e-5)


def test_moving_average_overwrites_while_training():
    optimizer = keras.optimizers.SGD(
        0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    )
    model = fitted(fitted(compiled(optimizer=optimizer)))
    assert all(np.isfinite(w).all() for w in layer_weights(model))


def step_of(optimizer, **kwargs):
    model = compiled(optimizer=optimizer, **kwargs)
    before = layer_weights(model)
    x, y = data(16)
    model.train_on_batch(x, y)
    return [b - a for b, a in zip(before, layer_weights(model), strict=True)]


def test_global_clipnorm():
    steps = step_of(
        keras.optimizers.SGD(1.0, global_clipnorm=0.01), loss_weights={"a": 1e3}
    )
    norm = np.sqrt(sum(np.sum(s.astype("float64") ** 2) for s in steps))
    np.testing.assert_allclose(norm, 0.01, rtol=1e-3)


def test_clipvalue():
    steps = step_of(keras.optimizers.SGD(1.0, clipvalue=0.01), loss_weights={"a": 1e3})
    np.testing.assert_allclose(max(np.abs(s).max() for s in steps), 0.01, rtol=1e-3)


def test_clipnorm_of_each_variable():
    steps = step_of(keras.optimizers.SGD(1.0, clipnorm=0.01), loss_weights={"a": 1e3})
    assert max(np.linalg.norm(s) for s in steps) <= 0.0101


def test_weight_decay_leaves_the_weighting_alone():
    model = compiled(
        optimizer=keras.optimizers.AdamW(1e-12, weight_decay=1e9),
        weighting=LogVariance(),
    )
    model.weighting.log_variance.assign([1.0, -1.0])
    x, y = data(16)
    before = layer_weights(model)
    model.train_on_batch(x, y)
    np.testing.assert_allclose(
        ops.convert_to_numpy(model.weighting.log_variance), [1.0, -1.0], atol=1e-6
    )
    assert np.abs(layer_weights(model)[0] - before[0]).max() > 1e-5


# Mixed precision


@pytest.mark.parametrize(
    "weighting", [None, InverseMean, LogVariance, GradientNorms, LossesAfterStep]
)
@pytest.mark.parametrize(
    "policy",
    ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)],
)
def test_mixed_precision(policy, weighting):
    keras.config.set_dtype_policy(policy)
    model = compiled(
        weighting=make(weighting),
        metrics={"a": "mae", "b": "auc"},
        run_eagerly=EAGER and weighting is not None,
    )
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    x, y = data()
    y["a"][:20] = np.nan  # all of the first batch
    kwargs = {"batch_size": 16, "shuffle": False, "verbose": 0}
    history = model.fit(x, y, epochs=4, **kwargs).history
    assert all(np.isfinite(v).all() for v in history.values())
    assert history["a_loss"][-1] < history["a_loss"][0]
    assert all(np.isfinite(s).all() for s in state(model))
    assert {str(w.dtype) for w in layer_weights(model)} == {"float32"}


def test_mixed_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = compiled(weighting="uncertainty")
    assert not isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    history = fitted(model, epochs=4).history.history
    assert history["a_loss"][-1] < history["a_loss"][0]
    assert "bfloat16" in str(model(data(4)[0])["a"].dtype)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_loss_scaling_does_not_change_the_step(weighting):
    one, other = same_start(2)
    compiled(one, weighting=make(weighting))
    scaled = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=4096.0
    )
    compiled(other, optimizer=scaled, weighting=make(weighting))
    assert_close(layer_weights(fitted(one)), layer_weights(fitted(other)), 1e-5)
    of_weighting = [
        [ops.convert_to_numpy(v) for v in m.weighting.variables] for m in (one, other)
    ]
    assert_close(*of_weighting, 1e-5)


def test_a_step_that_overflows_is_skipped_and_the_scale_halved():
    keras.config.set_dtype_policy("mixed_float16")
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=2.0**15
    )
    model = compiled(optimizer=optimizer)
    x, y = data(16)
    before = layer_weights(model)
    model.train_on_batch(x, {**y, "a": 1e6 * y["a"]})
    assert_close(before, layer_weights(model), 0)
    np.testing.assert_allclose(ops.convert_to_numpy(optimizer.dynamic_scale), 2.0**14)
    model.train_on_batch(x, y)
    assert np.abs(before[0] - layer_weights(model)[0]).max() > 0


# Layers


class Activity(keras.layers.Layer):
    """Adds the mean square of its input to the loss."""

    def call(self, x):
        self.add_loss(0.3 * ops.mean(ops.square(x)))
        return x


@pytest.mark.parametrize("weighting", [None, InverseMean, GradientNorms])
def test_regularisation_is_added_to_the_tasks(weighting):
    model = compiled(
        two_tasks(extra=[Activity()], regularizer=keras.regularizers.L2(0.1)),
        loss_weights={"a": 2.0},
        weighting=make(weighting),
    )
    x, y = data(16)
    features = keras.Model(model.input, model.get_layer("trunk").output)
    kernel = ops.convert_to_numpy(model.get_layer("trunk").kernel)
    h = features.predict(x, verbose=0)
    extra = 0.1 * np.sum(kernel**2) + 0.3 * np.mean(h**2)
    for logs in (
        model.test_on_batch(x, y, return_dict=True),
        model.train_on_batch(x, y, return_dict=True),
    ):
        expected = 2 * logs["a_loss"] + logs["b_loss"] + extra
        np.testing.assert_allclose(logs["loss"], expected, rtol=1e-6)


@pytest.mark.parametrize("weighting", [None, InverseMean, GradientNorms])
def test_regularisation_is_trained(weighting):
    one, other = (
        compiled(
            two_tasks(regularizer=regularizer),
            optimizer=keras.optimizers.SGD(0.5),
            weighting=make(weighting),
        )
        for regularizer in (None, keras.regularizers.L2(0.1))
    )
    copy_weights(one, other)
    x, y = data(16)
    kernel = ops.convert_to_numpy(one.get_layer("trunk").kernel).copy()
    for model in (one, other):
        model.train_on_batch(x, y)
    kernels = [ops.convert_to_numpy(m.get_layer("trunk").kernel) for m in (one, other)]
    np.testing.assert_allclose(kernels[0] - kernels[1], 0.5 * 0.2 * kernel, atol=1e-6)


@pytest.mark.parametrize("weighting", STEPS)
def test_batch_normalization_moves_once_a_step(weighting):
    model = compiled(
        two_tasks(extra=[keras.layers.BatchNormalization(momentum=0.9, name="bn")]),
        weighting=make(weighting),
    )
    x, y = data(16)
    features = keras.Model(model.input, model.get_layer("trunk").output)
    h = features.predict(x, verbose=0)
    model.train_on_batch(x, y)
    bn = model.get_layer("bn")
    mean, variance = map(ops.convert_to_numpy, (bn.moving_mean, bn.moving_variance))
    np.testing.assert_allclose(mean, 0.1 * h.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(variance, 0.9 + 0.1 * h.var(axis=0), atol=1e-5)


@pytest.mark.parametrize("weighting", STEPS)
def test_dropout_draws_once_a_step(weighting):
    """A second draw would move the seed on further than plain Keras does."""
    one = two_tasks(extra=[keras.layers.Dropout(0.5, seed=1, name="dropout")])
    plain = keras.Model(*network(extra=[keras.layers.Dropout(0.5, seed=1)]))
    compiled(one, weighting=make(weighting))
    plain.compile("sgd", loss=LOSSES)
    x, y = data(16)
    seeds = []
    for model in (one, plain):
        model.train_on_batch(x, y)
        (seed,) = [v for v in model.non_trainable_variables if "seed" in v.path]
        seeds.append(ops.convert_to_numpy(seed))
    assert_close([seeds[0]], [seeds[1]], 0)


@pytest.mark.parametrize("weighting", STEPS)
def test_forward_passes_a_step(weighting):
    model = compiled(
        two_tasks(extra=[CallCounter()]),
        weighting=make(weighting),
        run_eagerly=True,
    )
    fitted(model, epochs=1)
    CallCounter.reset()
    fitted(model, epochs=1)
    passes = CallCounter.calls / 3
    if weighting is LossesAfterStep:
        assert passes == 2
    elif weighting is GradientNorms and BACKEND == "jax":
        assert passes == 2  # written twice, which the compiler merges
    else:
        assert passes == 1


@pytest.mark.skipif(BACKEND != "jax", reason="of the JAX step")
def test_gradient_norms_share_the_forward_pass_on_jax():
    import jax

    model = compiled(weighting=GradientNorms(), jit_compile=True)
    x, y = data(16)
    fitted(model, epochs=1)
    variables = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    values = tuple([v.value for v in group] for group in variables)
    text = jax.jit(model.train_step).lower(values, (x, y)).compile().as_text()
    assert text.count(" tanh(") == 1


@pytest.mark.parametrize("weighting", STEPS)
def test_frozen_layers_stay(weighting):
    model = two_tasks(extra=[keras.layers.Dense(8, name="shared")])
    model.get_layer("trunk").trainable = False
    compiled(model, weighting=make(weighting))
    before = layer_weights(model)
    fitted(model, epochs=1)
    after = layer_weights(model)
    assert_close(before[:2], after[:2], 0)
    for one, other in zip(before[2:], after[2:], strict=True):
        assert np.abs(one - other).max() > 0


# Evaluation, prediction and the graph


def test_evaluate_returns_a_dict_or_a_list_in_the_order_of_names():
    model = compiled(metrics={"a": ["mae", "mse"], "b": ["accuracy"]})
    x, y = data()
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    values = model.evaluate(x, y, verbose=0)
    names = ["loss", "a_loss", "b_loss", "a_mae", "a_mse", "b_accuracy"]
    assert model.metrics_names == names
    assert_close(dict(zip(names, values, strict=True)), logs)
    p = model.predict(x, verbose=0)
    expected = {
        "a_loss": np.mean((p["a"] - y["a"]) ** 2),
        "a_mse": np.mean((p["a"] - y["a"]) ** 2),
        "a_mae": np.mean(np.abs(p["a"] - y["a"])),
        "b_accuracy": np.mean((p["b"] > 0.5) == (y["b"] > 0.5)),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-5)


def test_predict():
    model = compiled(two_tasks(extra=[keras.layers.Dropout(0.5)]))
    x, _ = data(20)
    predicted = model.predict(x, batch_size=8, verbose=0)
    assert {k: v.shape for k, v in predicted.items()} == {"a": (20, 1), "b": (20, 1)}
    assert_close(predicted, model.predict_on_batch(x), 1e-5)
    called = {k: ops.convert_to_numpy(v) for k, v in model(x).items()}
    assert_close(predicted, called, 1e-5)


def test_predict_of_a_conditioned_model_is_one_array():
    model = conditioned()
    x, _ = conditioned_data(20)
    assert model.predict(x, verbose=0).shape == (20, 1)


def test_predict_needs_no_compile():
    x, _ = data(4)
    assert two_tasks().predict(x, verbose=0)["a"].shape == (4, 1)


def test_plot_model():
    pytest.importorskip("pydot")
    model = compiled()
    text = keras.utils.model_to_dot(model, show_shapes=True).to_string()
    assert all(name in text for name in ("trunk", "head_a", "head_b"))


def test_summary():
    model = compiled(weighting=LogVariance())
    lines = []
    model.summary(print_fn=lines.append)
    text = "\n".join(lines)
    assert all(name in text for name in ("trunk", "head_a", "head_b"))
    fitted(model, epochs=1)
    model.summary(print_fn=lines.append)


@pytest.mark.parametrize("make_model", [two_tasks, TwoHeads])
def test_clone_model(make_model, weighting="uncertainty"):
    model = fitted(compiled(make_model(), weighting=weighting), epochs=1)
    clone = keras.models.clone_model(model)
    assert type(clone) is type(model)
    x, y = data()
    clone(x)
    assert clone.task_names == model.task_names
    if make_model is TwoHeads:
        compiled(clone, weighting=weighting)
    assert type(clone.weighting) is type(model.weighting)
    clone.set_weights(model.get_weights())
    assert_close(clone.predict(x, verbose=0), model.predict(x, verbose=0))
    assert_close(clone.evaluate(x, y, verbose=0), model.evaluate(x, y, verbose=0))


def test_a_conditioned_model_is_cloned_by_its_config():
    """`clone_model` rebuilds from inputs and outputs, which do not name the tasks."""
    model = conditioned()
    with pytest.raises(ValueError, match="task_names"):
        keras.models.clone_model(model)
    clone = MultiTaskModel.from_config(model.get_config())
    assert (clone.task_names, clone.task_input) == (["a", "b", "c"], "task")
    clone.set_weights(model.get_weights())
    x, _ = conditioned_data()
    np.testing.assert_allclose(
        clone.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6
    )


def test_layers_and_models_of_inner_tensors():
    model = compiled()
    x, _ = data(4)
    features = keras.Model(model.input, model.get_layer("trunk").output)
    assert features.predict(x, verbose=0).shape == (4, 8)
    one_task = keras.Model(model.input, model.output["a"])
    np.testing.assert_allclose(
        one_task.predict(x, verbose=0), model.predict(x, verbose=0)["a"], rtol=1e-6
    )
    assert [layer.name for layer in model.layers] == [
        "x", "trunk", "head_a", "head_b",
    ]  # fmt: skip


def test_a_model_may_be_a_layer_of_another_model():
    model = two_tasks()
    inputs = keras.Input((FEATURES,))
    outer = MultiTaskModel(inputs, model(2 * inputs))
    fitted(compiled(outer), epochs=1)
    x, _ = data(4)
    assert_close(outer.predict(x, verbose=0), model.predict(2 * x, verbose=0), 1e-5)
