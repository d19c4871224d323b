"""Cases at the edge of the mathematics, on every method."""

import keras
import numpy as np
import pytest
from reference import jacobian_of, stationary_jacobian

from keras_mtl import aggregation
from keras_mtl.aggregation.registry import AGGREGATORS

GRAMIAN = [n for n, cls in AGGREGATORS.items() if cls.is_gramian]
ALL = sorted(AGGREGATORS)


def make(name):
    """Returns an aggregator with a fixed seed, if it draws."""
    seeded = name in ("pcgrad", "grad_vac", "grad_drop")
    return AGGREGATORS[name](**({"seed": 0} if seeded else {}))


def update_of(aggregator, jacobian, present=None):
    losses = np.linspace(1.0, 2.0, len(jacobian))
    update = aggregator(np.array(jacobian, "float32"), losses, present)
    return keras.ops.convert_to_numpy(update)


def largest(jacobian):
    return np.linalg.norm(jacobian, axis=1).max()


@pytest.mark.parametrize("name", ALL)
def test_zero_gradients_give_a_zero_update(name):
    np.testing.assert_array_equal(update_of(make(name), np.zeros((3, 4))), np.zeros(4))


@pytest.mark.parametrize("name", ALL)
def test_one_task(name):
    jacobian = jacobian_of(1, size=4)
    update = update_of(make(name), jacobian)
    cosine = update @ jacobian[0] / np.linalg.norm(update) / np.linalg.norm(jacobian)
    np.testing.assert_allclose(cosine, 1, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_one_task_has_its_gradient_where_the_method_keeps_lengths(name):
    if name in ("nash_mtl", "fair_grad", "db_mtl", "moco"):
        pytest.skip("the length is another by definition")
    jacobian = jacobian_of(1, size=4)
    scale = {"cagrad": 1.4 / 1.16}.get(name, 1.0)
    np.testing.assert_allclose(
        update_of(make(name), jacobian), scale * jacobian[0], rtol=1e-4
    )


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("T", [2, 5])
def test_identical_tasks(name, T):
    row = jacobian_of(1, size=4)[0]
    update = update_of(make(name), np.tile(row, (T, 1)))
    cosine = update @ row / np.linalg.norm(update) / np.linalg.norm(row)
    np.testing.assert_allclose(cosine, 1, rtol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_opposed_tasks(name):
    row = jacobian_of(1, size=4)[0]
    update = update_of(make(name), np.stack([row, -row]))
    assert np.isfinite(update).all()
    if name in ("grad_drop",):
        return  # keeps one of both in each coordinate
    np.testing.assert_allclose(update, np.zeros(4), atol=1e-2 * np.abs(row).max())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", range(3))
def test_dependent_gradients(name, seed):
    generator = np.random.default_rng(seed)
    jacobian = generator.normal(size=(6, 2)) @ generator.normal(size=(2, 8))
    assert np.isfinite(update_of(make(name), jacobian)).all()
    jacobian = stationary_jacobian(5, seed)
    assert np.isfinite(update_of(make(name), jacobian)).all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("scale", [1e-10, 1e10])
def test_gradients_of_any_common_scale(name, scale):
    jacobian = jacobian_of(3, seed=2)
    update = update_of(make(name), scale * jacobian)
    assert np.isfinite(update).all()
    assert np.abs(update).max() > 0
    if name in ("nash_mtl", "fair_grad", "moco", "modo", "excess_mtl"):
        return  # no multiple of the update at scale 1 by definition
    np.testing.assert_allclose(
        update / scale, update_of(make(name), jacobian), rtol=2e-3, atol=1e-4
    )


@pytest.mark.parametrize("name", ALL)
def test_norms_over_twenty_orders_of_magnitude(name):
    jacobian = jacobian_of(3, seed=3)
    jacobian *= np.array([[1e-10], [1.0], [1e10]])
    update = update_of(make(name), jacobian)
    assert np.isfinite(update).all()
    if name in ("mgda", "upgrad", "dual_proj", "nash_mtl", "fair_grad"):
        products = jacobian @ update.astype("float64")
        lengths = np.linalg.norm(jacobian, axis=1) * np.linalg.norm(update)
        assert (products > -1e-3 * lengths).all(), products / lengths


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", range(3))
def test_an_absent_task_leaves_the_problem(name, seed):
    if name in ("pcgrad", "grad_vac"):
        pytest.skip("another number of tasks draws other orders")
    jacobian = jacobian_of(4, seed=seed)
    present = np.array([1.0, 0.0, 1.0, 1.0])
    expected_of = make(name)
    if name in ("moco", "modo", "excess_mtl"):
        # Their weights are state of all tasks.
        np.testing.assert_array_equal(
            np.isfinite(update_of(expected_of, jacobian, present)), True
        )
        return
    losses = np.linspace(1.0, 2.0, 4)
    there = present > 0
    expected = expected_of(jacobian[there].astype("float32"), losses[there])
    jacobian[1] = np.nan
    update = update_of(make(name), jacobian, present)
    np.testing.assert_allclose(
        update, keras.ops.convert_to_numpy(expected), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("name", ["pcgrad", "grad_vac"])
def test_an_absent_task_projects_nothing(name):
    jacobian = np.array([[1.0, 0.0], [-5.0, 0.1], [0.0, 1.0]])
    update = update_of(make(name), jacobian, np.array([1.0, 0.0, 1.0]))
    np.testing.assert_allclose(update, [1, 1], rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_no_task_at_all(name):
    jacobian = jacobian_of(3)
    np.testing.assert_array_equal(update_of(make(name), jacobian, np.zeros(3)), 0)


@pytest.mark.parametrize("name", ALL)
def test_a_gradient_that_is_not_finite_shows_and_is_forgotten(name):
    jacobian = jacobian_of(3, seed=4)
    aggregator, other = make(name), make(name)
    broken = jacobian.copy()
    broken[1, 2] = np.inf
    assert not np.isfinite(update_of(aggregator, broken)).all()
    for variable, fresh in zip(
        aggregator.non_trainable_variables,
        (update_of(other, jacobian), other.non_trainable_variables)[1],
        strict=True,
    ):
        assert np.isfinite(keras.ops.convert_to_numpy(variable)).all()
        assert variable.shape == fresh.shape


FRIENDLY = [
    jacobian_of(6, size=50, seed=seed, spread=1.5, common=2.0) for seed in range(300)
]


def test_imtl_g_never_turns_round():
    """Dividing by the sum of the weights does, for friendly tasks of other scales."""
    turned = 0
    aggregator = aggregation.IMTLG()
    for jacobian in FRIENDLY:
        gramian = jacobian @ jacobian.T
        weights = np.linalg.pinv(gramian) @ np.sqrt(np.diagonal(gramian))
        if weights.sum() < 0:
            turned += 1
            assert (jacobian @ update_of(aggregator, jacobian) > 0).all()
    assert turned > 0, "the test shows nothing"


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6, 1e-10])
def test_upgrad_resolves_conflict_however_small_the_gradients_are(scale):
    jacobian = scale * np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    update = update_of(aggregation.UPGrad(), jacobian)
    assert (jacobian @ (update / scale) >= 0).all()
    np.testing.assert_allclose(update / scale, [0.2929, 1.9004, 1.9004], atol=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("T", [2, 5, 11])
def test_nash_is_shortened_to_its_greatest_norm(scale, T):
    jacobian = scale * jacobian_of(T)
    update = update_of(aggregation.NashMTL(max_norm=0.5), jacobian)
    np.testing.assert_allclose(np.linalg.norm(update), 0.5, rtol=1e-3)
    nearly_opposed = np.array([[1.0, 1e-4], [-1.0, 1e-4]])
    update = update_of(aggregation.NashMTL(), nearly_opposed)
    assert np.linalg.norm(update) < 1 + 1e-3


@pytest.mark.parametrize("name", GRAMIAN)
def test_sixty_four_tasks(name):
    jacobian = jacobian_of(64, size=200, spread=1.0)
    weights = make(name).weights(jacobian @ jacobian.T)
    weights = keras.ops.convert_to_numpy(weights)
    assert np.isfinite(weights).all()
    if name in ("upgrad", "dual_proj", "mgda", "nash_mtl", "fair_grad"):
        update = weights @ jacobian
        products = jacobian @ update
        lengths = np.linalg.norm(jacobian, axis=1) * np.linalg.norm(update)
        assert (products > -2e-3 * lengths).all()
