"""The training step with an aggregator."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mtl
from keras_mtl import aggregation

BACKEND = keras.backend.backend()
EAGER = BACKEND != "jax"
NAMES = ["a", "b", "c"]
ROWS = 24


def data(seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(ROWS, 4)).astype("float32")
    weights = generator.normal(size=(3, 4, 1))
    return x, {
        n: (x @ w).astype("float32") for n, w in zip(NAMES, weights, strict=True)
    }


def separate_heads(extra=(), regularizer=None):
    inputs = keras.Input((4,))
    h = keras.layers.Dense(8, "tanh", kernel_regularizer=regularizer)(inputs)
    for layer in extra:
        h = layer(h)
    heads = {n: keras.layers.Dense(1, name=f"head_{n}")(h) for n in NAMES}
    return keras_mtl.MultiTaskModel(inputs, heads)


def stacked_heads():
    inputs = keras.Input((4,))
    h = keras.layers.Dense(8, "tanh")(inputs)
    heads = keras_mtl.layers.MultiHead(1, NAMES, hidden_units=(3,))(h)
    return keras_mtl.MultiTaskModel(inputs, heads)


def tree_of_sharing():
    """One layer for all tasks, one for "a" and "b", heads."""
    inputs = keras.Input((4,))
    root = keras.layers.Dense(6, "tanh", name="root")(inputs)
    branch = keras.layers.Dense(5, "tanh", name="branch")(root)
    heads = {
        n: keras.layers.Dense(1, name=f"head_{n}")(branch if n in "ab" else root)
        for n in NAMES
    }
    return keras_mtl.MultiTaskModel(inputs, heads)


def conditioned():
    x = keras.Input((4,), name="x")
    task = keras.Input((), dtype="int32", name="task")
    z = keras_mtl.layers.TaskEmbedding(3, 2)(task)
    h = keras.layers.Dense(6, "tanh")(x)
    y = keras.layers.Dense(1)(keras_mtl.layers.ConcatConditioning()(h, z))
    return keras_mtl.MultiTaskModel(
        {"x": x, "task": task}, y, task_names=NAMES, task_input="task"
    )


def regularized():
    return separate_heads(
        [
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5, seed=3),
            keras.layers.ActivityRegularization(l2=0.1),
        ],
        regularizer="l2",
    )


FORMS = [separate_heads, stacked_heads, tree_of_sharing, conditioned, regularized]


def batch_of(model, seed=0):
    x, y = data(seed)
    if model.task_input is None:
        return x, y
    task = np.arange(ROWS) % 3
    labels = np.stack([y[n] for n in NAMES])[task, np.arange(ROWS)]
    return {"x": x, "task": task.astype("int32")}, labels


def compiled(make, optimizer=None, **arguments):
    keras.utils.set_random_seed(0)
    model = make()
    model.compile(
        optimizer or keras.optimizers.SGD(0.1),
        "mse",
        run_eagerly=arguments.pop("run_eagerly", EAGER),
        **arguments,
    )
    return model


def values(model):
    return [ops.convert_to_numpy(v).copy() for v in model.weights]


def by_path(model):
    return {v.path: ops.convert_to_numpy(v).copy() for v in model.trainable_variables}


def assert_same(one, other, tolerance=1e-5):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("make", FORMS)
def test_the_sum_is_what_plain_training_does(make):
    one = compiled(make, weighting="uncertainty")
    other = compiled(make, weighting="uncertainty", aggregator="sum")
    for step in range(3):
        batch = batch_of(one, step)
        logs = one.train_on_batch(*batch, return_dict=True)
        with_sum = other.train_on_batch(*batch, return_dict=True)
        assert logs.keys() == with_sum.keys()
        for name in logs:
            np.testing.assert_allclose(with_sum[name], logs[name], rtol=1e-5)
    assert_same(values(one), values(other))


@pytest.mark.parametrize("make", [separate_heads, tree_of_sharing, conditioned])
@pytest.mark.parametrize(
    "aggregator", [aggregation.MGDA, aggregation.UPGrad, lambda: aggregation.DBMTL(0.0)]
)
def test_shared_variables_move_by_the_aggregated_gradients(make, aggregator):
    """Gradients of one task are found by training it alone with a rate of 1."""
    start, gradients, losses = None, [], []
    for name in NAMES:
        model = compiled(
            make,
            keras.optimizers.SGD(1.0),
            loss_weights={n: float(n == name) for n in NAMES},
        )
        start = by_path(model)
        logs = model.train_on_batch(*batch_of(model), return_dict=True)
        losses.append(logs[f"{name}_loss"])
        after = by_path(model)
        gradients.append([start[p] - after[p] for p in start])
    model = compiled(make, keras.optimizers.SGD(1.0), aggregator=aggregator())
    shared = [
        i
        for i, path in enumerate(start)
        if make is conditioned or not path.startswith("head_")
    ]
    jacobians = [np.stack([rows[i] for rows in gradients]) for i in shared]
    alone = aggregator()
    alone.build_parts(3, [j.shape[1:] for j in jacobians])
    updates = alone.combine(
        [ops.convert_to_tensor(j) for j in jacobians],
        ops.convert_to_tensor(np.array(losses, "float32")),
        ops.ones((3,)),
    )
    before = list(by_path(model).values())
    model.train_on_batch(*batch_of(model))
    after = list(by_path(model).values())
    moved = [a - b for a, b in zip(before, after, strict=True)]
    for index, update in zip(shared, updates, strict=True):
        np.testing.assert_allclose(
            moved[index], ops.convert_to_numpy(update), rtol=2e-3, atol=2e-5
        )
    for index in set(range(len(moved))) - set(shared):
        own = sum(rows[index] for rows in gradients)
        np.testing.assert_allclose(moved[index], own, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", aggregation.names())
def test_every_aggregator_trains_by_name(name):
    model = compiled(separate_heads, "adam", aggregator=name, run_eagerly=False)
    x, y = data()
    losses = model.fit(x, y, epochs=3, batch_size=8, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert all(np.isfinite(v).all() for v in values(model))


def test_an_absent_task_has_no_say():
    def run(labels):
        model = compiled(separate_heads, aggregator="mgda")
        model.train_on_batch(data()[0], labels)
        return values(model)

    y = data()[1]
    without = {n: y[n] for n in "ab"}
    with pytest.warns(UserWarning, match="no labels"):
        expected = run(without)
    missing = {**y, "c": np.full_like(y["c"], np.nan)}
    assert_same(run(missing), expected)


def test_state_is_saved_and_training_goes_on(tmp_path):
    x, y = data()
    model = compiled(
        separate_heads, "adam", aggregator=aggregation.GradVac(beta=0.5, seed=1)
    )
    model.fit(x, y, epochs=2, batch_size=8, shuffle=False, verbose=0)
    path = str(tmp_path / "model.keras")
    model.save(path)
    again = keras.models.load_model(path)
    assert isinstance(again.aggregator, aggregation.GradVac)
    for one in (model, again):
        one.fit(x, y, epochs=1, batch_size=8, shuffle=False, verbose=0)
    assert_same(values(model), values(again), 1e-5)


def test_compile_again_leaves_no_variables_behind():
    model = compiled(separate_heads, aggregator="grad_vac")
    count = len(model.variables)
    model.compile("sgd", "mse", aggregator="mgda", run_eagerly=EAGER)
    assert len(model.variables) < count
    assert isinstance(model.aggregator, aggregation.MGDA)
    model.compile("sgd", "mse", run_eagerly=EAGER)
    assert model.aggregator is None
    model.train_on_batch(*data())


def test_loss_scaling_changes_nothing():
    x, y = data()
    plain = compiled(separate_heads, keras.optimizers.SGD(0.1), aggregator="upgrad")
    scaling = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=2.0**12
    )
    scaled = compiled(separate_heads, scaling, aggregator="upgrad")
    for model in (plain, scaled):
        model.train_on_batch(x, y)
    assert_same(list(by_path(plain).values()), list(by_path(scaled).values()), 1e-4)


def test_a_gradient_that_is_not_finite_skips_the_step_and_lowers_the_scale():
    scaling = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=2.0**12
    )
    model = compiled(separate_heads, scaling, aggregator="mgda")
    x, y = data()
    y["b"] = y["b"] * np.float32(1e30)
    before = list(by_path(model).values())
    model.train_on_batch(x, y)
    assert_same(before, list(by_path(model).values()))
    assert float(ops.convert_to_numpy(scaling.dynamic_scale)) < 2.0**12


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    model = compiled(separate_heads, "adam", aggregator="pcgrad", run_eagerly=False)
    x, y = data()
    losses = model.fit(x, y, epochs=5, batch_size=8, verbose=0).history["loss"]
    assert np.isfinite(losses).all()


def test_embeddings_are_aggregated():
    def make():
        ids = keras.Input((3,), dtype="int32")
        h = keras.layers.Flatten()(keras.layers.Embedding(10, 4)(ids))
        return keras_mtl.MultiTaskModel(
            ids, {n: keras.layers.Dense(1, name=f"head_{n}")(h) for n in NAMES}
        )

    ids = np.random.default_rng(0).integers(0, 10, size=(ROWS, 3))
    one, other = compiled(make), compiled(make, aggregator="sum")
    for model in (one, other):
        model.train_on_batch(ids, data()[1])
    assert_same(values(one), values(other))


def test_what_is_refused():
    with pytest.raises(ValueError, match="cannot be combined with GradNorm"):
        compiled(separate_heads, weighting="grad_norm", aggregator="mgda")
    with pytest.raises(ValueError, match="`aggregator` must be"):
        compiled(separate_heads, aggregator="nonsense")

    def apart():
        inputs = keras.Input((4,))
        return keras_mtl.MultiTaskModel(
            inputs, {n: keras.layers.Dense(1)(inputs) for n in NAMES}
        )

    with pytest.raises(ValueError, match="share none"):
        compiled(apart, aggregator="mgda")

    class Subclassed(keras_mtl.MultiTaskModel):
        def call(self, inputs):
            return {"a": inputs, "b": inputs}

    with pytest.raises(ValueError, match="is not built"):
        compiled(lambda: Subclassed(task_names=["a", "b"]), aggregator="mgda")
    aggregator = aggregation.MGDA()
    aggregator.weights(np.eye(2))
    with pytest.raises(ValueError, match="was built for 2 tasks"):
        compiled(separate_heads, aggregator=aggregator)
