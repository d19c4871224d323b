"""Identities between the methods, over many random Jacobians."""

import keras
import numpy as np
import pytest
from reference import jacobian_of

from keras_mtl.aggregation import (
    IMTLG,
    MGDA,
    AlignedMTL,
    CAGrad,
    ConFIG,
    DualProj,
    FairGrad,
    GradDrop,
    Mean,
    NashMTL,
    PCGrad,
    SDMGrad,
    UPGrad,
)

MANY = [(T, seed) for T in range(2, 12) for seed in range(4)]


def weights_of(aggregator, jacobian, **arguments):
    return keras.ops.convert_to_numpy(
        aggregator.weights(jacobian @ jacobian.T, **arguments)
    )


def update_of(aggregator, jacobian):
    return weights_of(aggregator, jacobian) @ jacobian


def unit(vector):
    return vector / np.linalg.norm(vector)


def assert_parallel(one, other, tolerance=2e-4):
    np.testing.assert_allclose(unit(one), unit(other), atol=tolerance)


@pytest.mark.parametrize("seed", range(20))
def test_two_tasks(seed):
    jacobian = jacobian_of(2, size=3, seed=seed, spread=1.0)
    half = update_of(PCGrad(), jacobian) / 2
    np.testing.assert_allclose(
        update_of(UPGrad(), jacobian), half, atol=1e-4 * np.abs(jacobian).max()
    )
    bisector = update_of(ConFIG(), jacobian)
    for aggregator in (IMTLG(), NashMTL(), FairGrad(alpha=1.0)):
        assert_parallel(update_of(aggregator, jacobian), bisector, 1e-3)
    nash = update_of(NashMTL(max_norm=10.0), jacobian)
    np.testing.assert_allclose(np.linalg.norm(nash), np.sqrt(2), rtol=1e-3)


@pytest.mark.parametrize(("T", "seed"), MANY)
def test_nash_has_the_norm_of_the_root_of_the_number_of_tasks(T, seed):
    jacobian = jacobian_of(T, seed=seed, spread=1.0)
    weights = weights_of(NashMTL(max_norm=100.0), jacobian)
    assert (weights > 0).all()
    np.testing.assert_allclose(
        jacobian @ (jacobian.T @ weights) * weights, 1, rtol=1e-3
    )
    np.testing.assert_allclose(
        np.linalg.norm(weights @ jacobian), np.sqrt(T), rtol=1e-3
    )


@pytest.mark.parametrize(("T", "seed"), MANY)
def test_imtl_g_and_config_are_parallel(T, seed):
    jacobian = jacobian_of(T, seed=seed, spread=1.0, common=1.0)
    one, other = update_of(IMTLG(), jacobian), update_of(ConFIG(), jacobian)
    assert_parallel(one, other, 1e-3)
    direction = unit(other)
    np.testing.assert_allclose(
        np.linalg.norm(other), np.abs(jacobian @ direction).sum(), rtol=1e-3
    )


@pytest.mark.parametrize(("T", "seed"), MANY)
def test_mgda_lowers_all_losses_of_positive_weight_alike(T, seed):
    jacobian = jacobian_of(T, seed=seed)
    weights = weights_of(MGDA(), jacobian)
    update = weights @ jacobian
    products = jacobian @ update
    square = update @ update
    np.testing.assert_allclose(products[weights > 1e-4], square, rtol=2e-3)
    assert (products > square * (1 - 2e-3)).all()


@pytest.mark.parametrize(("T", "seed"), MANY)
def test_limits(T, seed):
    jacobian = jacobian_of(T, seed=seed)
    mean = jacobian.mean(axis=0)
    np.testing.assert_allclose(update_of(CAGrad(c=0.0), jacobian), mean, atol=1e-5)
    shortest = update_of(MGDA(), jacobian)
    assert_parallel(update_of(CAGrad(c=1e3), jacobian), shortest, 5e-3)
    np.testing.assert_allclose(
        update_of(SDMGrad(regularization=0.0), jacobian),
        shortest,
        atol=2e-3,
    )
    np.testing.assert_allclose(
        update_of(SDMGrad(regularization=1e4), jacobian), mean, atol=1e-3
    )


@pytest.mark.parametrize(("T", "seed"), MANY)
def test_sdm_grad_has_the_direction_of_mgda_in_the_interior(T, seed):
    jacobian = jacobian_of(T, size=40 * T, seed=seed)  # nearly orthogonal
    assert_parallel(update_of(SDMGrad(), jacobian), update_of(MGDA(), jacobian), 2e-3)


@pytest.mark.parametrize(("T", "seed"), MANY)
def test_without_conflict_projections_are_the_mean(T, seed):
    jacobian = np.abs(jacobian_of(T, seed=seed))
    mean = update_of(Mean(), jacobian)
    for aggregator in (DualProj(), UPGrad()):
        np.testing.assert_allclose(update_of(aggregator, jacobian), mean, rtol=1e-4)
    np.testing.assert_allclose(update_of(PCGrad(), jacobian), T * mean, rtol=1e-4)


@pytest.mark.parametrize("T", range(2, 12))
def test_aligned_mtl_of_orthogonal_gradients_of_one_length_is_the_mean(T):
    weights = weights_of(AlignedMTL(), 3.0 * np.eye(T))
    np.testing.assert_allclose(weights, 1 / T, rtol=1e-5)


def test_grad_drop_in_the_mean():
    jacobian = jacobian_of(3, size=5, seed=1)
    rows = np.repeat(jacobian, 20_000, axis=1)  # every coordinate drawn many times
    update = keras.ops.convert_to_numpy(GradDrop(seed=0)(rows)).reshape(5, -1)
    share = 0.5 * (1 + jacobian.sum(axis=0) / np.abs(jacobian).sum(axis=0))
    expected = share * np.maximum(jacobian, 0).sum(axis=0)
    expected += (1 - share) * np.minimum(jacobian, 0).sum(axis=0)
    np.testing.assert_allclose(update.mean(axis=1), expected, atol=0.03)
