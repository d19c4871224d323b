"""The training step with an aggregator."""

import keras
import numpy as np
import pytest
from aggregated_models import (
    EAGER,
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

FORMS = [
    separate_heads,
    stacked_heads,
    tree_of_sharing,
    conditioned,
    regularized,
    inputs_of_their_own,
    one_layer_in_two_heads,
    subclassed,
]


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


@pytest.mark.parametrize(
    "make", [separate_heads, tree_of_sharing, conditioned, one_layer_in_two_heads]
)
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
    of_shared = {id(variable) for variable in model.shared_variables}
    shared = [
        i
        for i, variable in enumerate(model.trainable_variables)
        if id(variable) in of_shared or variable.path.startswith("tied/")
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

    with pytest.raises(ValueError, match="is not built"):
        compiled(Subclassed, aggregator="mgda")
    aggregator = aggregation.MGDA()
    aggregator.weights(np.eye(2))
    with pytest.raises(ValueError, match="was built for 2 tasks"):
        compiled(separate_heads, aggregator=aggregator)


@pytest.mark.parametrize("chunk_size", [1, 2, 3])
@pytest.mark.parametrize("make", [separate_heads, tree_of_sharing])
def test_chunks_of_tasks_change_nothing(make, chunk_size):
    def run(chunk_size):
        model = compiled(make, aggregator="upgrad", chunk_size=chunk_size)
        model.train_on_batch(*batch_of(model))
        return values(model)

    assert_same(run(chunk_size), run(None))


def test_a_gramian_of_half_a_batch_is_that_of_all_if_both_halves_are_the_same():
    x, y = data()
    x = np.concatenate([x, x])
    y = {n: np.concatenate([v, v]) for n, v in y.items()}

    def run(fraction, at):
        model = compiled(
            separate_heads,
            aggregator="mgda",
            gramian_fraction=fraction,
            aggregate_at=at,
            gradient_logs=["weights"],
        )
        logs = model.train_on_batch(x, y, return_dict=True)
        return [*values(model), [logs[f"{n}_gradient_weight"] for n in NAMES]]

    for at in ("parameters", "representation"):
        assert_same(run(0.5, at), run(1.0, at), 1e-4)
    with_less = run(0.25, "parameters")[-1]
    assert np.abs(np.array(with_less) - run(1.0, "parameters")[-1]).max() > 1e-3


def wide_layers(names=NAMES, activity=None, **first):
    """Dense layers with more inputs than a part has rows, and a tree of sharing."""
    inputs = keras.Input((4,))
    h = keras.layers.Dense(64, "tanh", **first)(inputs)
    h = keras.layers.Dense(48, "tanh", activity_regularizer=activity)(h)
    branch = keras.layers.Dense(5, "tanh")(keras.layers.Dense(32)(h))
    heads = {n: keras.layers.Dense(1)(h if n == names[-1] else branch) for n in names}
    return keras_mtl.MultiTaskModel(inputs, heads)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activity": "l2"},
        {"names": list("abcdef")},
        {"dtype": "mixed_float16"},
        {"trainable": False},
    ],
    ids=str,
)
def test_a_gramian_in_the_space_of_rows_is_that_of_gradients(options):
    names = options.get("names", NAMES)
    x = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
    y = {n: np.sin(x[:, :1] * (2 + i)) for i, n in enumerate(names)}
    twice = np.concatenate([x, x]), {n: np.concatenate([v, v]) for n, v in y.items()}

    def run(**arguments):
        model = compiled(
            lambda: wide_layers(**options),
            aggregator="upgrad",
            gradient_logs=["weights"],
            **arguments,
        )
        logs = model.train_on_batch(*twice, return_dict=True)
        return [*values(model), [logs[f"{n}_gradient_weight"] for n in names]]

    # Chunks multiply the gradients out.
    tolerance = 2e-3 if "dtype" in options else 1e-4
    expected = run()
    assert_same(run(gramian_fraction=0.5), expected, tolerance)
    assert_same(run(gramian_fraction=0.5, chunk_size=2), expected, tolerance)


def test_a_gramian_of_a_part_leaves_the_state_of_the_model_alone():
    one = compiled(regularized, aggregator="sum")
    other = compiled(regularized, aggregator="sum", gramian_fraction=0.3)
    for step in range(2):
        logs = [
            model.train_on_batch(*batch_of(model, step), return_dict=True)
            for model in (one, other)
        ]
        assert logs[0] == pytest.approx(logs[1], rel=1e-5)
    assert_same(values(one), values(other))


@pytest.mark.parametrize("at", ["parameters", "representation"])
@pytest.mark.parametrize("inner", ["upgrad", "pcgrad"])
def test_weights_stay_in_force_for_k_steps(inner, at):
    model = compiled(
        separate_heads,
        aggregator=aggregation.EveryKSteps(inner, 2),
        aggregate_at=at,
        gradient_logs=["weights", "norms"],
        run_eagerly=False,
    )
    seen = []
    for step in range(4):
        model.reset_metrics()
        logs = model.train_on_batch(*batch_of(model, step), return_dict=True)
        seen.append([logs[f"{n}_gradient_weight"] for n in NAMES])
        assert (logs["a_gradient_norm"] > 0) == (step % 2 == 0)
    np.testing.assert_allclose(seen[1], seen[0], rtol=1e-6)
    np.testing.assert_allclose(seen[3], seen[2], rtol=1e-6)
    assert np.abs(np.array(seen[2]) - seen[1]).max() > 1e-4


@keras.saving.register_keras_serializable("keras_mtl_tests")
class FixedWeights(aggregation.GramianAggregator):
    def solve(self, problem):
        return ops.convert_to_tensor(np.array([0.5, 2.0, 1.0], "float32"))


def test_kept_weights_give_the_gradient_of_the_weighted_sum():
    once = compiled(tree_of_sharing, aggregator=FixedWeights())
    kept = compiled(
        tree_of_sharing, aggregator=aggregation.EveryKSteps(FixedWeights(), 3)
    )
    for step in range(4):
        for model in (once, kept):
            model.train_on_batch(*batch_of(model, step))
    assert_same(list(by_path(once).values()), list(by_path(kept).values()))


def test_statistics_of_gradients_are_in_the_logs():
    x, y = data()
    model = compiled(
        separate_heads, keras.optimizers.SGD(1.0), aggregator="sum", gradient_logs=True
    )
    history = model.fit(
        x, y, batch_size=ROWS, validation_data=(x, y), verbose=0
    ).history
    gradients = []
    for name in NAMES:
        alone = compiled(
            separate_heads,
            keras.optimizers.SGD(1.0),
            loss_weights={n: float(n == name) for n in NAMES},
        )
        before = [ops.convert_to_numpy(v).copy() for v in alone.shared_variables]
        alone.train_on_batch(x, y)
        after = [ops.convert_to_numpy(v) for v in alone.shared_variables]
        parts = [np.ravel(b - a) for b, a in zip(before, after, strict=True)]
        gradients.append(np.concatenate(parts))
    for name, gradient in zip(NAMES, gradients, strict=True):
        norm = np.linalg.norm(gradient)
        assert history[f"{name}_gradient_norm"] == pytest.approx([norm], rel=1e-3)
        assert history[f"{name}_gradient_weight"] == pytest.approx([1.0])
    cosines = np.corrcoef(gradients) * 0
    for i in range(3):
        for j in range(i + 1, 3):
            cosines[i, j] = gradients[i] @ gradients[j]
            cosines[i, j] /= np.linalg.norm(gradients[i])
            cosines[i, j] /= np.linalg.norm(gradients[j])
            logged = history[f"cosine_{NAMES[i]}_{NAMES[j]}"]
            assert logged == pytest.approx([cosines[i, j]], abs=1e-3)
    assert history["conflict_rate"] == pytest.approx([(cosines < 0).sum() / 3])
    of_validation = [key for key in history if key.startswith("val_")]
    assert not [key for key in of_validation if "gradient" in key or "cosine" in key]


def test_statistics_come_with_gradients_themselves_too():
    model = compiled(separate_heads, aggregator="grad_drop", gradient_logs=True)
    logs = model.train_on_batch(*data(), return_dict=True)
    assert logs["a_gradient_norm"] > 0
    assert -1 <= logs["cosine_a_b"] <= 1


@pytest.mark.parametrize("aggregator", ["mgda", "grad_drop"])
def test_options_are_saved(aggregator, tmp_path):
    options = {"aggregate_at": "representation", "gradient_logs": ["norms"]}
    if aggregator == "mgda":
        options["gramian_fraction"] = 0.5
    model = compiled(separate_heads, aggregator=aggregator, **options)
    path = str(tmp_path / "model.keras")
    model.save(path)
    config = keras.models.load_model(path).get_compile_config()
    assert {name: config[name] for name in options} == options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chunk_size": 2}, "go with an aggregator"),
        ({"aggregate_at": "representation"}, "go with an aggregator"),
        ({"gradient_logs": True}, "go with an aggregator"),
        ({"aggregator": "mgda", "aggregate_at": 3}, "`aggregate_at` must be"),
        ({"aggregator": "mgda", "aggregate_at": "nowhere"}, "`aggregate_at` must be"),
        ({"aggregator": "mgda", "chunk_size": 0}, "`chunk_size` must be"),
        ({"aggregator": "mgda", "gramian_fraction": 0}, "`gramian_fraction` must be"),
        ({"aggregator": "mgda", "gramian_fraction": 2}, "`gramian_fraction` must be"),
        ({"aggregator": "moco", "gramian_fraction": 0.5}, "need the Gramian alone"),
        ({"aggregator": "moco", "chunk_size": 2}, "need the Gramian alone"),
        ({"aggregator": "mgda", "gradient_logs": ["lengths"]}, "`kinds` must be"),
        (
            {"aggregator": "mgda", "chunk_size": 2, "aggregate_at": "representation"},
            "`chunk_size` bounds",
        ),
    ],
)
def test_options_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        compiled(separate_heads, **arguments)
