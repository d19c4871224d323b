"""Aggregation at the tensors where tasks part."""

import keras
import numpy as np
import pytest
from aggregated_models import (
    NAMES,
    ROWS,
    Subclassed,
    assert_same,
    batch_of,
    by_path,
    compiled,
    conditioned,
    data,
    inputs_of_their_own,
    one_layer_in_two_heads,
    regularized,
    separate_heads,
    stacked_heads,
    subclassed,
    tree_of_sharing,
    values,
)
from keras import ops

import keras_mtl
from keras_mtl import aggregation

AT = {"aggregate_at": "representation"}


@pytest.mark.parametrize(
    "make", [separate_heads, stacked_heads, tree_of_sharing, regularized]
)
def test_the_sum_is_what_plain_training_does(make):
    one = compiled(make, weighting="uncertainty")
    other = compiled(make, weighting="uncertainty", aggregator="sum", **AT)
    for step in range(3):
        batch = batch_of(one, step)
        logs = one.train_on_batch(*batch, return_dict=True)
        with_sum = other.train_on_batch(*batch, return_dict=True)
        assert logs == pytest.approx(with_sum, rel=1e-5)
    assert_same(values(one), values(other))


def table_of_rows(heads):
    """A model whose shared parameters are the representation itself, row by row."""
    ids = keras.Input((), dtype="int32")
    table = keras.layers.Embedding(ROWS, 5, name="table")(ids)
    return keras_mtl.MultiTaskModel(ids, heads(table))


def dense_heads(h):
    return {
        n: keras.layers.Dense(1, name=f"head_{n}")(keras.layers.Dense(3, "tanh")(h))
        for n in NAMES
    }


def multi_head(h):
    return keras_mtl.layers.MultiHead(1, ["b", "c", "a"], hidden_units=(3,))(h)


@pytest.mark.parametrize("heads", [dense_heads, multi_head])
@pytest.mark.parametrize("name", ["mgda", "cagrad", "upgrad", "meta_balance"])
def test_it_is_the_same_as_at_parameters_that_are_the_representation(name, heads):
    def run(at):
        model = compiled(lambda: table_of_rows(heads), aggregator=name, aggregate_at=at)
        model.train_on_batch(np.arange(ROWS), data()[1])
        return values(model)

    assert_same(run("parameters"), run("representation"), 1e-5)


def test_a_tree_is_aggregated_at_all_tensors_where_tasks_part():
    """The gradients of linear layers, written out."""

    def make():
        ids = keras.Input((), dtype="int32")
        root = keras.layers.Embedding(ROWS, 4, name="root")(ids)
        branch = keras.layers.Dense(3, use_bias=False, name="branch")(root)
        heads = {
            n: keras.layers.Dense(1, use_bias=False, name=f"head_{n}")(
                branch if n in "ab" else root
            )
            for n in NAMES
        }
        return keras_mtl.MultiTaskModel(ids, heads)

    model = compiled(make, keras.optimizers.SGD(1.0), aggregator="upgrad", **AT)
    y = data()[1]
    before = by_path(model)
    model.train_on_batch(np.arange(ROWS), y)
    after = by_path(model)

    root, branch = before["root/embeddings"], before["branch/kernel"]
    by_root, by_branch = [], []
    for n in NAMES:
        kernel = before[f"head_{n}/kernel"]
        read = root @ branch if n in "ab" else root
        slope = 2 / ROWS * (read @ kernel - y[n]) @ kernel.T
        by_branch.append(slope if n in "ab" else np.zeros((ROWS, 3)))
        by_root.append(slope @ branch.T if n in "ab" else slope)
        own = 2 / ROWS * read.T @ (read @ kernel - y[n])
        np.testing.assert_allclose(
            kernel - after[f"head_{n}/kernel"], own, rtol=1e-3, atol=1e-5
        )
    rows = np.concatenate(
        [np.reshape(by_root, (3, -1)), np.reshape(by_branch, (3, -1))], axis=1
    )
    weights = aggregation.UPGrad().weights(rows @ rows.T)
    weights = ops.convert_to_numpy(weights)
    moved = root - after["root/embeddings"]
    expected = np.tensordot(weights, by_root, 1)
    np.testing.assert_allclose(moved, expected, rtol=1e-3, atol=1e-5)
    moved = branch - after["branch/kernel"]
    expected = root.T @ np.tensordot(weights, by_branch, 1)
    np.testing.assert_allclose(moved, expected, rtol=1e-3, atol=1e-5)


def test_a_sign_is_dropped_in_each_coordinate_of_the_representation():
    """With all signs the same, nothing is."""

    def make():
        return table_of_rows(
            lambda h: {
                n: keras.layers.Dense(1, kernel_initializer="ones", name=f"head_{n}")(h)
                for n in NAMES
            }
        )

    y = {n: np.full((ROWS, 1), -10.0, "float32") for n in NAMES}
    one = compiled(make, aggregator="grad_drop", **AT)
    other = compiled(make, aggregator="sum", **AT)
    for model in (one, other):
        model.train_on_batch(np.arange(ROWS), y)
    assert_same(list(by_path(one).values()), list(by_path(other).values()))


def test_a_layer_that_the_user_names():
    """A model without a graph trains as the same one with it."""
    functional = compiled(separate_heads, aggregator="mgda", **AT)
    model = compiled(subclassed, aggregator="mgda", aggregate_at="trunk")
    for target, source in zip(
        model.trainable_variables, functional.trainable_variables, strict=True
    ):
        target.assign(ops.convert_to_numpy(source))
    for step in range(2):
        for one in (functional, model):
            one.train_on_batch(*data(step))
    assert_same(list(by_path(functional).values()), list(by_path(model).values()), 1e-5)


class TwoLayers(Subclassed):
    """It has state, a loss of its own, and layers before the one that is cut."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.layers.BatchNormalization()
        self.drop = keras.layers.Dropout(0.5, seed=1)

    def call(self, x, training=False):
        h = self.drop(self.first(x, training=training), training=training)
        self.add_loss(0.1 * ops.mean(ops.square(h)))
        return super().call(h)

    def layer_tasks(self):
        return [(self.first, tuple(NAMES)), *super().layer_tasks()]


def test_a_model_that_is_cut_runs_once():
    def make():
        model = TwoLayers()
        model(data()[0])
        return model

    one = compiled(make)
    other = compiled(make, aggregator="sum", aggregate_at="trunk")
    for step in range(3):
        logs = [m.train_on_batch(*data(step), return_dict=True) for m in (one, other)]
        assert logs[0] == pytest.approx(logs[1], rel=1e-5)
    assert_same(values(one), values(other))


def test_masks_pass_from_trunk_to_heads():
    def make():
        ids = keras.Input((6,), dtype="int32")
        h = keras.layers.Embedding(9, 4, mask_zero=True)(ids)
        h = keras.layers.Dense(5, "tanh")(h)
        heads = {n: keras.layers.Dense(1)(keras.layers.GRU(3)(h)) for n in "ab"}
        heads["c"] = keras.layers.Dense(1, name="each")(h)
        return keras_mtl.MultiTaskModel(ids, heads)

    ids = np.random.default_rng(0).integers(0, 9, size=(ROWS, 6))
    y = data()[1]
    y["c"] = np.repeat(y["c"][:, None], 6, axis=1)
    plain = compiled(make)
    logs = plain.train_on_batch(ids, y, return_dict=True)
    for at in ("parameters", "representation"):
        model = compiled(make, aggregator="sum", aggregate_at=at)
        assert model.train_on_batch(ids, y, return_dict=True) == pytest.approx(
            logs, rel=1e-5
        )
        assert_same(values(plain), values(model))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    model = compiled(
        stacked_heads, "adam", aggregator="upgrad", run_eagerly=False, **AT
    )
    x, y = data()
    losses = model.fit(x, y, epochs=5, batch_size=8, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_outputs_without_a_loss_are_predicted():
    def run(**arguments):
        model = compiled(
            separate_heads,
            loss={"a": "mse", "b": "mse"},
            metrics={"c": "mae"},
            **arguments,
        )
        x, y = data()
        logs = model.train_on_batch(x, y, return_dict=True)
        return [*values(model), logs["c_mae"]]

    assert_same(run(), run(aggregator="sum"))
    assert_same(run(), run(aggregator="sum", **AT))


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (conditioned, {}, "each task has rows of its own"),
        (inputs_of_their_own, {}, "each task has rows of its own"),
        (one_layer_in_two_heads, {}, "tied/kernel"),
        (subclassed, {}, "pass the name of the layer"),
        (subclassed, {"aggregate_at": "stem"}, "the name of a layer"),
        (conditioned, {"aggregate_at": "x"}, "each row belongs to one task"),
        (separate_heads, {"aggregator": "moco"}, "keeps averages of gradients"),
        (separate_heads, {"aggregator": "db_mtl"}, "keeps averages of gradients"),
        (separate_heads, {"aggregator": "excess_mtl"}, "keeps averages of gradients"),
    ],
)
def test_what_is_refused(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        compiled(make, **{"aggregator": "mgda", **AT, **arguments})


def test_a_layer_that_is_shared_after_the_cut_is_refused():
    class Late(Subclassed):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.late = keras.layers.Dense(8, name="late")

        def call(self, x, training=False):
            h = self.late(self.trunk(x))
            return {n: head(h) for n, head in zip(NAMES, self.heads, strict=True)}

        def layer_tasks(self):
            return [(self.late, tuple(NAMES)), *super().layer_tasks()]

    def make():
        model = Late()
        model(data()[0])
        return model

    model = compiled(make, aggregator="mgda", aggregate_at="trunk")
    with pytest.raises(ValueError, match="after which the shared layers"):
        model.train_on_batch(*data())
