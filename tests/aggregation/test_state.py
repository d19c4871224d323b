"""What aggregators remember: saved, restored, and not touched without training."""

import keras
import numpy as np
import pytest
from reference import jacobian_of

from keras_mtl import aggregation
from keras_mtl.aggregation.registry import AGGREGATORS

STATEFUL = ["grad_vac", "moco", "modo", "db_mtl", "excess_mtl", "meta_balance"]
WRAPPED = {
    "every": lambda: aggregation.EveryKSteps("mgda", 3),
    "mean": lambda: aggregation.WeightAveraging("nash_mtl"),
    "normalized": lambda: aggregation.GradientNormalization("modo", "loss+"),
}


def make(name):
    if name in WRAPPED:
        return WRAPPED[name]()
    return AGGREGATORS[name](**({"seed": 0} if name == "grad_vac" else {}))


def run(aggregator, steps, start=0, **arguments):
    updates = []
    for step in range(start, start + steps):
        jacobian = jacobian_of(3, seed=step).astype("float32")
        losses = np.random.default_rng(step).uniform(0.5, 2, size=3)
        update = aggregator(jacobian, losses, **arguments)
        updates.append(keras.ops.convert_to_numpy(update))
    return np.array(updates)


@pytest.mark.parametrize("name", [*STATEFUL, *WRAPPED])
def test_state_is_saved_and_restored(name, tmp_path):
    aggregator = make(name)
    run(aggregator, 4)
    store = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    store.aggregator = aggregator
    path = str(tmp_path / "state.weights.h5")
    store.save_weights(path)
    seed = getattr(aggregator, "seed_generator", None)
    seed = seed and keras.ops.convert_to_numpy(seed.state).copy()
    expected = run(aggregator, 3, start=4)
    other = make(name)
    run(other, 1, start=20)
    again = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    again.aggregator = other
    again.load_weights(path)
    if seed is not None:  # which a model saves, but Keras leaves out of a layer
        other.seed_generator.state.assign(seed)
    np.testing.assert_allclose(run(other, 3, start=4), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*STATEFUL, *WRAPPED])
def test_state_moves_in_training_only(name):
    aggregator = make(name)
    run(aggregator, 1)
    states = [v for v in aggregator.non_trainable_variables if v.dtype == "float32"]
    before = [keras.ops.convert_to_numpy(v).copy() for v in states]
    run(aggregator, 1, start=1, training=False)
    for variable, value in zip(states, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    run(aggregator, 1, start=1)
    assert any(
        (keras.ops.convert_to_numpy(v) != value).any()
        for v, value in zip(states, before, strict=True)
    )


def test_a_seed_gives_the_same_draws():
    for name in ("pcgrad", "grad_vac", "grad_drop"):
        one, other = (run(AGGREGATORS[name](seed=5), 3) for _ in range(2))
        np.testing.assert_array_equal(one, other)
        # Two seeds may draw the same few orders by chance.
        others = [run(AGGREGATORS[name](seed=seed), 3) for seed in (6, 7, 8)]
        assert any((one != other).any() for other in others)


def test_modo_comes_to_the_weights_of_mgda():
    gramian = np.diag([4.0, 1.0, 2.0])
    aggregator = aggregation.MoDo(learning_rate=0.05, regularization=0.0)
    for _ in range(300):
        weights = aggregator.weights(gramian)
    expected = aggregation.MGDA().weights(gramian)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(weights),
        keras.ops.convert_to_numpy(expected),
        atol=1e-3,
    )


def test_moco_averages_and_follows_mgda():
    jacobian = np.diag([2.0, 1.0]).astype("float32")
    aggregator = aggregation.MoCo(beta=0.5, learning_rate=0.05, decay=0.0)
    for _ in range(300):
        update = aggregator(jacobian)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(aggregator.averages[0]), jacobian, rtol=1e-4
    )
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(update), [0.4, 0.8], atol=1e-3
    )


def test_grad_vac_turns_to_the_usual_cosine():
    friends = np.array([[1.0, 0.2], [1.0, 0.0]])
    aggregator = aggregation.GradVac(beta=0.5, seed=0)
    for _ in range(20):
        aggregator(friends)
    usual = friends[0] @ friends[1] / np.linalg.norm(friends[0])
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(aggregator.targets)[0, 1], usual, rtol=1e-3
    )
    # Strangers today: each is turned until its cosine to the other is the usual one.
    strangers = np.array([[0.0, 1.0], [1.0, 0.0]])
    update = keras.ops.convert_to_numpy(aggregator(strangers))
    turned = np.array([usual / np.sqrt(1 - usual**2), 1.0])
    np.testing.assert_allclose(update, turned + turned[::-1], rtol=1e-3)


def test_db_mtl_makes_all_as_long_as_the_longest():
    jacobian = np.diag([2.0, 8.0])
    aggregator = aggregation.DBMTL(beta=0.0)
    update = aggregator(jacobian, np.array([1.0, 8.0]))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(update), [2, 2], rtol=1e-5)


def test_excess_mtl_does_not_favour_a_task_that_cannot_be_improved():
    generator = np.random.default_rng(0)
    aggregator = aggregation.ExcessMTL(learning_rate=0.1)
    for _ in range(100):
        noisy = generator.normal(size=4)  # no direction, from step to step
        steady = np.array([1.0, 0.5, -0.5, 1.0])
        aggregator(np.stack([noisy, steady]))
    first, last = keras.ops.convert_to_numpy(aggregator.log_weights)
    assert np.isfinite([first, last]).all()
    warm = aggregation.ExcessMTL(learning_rate=10.0, warmup_steps=3)
    for step in range(3):
        update = keras.ops.convert_to_numpy(warm(np.diag([1.0, 10.0 + step])))
        np.testing.assert_allclose(update, [0.5, (10 + step) / 2], rtol=1e-5)


def test_meta_balance_works_variable_by_variable():
    aggregator = aggregation.MetaBalance(0, relaxation=1.0, beta=0.9)
    aggregator.build_parts(2, [(2,), (2,)])
    ones = np.ones((2, 2), "float32")
    jacobians = [ones * [[1], [100.0]], ones * [[1], [0.01]]]
    jacobians = [np.array(j, "float32") for j in jacobians]
    one, other = aggregator.combine(jacobians, present=np.ones(2, "float32"))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(one), [2, 2], rtol=1e-5)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(other), [2, 2], rtol=1e-5)


def test_every_k_steps_keeps_its_weights():
    aggregator = aggregation.EveryKSteps("mgda", 3)
    grams = [np.diag([1.0, 1.0 + step]) for step in range(7)]
    weights = [keras.ops.convert_to_numpy(aggregator.weights(g)) for g in grams]
    for step, value in enumerate(weights):
        due = grams[step - step % 3]
        expected = keras.ops.convert_to_numpy(aggregation.MGDA().weights(due))
        np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_normalized_gradients():
    jacobian = jacobian_of(3, spread=2.0)
    units = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
    losses = np.array([2.0, 4.0, 8.0])
    for name in ("mgda", "db_mtl"):
        for mode, rows in (
            ("l2", units),
            ("loss", jacobian / losses[:, None]),
            ("loss+", units / losses[:, None]),
        ):
            wrapped = aggregation.GradientNormalization(name, mode)
            update = wrapped(jacobian.astype("float32"), losses)
            expected = aggregation.get(name)(rows.astype("float32"), losses)
            np.testing.assert_allclose(
                keras.ops.convert_to_numpy(update),
                keras.ops.convert_to_numpy(expected),
                rtol=1e-3,
                atol=1e-4,
            )


def test_weights_are_variables_too():
    """Keras counts and saves what it finds in `weights`."""
    aggregator = aggregation.WeightAveraging("mgda")
    aggregator.weights(np.eye(3))
    assert [v.name for v in aggregator.weights] == ["mean_weights", "started"]
    assert aggregator.count_params() == 6
