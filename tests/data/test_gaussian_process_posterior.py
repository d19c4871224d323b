"""The Bayes-optimal prediction of functions drawn from Gaussian processes."""

import numpy as np
import pytest

from keras_mtl.data import GaussianProcesses

KERNELS = ("rbf", "matern52", "periodic")


def drawn(tasks, support=6, queries=4, num_tasks=3, seed=0):
    x, y = tasks.draw(np.random.default_rng(seed), num_tasks, support + queries)
    return x[:, :support], y[:, :support], x[:, support:], y[:, support:]


@pytest.mark.parametrize("features", [1, 2])
@pytest.mark.parametrize("kernel", KERNELS)
def test_of_one_kernel_it_is_the_textbook_formula(kernel, features):
    tasks = GaussianProcesses(
        kernel, length=0.4, scale=0.7, period=0.5, noise=0.1, features=features
    )
    x, y, query, labels = drawn(tasks)
    best = tasks.posterior(x, y, query)
    parameters = {"length": 0.4, "scale": 0.7, "period": 0.5}
    for task in range(3):
        own, across = (
            tasks.covariance(x[task], other[task], parameters) for other in (x, query)
        )
        noisy = own + 0.01 * np.eye(6)
        mean = across.T @ np.linalg.solve(noisy, y[task, :, 0])
        explained = np.sum(across * np.linalg.solve(noisy, across), axis=0)
        variance = 0.49 + 0.01 - explained
        np.testing.assert_allclose(best.mean()[task], mean, rtol=1e-8)
        np.testing.assert_allclose(best.scale()[task] ** 2, variance, rtol=1e-8)
        density = -0.5 * np.log(2 * np.pi * variance)
        density -= 0.5 * (labels[task, :, 0] - mean) ** 2 / variance
        found = best.log_likelihood(labels)[task]
        np.testing.assert_allclose(found, density, rtol=1e-8)


def test_weights_are_the_evidence_of_the_support():
    tasks = GaussianProcesses(length=(0.2, 0.6), scale=(0.5, 1.5), noise=0.1)
    x, y, query, _ = drawn(tasks, num_tasks=1)
    best = tasks.posterior(x, y, query, grid=2)
    evidence = []
    for length in (0.3, 0.5):
        for scale in (0.75, 1.25):
            parameters = {"length": length, "scale": scale, "period": 1.0}
            noisy = tasks.covariance(x[0], x[0], parameters) + 0.01 * np.eye(6)
            root = np.linalg.solve(noisy, y[0])
            determinant = np.linalg.slogdet(noisy)[1]
            evidence.append(-0.5 * (determinant + (y[0].T @ root)[0, 0]))
    expected = np.exp(evidence) / np.sum(np.exp(evidence))
    np.testing.assert_allclose(np.exp(best.log_weights[0]), expected, rtol=1e-8)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_points_that_are_not_there_change_nothing(noise):
    tasks = GaussianProcesses(noise=noise)
    x, y, query, labels = drawn(tasks)
    expected = tasks.posterior(x[:, :4], y[:, :4], query, grid=5)
    mask = np.arange(6) < 4
    x[:, 4:] = y[:, 4:] = np.nan
    found = tasks.posterior(x, y[..., 0], query, np.tile(mask, (3, 1)), grid=5)
    likelihoods = (best.log_likelihood(labels) for best in (found, expected))
    np.testing.assert_allclose(*likelihoods, rtol=1e-6)
    np.testing.assert_allclose(found.log_weights, expected.log_weights, rtol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_that_is_wrong_about_the_kernel_is_better(kernel):
    tasks = GaussianProcesses(kernel)
    wrong = GaussianProcesses(kernel, length=(1.0, 2.0))
    x, y, query, labels = drawn(tasks, 15, 10, num_tasks=60)
    found, other = (
        family.posterior(x, y, query, grid=5).log_likelihood(labels).mean()
        for family in (tasks, wrong)
    )
    assert found > other + 0.1


def test_an_empty_support_leaves_the_prior():
    tasks = GaussianProcesses(length=0.4, scale=0.7, noise=0.1)
    x, y, query, _ = drawn(tasks)
    best = tasks.posterior(x, y, query, np.zeros((3, 6), bool))
    np.testing.assert_allclose(best.mean(), 0, atol=1e-12)
    np.testing.assert_allclose(best.scale(), np.sqrt(0.5))


def test_shapes_that_do_not_fit_are_errors():
    tasks = GaussianProcesses()
    x, y, query, _ = drawn(tasks)
    with pytest.raises(ValueError, match=r"must have shape \(tasks, points, features"):
        tasks.posterior(x[..., 0], y, query)
    with pytest.raises(ValueError, match="`support_y` must have one number"):
        tasks.posterior(x, y[:, :3], query)
    with pytest.raises(ValueError, match="`grid` must be"):
        tasks.posterior(x, y, query, grid=0)
