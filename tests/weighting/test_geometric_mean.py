import numpy as np
from gradients import differentiate

from keras_mtl.weighting import GeometricMean


def test_the_sum_is_the_geometric_mean():
    losses = np.array([0.5, 8.0, 2.0])
    result = differentiate(GeometricMean(), losses)
    np.testing.assert_allclose(result["weighted"].sum(), 2.0, rtol=1e-6)


def test_the_effective_weights_are_the_mean_over_k_times_the_loss():
    losses = np.array([0.5, 8.0, 2.0])
    result = differentiate(GeometricMean(), losses)
    np.testing.assert_allclose(result["by_losses"], 2.0 / (3 * losses), rtol=1e-5)
    np.testing.assert_allclose(result["weights"], result["by_losses"], rtol=1e-5)


def test_the_mean_is_over_present_tasks():
    result = differentiate(GeometricMean(), [4.0, 0.0, 9.0], [1, 0, 1])
    np.testing.assert_allclose(result["weighted"], [3.0, 0.0, 3.0], rtol=1e-6)
    np.testing.assert_allclose(result["by_losses"], [0.75, 0.0, 1 / 3], rtol=1e-5)


def test_a_product_that_would_overflow_or_vanish_does_neither():
    for scale in (1e9, 1e-6):
        result = differentiate(GeometricMean(1e-12), np.full(30, scale))
        np.testing.assert_allclose(result["weighted"].sum(), scale, rtol=1e-4)
        np.testing.assert_allclose(result["by_losses"], np.full(30, 1 / 30), rtol=1e-4)


def test_the_gradient_is_the_numerical_one():
    losses, h = np.array([0.5, 8.0, 2.0]), 1e-2
    by_losses = differentiate(GeometricMean(), losses)["by_losses"]
    for task in range(3):
        step = h * np.eye(3)[task]
        up = differentiate(GeometricMean(), losses + step)["weighted"].sum()
        down = differentiate(GeometricMean(), losses - step)["weighted"].sum()
        np.testing.assert_allclose(by_losses[task], (up - down) / (2 * h), rtol=1e-2)
