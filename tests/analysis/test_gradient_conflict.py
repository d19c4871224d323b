"""Conflict of gradients by layer, measured while `fit` trains."""

import copy

import keras
import numpy as np
import pytest
from probed_models import (
    NAMES,
    ROWS,
    as_float64,
    data,
    gradients_by_hand,
    linear,
    two_layers,
)

import keras_mtl
from keras_mtl.analysis import GradientConflict, TaskAffinity
from keras_mtl.engine.batch_part import spread_rows

BACKEND = keras.backend.backend()


def trained(model, callback, seed=0, names=NAMES, labels=None, **arguments):
    x, y = data(seed, names)
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0, **arguments}
    history = model.fit(x, labels or y, callbacks=[callback], **arguments)
    return history.history


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_closed_form(scale):
    """Cosine, conflict and norms of one step are those of gradients by hand."""
    model = linear()
    model.compile(
        "sgd",
        loss={n: keras.losses.MeanSquaredError() for n in "ab"},
        loss_weights={"a": scale, "b": 1.0},
    )
    x, y = data(names=["a", "b"])
    gradients = gradients_by_hand(*as_float64(model, x, y))
    gradients[0] *= scale
    flat = gradients.reshape(2, -1)
    norms = np.linalg.norm(flat, axis=1)
    cosine = flat[0] @ flat[1] / norms.prod()
    conflict = GradientConflict(every=1, fraction=1.0)
    trained(model, conflict, names=["a", "b"], batch_size=ROWS)
    assert conflict.layer_names == ["trunk", "all shared"]
    for place in (0, 1):
        found = conflict.total
        np.testing.assert_allclose(found.norms[place], norms, rtol=1e-5)
        np.testing.assert_allclose(found.cosines[place, 0, 1], cosine, atol=1e-5)
        assert found.conflict_rate[place, 0, 1] == float(cosine < 0)
        ratio = found.magnitude_ratio[place, 0, 1]
        np.testing.assert_allclose(ratio, norms[0] / norms[1], rtol=1e-5)


def test_opposed_tasks_conflict_in_every_step():
    model = two_layers(["a", "b"])
    model.get_layer("head_b").set_weights(model.get_layer("head_a").get_weights())
    model.compile(keras.optimizers.SGD(1e-8), loss="mse")
    x, y = data(names=["a", "b"])
    shift = 100 * np.ones_like(y["a"])  # So far off that the labels are the gradient.
    conflict = GradientConflict(every=1, fraction=1.0)
    model.fit(
        x,
        {"a": shift, "b": -shift},
        batch_size=8,
        verbose=0,
        shuffle=False,
        callbacks=[conflict],
    )
    first = conflict.history[0]
    assert np.all(first.cosines[:, 0, 1] < -0.5)
    assert np.all(first.conflict_rate[:, 0, 1] == 1)


@pytest.mark.parametrize(
    "callbacks", [[GradientConflict], [TaskAffinity], [GradientConflict, TaskAffinity]]
)
def test_training_is_the_same_as_without(callbacks):
    """Also with dropout and moving averages, and so are its logs."""
    found = []
    for used in ([], callbacks):
        keras.utils.set_random_seed(1)
        extra = [keras.layers.Dropout(0.4), keras.layers.BatchNormalization()]
        model = two_layers(extra=extra)
        model.compile("adam", loss="mse", metrics=["mae"])
        x, y = data()
        history = model.fit(
            x,
            y,
            batch_size=8,
            epochs=3,
            verbose=0,
            shuffle=True,
            validation_data=(x, y),
            callbacks=[make(every=2) for make in used],
        )
        found.append((model.get_weights(), history.history))
    (weights, logs), (weights_with, logs_with) = found
    for one, other in zip(weights, weights_with, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert logs.keys() == logs_with.keys()
    for name in logs:
        np.testing.assert_allclose(logs[name], logs_with[name], rtol=1e-5)


@pytest.mark.parametrize("every", [1, 2, 5])
def test_every_nth_step_is_measured(every):
    """Counted over epochs; an evaluation in between takes nothing away."""
    model = two_layers()
    model.compile("sgd", loss="mse")
    x, y = data()
    conflict = GradientConflict(every=every)
    trained(model, conflict, epochs=3, validation_data=(x, y))
    steps = [int(epoch.steps[0, 0, 1]) for epoch in conflict.history]
    per_epoch = ROWS // 8
    due = [step % every == 0 for step in range(3 * per_epoch)]
    assert steps == [sum(due[i : i + 3]) for i in range(0, len(due), per_epoch)]
    assert conflict.total.steps[0, 0, 1] == sum(steps)


def test_a_task_without_labels_does_not_count():
    model = two_layers()
    model.compile("sgd", loss="mse")
    _, y = data()
    y["c"][8:] = np.nan  # There in the first of three batches.
    conflict = GradientConflict(every=1, fraction=1.0)
    trained(model, conflict, labels=y)
    steps = conflict.total.steps[-1]
    assert steps[0, 1] == 3
    assert steps[0, 2] == steps[1, 2] == steps[2, 2] == 1
    assert np.isfinite(conflict.total.cosines).all()


def test_what_was_never_measured_is_nan():
    """As a pair of tasks that no layer serves both of."""
    inputs = keras.Input((4,))
    root = keras.layers.Dense(6, name="root")(inputs)
    branch = keras.layers.Dense(5, name="branch")(root)
    heads = {
        n: keras.layers.Dense(1, name=f"head_{n}")(branch if n in "ab" else root)
        for n in NAMES
    }
    model = keras_mtl.MultiTaskModel(inputs, heads)
    model.compile("sgd", loss="mse")
    conflict = GradientConflict(every=1)
    trained(model, conflict)
    assert conflict.layer_names == ["root", "branch", "all shared"]
    total = conflict.total
    assert np.isnan(total.cosines[1, 2, 0])
    assert np.isfinite(total.cosines[1, 0, 1])
    assert np.isfinite(total.cosines[[0, 2]]).all()
    assert np.isnan(total.conflict_rate[1, 2, 0])


def test_blocks_are_taken_apart():
    inputs = keras.Input((4,))
    block = keras.Sequential(
        [keras.layers.Dense(3, name="one"), keras.layers.Dense(3, name="two")],
        name="block",
    )
    h = block(inputs)
    model = keras_mtl.MultiTaskModel(
        inputs, {n: keras.layers.Dense(1)(h) for n in NAMES}
    )
    model.compile("sgd", loss="mse")
    conflict = GradientConflict()
    trained(model, conflict)
    assert [name.split("/")[-1] for name in conflict.layer_names[:-1]] == ["one", "two"]


class Subclassed(keras_mtl.MultiTaskModel):
    def __init__(self):
        super().__init__(task_names=NAMES)
        self.trunk = keras.layers.Dense(6, "tanh", name="trunk")
        self.heads = [keras.layers.Dense(1) for _ in NAMES]

    def call(self, x, training=False):
        h = self.trunk(x)
        return {n: head(h) for n, head in zip(NAMES, self.heads, strict=True)}

    def layer_tasks(self):
        heads = zip(self.heads, NAMES, strict=True)
        return [(self.trunk, NAMES), *((head, (n,)) for head, n in heads)]


def test_a_subclassed_model():
    model = Subclassed()
    x, _ = data()
    conflict, affinity = GradientConflict(every=1), TaskAffinity(every=1)
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="is not built"):
        trained(model, conflict)
    model(x[:2])
    trained(model, conflict)
    trained(model, affinity)
    assert len(conflict.layer_names) == 2
    assert np.isfinite(conflict.total.cosines).all()
    assert np.isfinite(affinity.matrix).all()


def test_gradients_are_by_parameters_wherever_the_aggregator_looks():
    """Also where a model is cut at a layer, of which it is run in two stages."""
    found = []
    for arguments in ({}, {"aggregator": "mgda", "aggregate_at": "trunk"}):
        keras.utils.set_random_seed(0)
        model = Subclassed()
        x, _ = data()
        model(x[:2])
        model.compile(keras.optimizers.SGD(1e-8), loss="mse", **arguments)
        conflict = GradientConflict(every=1, fraction=1.0)
        affinity = TaskAffinity(every=1, fraction=1.0)
        trained(model, conflict)
        trained(model, affinity)
        found.append([conflict.total.norms, affinity.total.first_order])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


def test_outputs_without_a_loss_and_layers_of_several_heads():
    """What is shared is what the trained tasks share, through whatever layers."""
    inputs = keras.Input((4,))
    root = keras.layers.Dense(6, name="root")(inputs)
    branch = keras.layers.Dense(5, name="branch")(root)
    model = keras_mtl.MultiTaskModel(
        inputs, {n: keras.layers.Dense(1)(root if n == "a" else branch) for n in NAMES}
    )
    model.compile("sgd", loss={"a": "mse", "b": "mse"})
    conflict = GradientConflict(every=1)
    x, y = data()
    model.fit(x, {n: y[n] for n in "ab"}, verbose=0, callbacks=[conflict])
    assert conflict.layer_names == ["root", "all shared"]
    common = keras.layers.Dense(6, name="common")
    heads = {n: keras.Sequential([common, keras.layers.Dense(1)])(root) for n in NAMES}
    model = keras_mtl.MultiTaskModel(inputs, heads)
    model.compile("sgd", loss="mse")
    trained(model, conflict)
    assert [layer.tasks for layer in conflict.layers] == [tuple(NAMES)] * 2
    assert np.isfinite(conflict.total.cosines).all()


def test_a_fit_within_a_fit():
    """Each measures its own steps, and the outer one goes on."""

    class Inner(keras.callbacks.Callback):
        def __init__(self, callbacks):
            super().__init__()
            self.callbacks = callbacks

        def on_epoch_end(self, epoch, logs=None):
            x, y = data()
            self.model.fit(x, y, batch_size=8, verbose=0, callbacks=self.callbacks)

    if BACKEND == "jax":
        pytest.skip("Keras on JAX has no fit within a fit: its state is away")
    model = two_layers()
    model.compile("sgd", loss="mse")
    outer, inner = GradientConflict(every=1), GradientConflict(every=1)
    x, y = data()
    model.fit(
        x, y, batch_size=8, epochs=2, verbose=0, callbacks=[outer, Inner([inner])]
    )
    assert outer.total.steps[0, 0, 1] == 6
    assert inner.total.steps[0, 0, 1] == 3
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[outer, Inner([])])
    assert outer.total.steps[0, 0, 1] == 6


def test_states_by_row_take_whole_batches():
    inputs = keras.Input(batch_shape=(8, 3, 4))
    h = keras.layers.SimpleRNN(5, stateful=True)(inputs)
    model = keras_mtl.MultiTaskModel(
        inputs, {n: keras.layers.Dense(1)(h) for n in NAMES}
    )
    model.compile("sgd", loss="mse")
    assert GradientConflict().make_gradient_probe(model).fraction == 1.0
    assert GradientConflict().make_gradient_probe(two_compiled()).fraction < 1.0


def two_compiled():
    model = two_layers()
    model.compile("sgd", loss="mse")
    return model


def test_a_used_callback_can_be_copied():
    conflict = GradientConflict(every=1)
    trained(two_compiled(), conflict, epochs=5, initial_epoch=3)
    copied = copy.deepcopy(conflict)
    np.testing.assert_array_equal(copied.total.norms, conflict.total.norms)
    assert set(conflict.to_frame().epoch) == {3, 4}


def test_a_step_of_its_own_is_an_error():
    class OwnStep(Subclassed):
        def train_step(self, *args):
            return keras.Model.train_step(self, *args)

    model = OwnStep()
    x, _ = data()
    model(x[:2])
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="`train_step` does not call"):
        trained(model, GradientConflict())


def test_rows_in_blocks_of_tasks_all_count():
    """A part of a batch has rows of all of it."""
    rows = np.arange(10)
    part = keras.ops.convert_to_numpy(spread_rows(rows, 0.3))
    assert part.tolist() == [0, 3, 6]
    assert len(spread_rows(rows, 0.31)) == 4
    assert spread_rows(rows, 1.0) is rows


def test_rows_of_several_tasks():
    """With a task input each row belongs to one task."""
    x = keras.Input((4,), name="x")
    task = keras.Input((), dtype="int32", name="task")
    z = keras_mtl.layers.TaskEmbedding(3, 2)(task)
    h = keras.layers.Dense(6, "tanh", name="trunk")(x)
    y = keras.layers.Dense(1)(keras_mtl.layers.ConcatConditioning()(h, z))
    model = keras_mtl.MultiTaskModel(
        {"x": x, "task": task}, y, task_names=NAMES, task_input="task"
    )
    model.compile("sgd", loss="mse")
    values, labels = data()
    inputs = {"x": values, "task": np.arange(ROWS, dtype="int32") % 3}
    conflict, affinity = GradientConflict(1, 1.0), TaskAffinity(1, fraction=1.0)
    model.fit(
        inputs, labels["a"], batch_size=12, verbose=0, callbacks=[conflict, affinity]
    )
    assert np.isfinite(conflict.total.cosines[-1]).all()
    assert np.isfinite(affinity.matrix).all()


@pytest.mark.parametrize(
    "compiled",
    [
        {"weighting": "uncertainty"},
        {"weighting": "famo"},
        {"weighting": "grad_norm"},
        {"aggregator": "pcgrad"},
        {"aggregator": "mgda", "aggregate_at": "representation"},
        {"run_eagerly": True},
        pytest.param(
            {"jit_compile": True},
            marks=pytest.mark.skipif(
                BACKEND == "torch", reason="compiles for a minute"
            ),
        ),
        pytest.param(
            {"steps_per_execution": 3},
            marks=pytest.mark.skipif(BACKEND == "torch", reason="refused by Keras"),
        ),
    ],
    ids=str,
)
def test_with_every_kind_of_step(compiled):
    model = two_layers()
    model.compile("adam", loss="mse", **compiled)
    conflict, affinity = GradientConflict(every=2), TaskAffinity(every=2)
    x, y = data()
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[conflict, affinity])
    assert conflict.total.steps[-1, 0, 1] == 3
    assert np.isfinite(conflict.total.cosines).all()
    assert np.isfinite(affinity.total.look_ahead).all()


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = two_layers()
    model.compile("sgd", loss="mse")
    conflict, affinity = GradientConflict(every=1), TaskAffinity(every=1)
    x, y = data()
    model.fit(x, y, batch_size=8, epochs=10, verbose=0, callbacks=[conflict, affinity])
    first = affinity.total.first_order
    assert (np.diag(first) > 0).all()
    assert (np.diag(first) < 1).all()  # Not times the loss scaling.
    assert np.isfinite(conflict.total.cosines).all()


def test_a_second_fit_begins_anew_and_a_third_measures_nothing():
    model = two_layers()
    model.compile("sgd", loss="mse")
    conflict = GradientConflict(every=1)
    trained(model, conflict, epochs=2)
    trained(model, conflict)
    assert len(conflict.history) == 1
    assert conflict.total.steps[0, 0, 1] == 3
    x, y = data()
    model.fit(x, y, verbose=0)
    assert not model._gradient_probes
    assert conflict.total.steps[0, 0, 1] == 3


def test_a_failed_fit_leaves_nothing_behind():
    class Stops(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            raise RuntimeError("stop")

    model = two_layers()
    model.compile("sgd", loss="mse")
    x, y = data()
    with pytest.raises(RuntimeError, match="stop"):
        model.fit(x, y, verbose=0, callbacks=[GradientConflict(), Stops()])
    assert not model._gradient_probes


def test_a_frame_has_a_row_for_each_epoch_layer_and_pair():
    model = two_layers()
    model.compile("sgd", loss="mse")
    conflict = GradientConflict(every=1)
    trained(model, conflict, epochs=2)
    frame = conflict.to_frame()
    assert len(frame) == 2 * 3 * 3
    row = frame[(frame.epoch == 1) & (frame.layer == "upper") & (frame.other == "c")]
    assert row.cosine.iloc[0] == conflict.history[1].cosines[1, 0, 2]
    assert set(frame.task) == {"a", "b"}


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch runs op by op")
def test_the_step_is_compiled_once():
    class Counter(keras.layers.Layer):
        calls = 0

        def call(self, x):
            type(self).calls += 1
            return x

    model = two_layers(extra=[Counter()])
    model.compile("sgd", loss="mse")
    after = []
    count = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: after.append(Counter.calls)
    )
    x, y = data()
    model.fit(
        x,
        y,
        batch_size=8,
        epochs=4,
        verbose=0,
        callbacks=[GradientConflict(every=2), count],
    )
    assert after[0] == after[-1] > 0


def test_errors():
    with pytest.raises(ValueError, match=r"`every`.*Received: every=0"):
        GradientConflict(every=0)
    with pytest.raises(ValueError, match=r"`fraction`.*Received: fraction=1.5"):
        GradientConflict(fraction=1.5)
    with pytest.raises(ValueError, match="first epoch"):
        _ = GradientConflict().total
    x, y = data()
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    plain.compile("sgd", loss="mse")
    with pytest.raises(TypeError, match=r"`MultiTaskModel`.*Received: Sequential"):
        plain.fit(x, y["a"], verbose=0, callbacks=[GradientConflict()])
    inputs = keras.Input((4,))
    apart = keras_mtl.MultiTaskModel(
        inputs, {n: keras.layers.Dense(1)(inputs) for n in NAMES}
    )
    apart.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="share no trainable"):
        apart.fit(x, y, verbose=0, callbacks=[GradientConflict()])


@pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch")
def test_modules_of_pytorch_are_refused():
    import torch

    inputs = keras.Input((4,))
    h = keras.layers.TorchModuleWrapper(torch.nn.Linear(4, 4), output_shape=(None, 4))(
        inputs
    )
    model = keras_mtl.MultiTaskModel(
        inputs, {n: keras.layers.Dense(1)(h) for n in NAMES}
    )
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="modules of PyTorch"):
        trained(model, GradientConflict())


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of tf.distribute")
def test_replicas_are_refused():
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    strategy_of_two = type("Two", (), {"num_replicas_in_sync": 2})()
    with strategy.scope():
        model = two_layers()
        model.compile("sgd", loss="mse")
    trained(model, GradientConflict(every=1))
    model._distribute_strategy = strategy_of_two
    with pytest.raises(ValueError, match="Received: 2 replicas"):
        GradientConflict().make_gradient_probe(model)
