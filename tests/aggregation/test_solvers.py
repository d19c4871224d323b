"""Weights against solvers in float64 that share nothing with the package."""

import keras
import numpy as np
import pytest
from reference import (
    conflict_averse_weights,
    fair_weights,
    jacobian_of,
    least_form_above,
    shortest_mean,
)

from keras_mtl.aggregation import (
    MGDA,
    CAGrad,
    DualProj,
    FairGrad,
    NashMTL,
    UPGrad,
)
from keras_mtl.aggregation.solvers.nonnegative_least_squares import (
    nonnegative_least_squares,
)
from keras_mtl.aggregation.solvers.simplex_projection import project_on_simplex

CASES = [
    (T, seed, spread) for T in (2, 3, 5, 8) for seed in range(3) for spread in (0, 1)
]


def weights_of(aggregator, gramian):
    return keras.ops.convert_to_numpy(aggregator.weights(gramian))


@pytest.mark.parametrize(("T", "seed", "spread"), CASES)
def test_mgda(T, seed, spread):
    jacobian = jacobian_of(T, seed=seed, spread=spread)
    gramian = jacobian @ jacobian.T
    np.testing.assert_allclose(
        weights_of(MGDA(), gramian), shortest_mean(gramian), atol=1e-4
    )


@pytest.mark.parametrize(("T", "seed", "spread"), CASES)
def test_projections_on_the_dual_cone(T, seed, spread):
    jacobian = jacobian_of(T, size=T + 1, seed=seed, spread=spread)
    gramian = jacobian @ jacobian.T
    expected = least_form_above(gramian, np.full(T, 1 / T)) @ jacobian
    size = np.abs(jacobian).max()
    update = weights_of(DualProj(), gramian) @ jacobian
    np.testing.assert_allclose(update, expected, atol=2e-3 * size)
    each = [least_form_above(gramian, row / T) for row in np.eye(T)]
    update = weights_of(UPGrad(), gramian) @ jacobian
    np.testing.assert_allclose(update, sum(each) @ jacobian, atol=2e-3 * size)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize(("T", "seed", "spread"), CASES)
def test_fair_weights(T, seed, spread, alpha):
    jacobian = jacobian_of(T, seed=seed, spread=spread)
    gramian = jacobian @ jacobian.T
    expected = fair_weights(gramian, alpha)
    np.testing.assert_allclose(
        weights_of(FairGrad(alpha=alpha), gramian), expected, rtol=2e-3
    )
    if alpha == 1.0:
        np.testing.assert_allclose(
            weights_of(NashMTL(max_norm=1e3), gramian), expected, rtol=2e-3
        )


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
@pytest.mark.parametrize(("T", "seed", "spread"), CASES)
def test_cagrad(T, seed, spread, c):
    jacobian = jacobian_of(T, seed=seed, spread=spread)
    gramian = jacobian @ jacobian.T
    expected = conflict_averse_weights(gramian, c) @ jacobian
    update = weights_of(CAGrad(c=c, rescale=None), gramian) @ jacobian
    # The worst task's gain is what is maximised; the maximum may be flat.
    length = np.linalg.norm(jacobian.mean(axis=0))
    np.testing.assert_allclose(update, expected, atol=5e-3 * length)


@pytest.mark.parametrize("seed", range(10))
def test_nonnegative_least_squares_meets_its_conditions(seed):
    generator = np.random.default_rng(seed)
    T = int(generator.integers(2, 20))
    rows = generator.normal(size=(T, T + 3))
    matrix = (rows @ rows.T / T).astype("float32")
    targets = generator.normal(size=(7, T)).astype("float32")
    x = keras.ops.convert_to_numpy(nonnegative_least_squares(matrix, targets))
    gradient = x @ matrix - targets
    assert (x >= 0).all()
    assert (gradient > -1e-3).all()
    np.testing.assert_allclose(x * gradient, 0, atol=2e-3 * (1 + x.max()))


@pytest.mark.parametrize("seed", range(10))
def test_projection_on_the_simplex(seed):
    generator = np.random.default_rng(seed)
    vector = generator.normal(size=9) * 10.0 ** generator.integers(-6, 6)
    mask = (generator.uniform(size=9) < 0.7).astype("float32")
    mask[0] = 1.0
    point = keras.ops.convert_to_numpy(
        project_on_simplex(vector.astype("float32"), mask)
    )
    assert (point >= 0).all()
    assert (point[mask == 0] == 0).all()
    np.testing.assert_allclose(point.sum(), 1, rtol=1e-3)
    # The nearest point: entries above 0 were moved by the same amount.
    moved = (vector - point)[point > 0]
    np.testing.assert_allclose(moved, moved[0], atol=1e-5 + 1e-6 * abs(moved[0]))
    left = (vector - point)[(point == 0) & (mask > 0)]
    assert (left <= moved[0] + 1e-5 + 1e-6 * abs(moved[0])).all()
