import keras
import numpy as np
import pytest

from keras_mtl.data import (
    ClassSplit,
    GaussianProcesses,
    GroupedRows,
    RegressionEpisodes,
    Sinusoids,
)


def leaves(batch):
    return keras.tree.flatten(batch)


def test_points_of_an_episode_are_on_one_wave():
    data = RegressionEpisodes(Sinusoids(), shots=5, queries=7, episodes_per_batch=20)
    inputs, y = data[0]
    assert inputs["support_y"].shape == (20, 5, 1)
    assert inputs["support_mask"].all()
    assert y.dtype == inputs["query_x"].dtype == "float32"
    x = np.concatenate([inputs["support_x"], inputs["query_x"]], axis=1)
    values = np.concatenate([inputs["support_y"], y], axis=1)
    assert np.abs(x).max() <= 5
    for points, targets in zip(x[..., 0], values[..., 0], strict=True):
        basis = np.stack([np.sin(points), -np.cos(points)], axis=1)
        (a, b), *_ = np.linalg.lstsq(basis, targets, rcond=None)
        np.testing.assert_allclose(basis @ [a, b], targets, atol=1e-4)
        assert 0.1 - 1e-3 < np.hypot(a, b) < 5 + 1e-3
        assert b > -1e-3  # phases are between 0 and pi


def test_waves_are_drawn_evenly_and_ignoring_the_support_costs_three():
    x, y = Sinusoids().draw(np.random.default_rng(0), 20_000, 10)
    # The optimum of a predictor that knows x alone, published as 3.005.
    bins = np.digitize(x.ravel(), np.linspace(-5, 5, 60))
    means = np.bincount(bins, y.ravel()) / np.maximum(np.bincount(bins), 1)
    assert np.mean((y.ravel() - means[bins]) ** 2) == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("kernel", ["rbf", "matern52", "periodic"])
@pytest.mark.parametrize("features", [1, 2])
def test_functions_have_the_covariance_of_the_kernel(kernel, features):
    family = GaussianProcesses(
        kernel, length=0.7, scale=0.8, period=1.3, noise=0.1, features=features
    )

    class Fixed(np.random.Generator):
        """Draws the same points in every task."""

        def uniform(self, low=0.0, high=1.0, size=None):
            drawn = super().uniform(low, high, size)
            return (
                np.broadcast_to(drawn[:1], drawn.shape) if np.ndim(drawn) > 1 else drawn
            )

    x, y = family.draw(Fixed(np.random.PCG64(0)), 40_000, 5)
    assert (x == x[:1]).all()
    found = np.einsum("tn,tm->nm", y[..., 0], y[..., 0]) / len(y)
    difference = x[0][:, None] - x[0][None]
    distance = np.sqrt((difference**2).sum(-1))
    expected = {
        "rbf": lambda d: np.exp(-(d**2) / (2 * 0.49)),
        "matern52": lambda d: (
            (1 + np.sqrt(5) * d / 0.7 + 5 * d**2 / (3 * 0.49))
            * np.exp(-np.sqrt(5) * d / 0.7)
        ),
        "periodic": lambda d: np.exp(
            -2 * (np.sin(np.pi * difference / 1.3) ** 2).sum(-1) / 0.49
        ),
    }[kernel](distance)
    expected = 0.64 * expected + 0.01 * np.eye(5)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_functions_without_noise():
    _, y = GaussianProcesses(noise=0.0).draw(np.random.default_rng(0), 8, 50)
    assert np.isfinite(y).all()


@pytest.mark.parametrize(
    "arguments",
    [{}, {"shots": (2, 6), "queries": (1, 5)}, {"queries_with_support": True}],
)
def test_a_batch_is_a_function_of_the_seed_and_its_index(arguments):
    one, other = (RegressionEpisodes(Sinusoids(), **arguments) for _ in range(2))
    in_order = [one[i] for i in range(3)]
    for index in (2, 0):
        for a, b in zip(leaves(other[index]), leaves(in_order[index]), strict=True):
            np.testing.assert_array_equal(a, b)
    seeded = RegressionEpisodes(Sinusoids(), seed=1, **arguments)[0]
    assert (
        leaves(seeded)[0].shape != leaves(in_order[0])[0].shape
        or (leaves(seeded)[0] != leaves(in_order[0])[0]).any()
    )


def test_sizes_of_the_benchmark_of_neural_processes():
    """Support 3 to 46, queries 3 to 49 less the support, and the support is asked."""
    data = RegressionEpisodes(
        GaussianProcesses(),
        shots=(3, 46),
        queries=(3, 46),
        most_points=49,
        queries_with_support=True,
        shapes=1,
        episodes_per_batch=400,
    )
    inputs, y, weights = data[0]
    assert y.shape == (400, 92, 1)
    shots = inputs["support_mask"].sum(axis=1)
    assert shots.min() < 6
    assert shots.max() > 43
    np.testing.assert_array_equal(weights[:, :46], inputs["support_mask"])
    np.testing.assert_array_equal(inputs["query_x"][:, :46], inputs["support_x"])
    queries = weights[:, 46:].sum(axis=1)
    assert queries.min() >= 3
    assert (shots + queries).max() == 49


def test_rows_of_an_episode_are_of_one_group_and_differ():
    sizes = [12, 20, 15, 30]
    groups = np.repeat(["a", "b", "c", "d"], sizes)
    rows = np.arange(len(groups))
    split = ClassSplit(train=["a", "c"], test=["b", "d"])
    family = GroupedRows(rows, 2.0 * rows, groups, split.train)
    data = RegressionEpisodes(family, shots=4, queries=8, episodes_per_batch=300)
    inputs, y = data[0]
    drawn = np.concatenate([inputs["support_x"], inputs["query_x"]], axis=1)[..., 0]
    values = np.concatenate([inputs["support_y"], y], axis=1)[..., 0]
    np.testing.assert_allclose(values, 2.0 * drawn)
    assert set(groups[drawn].ravel()) == {"a", "c"}
    assert (groups[drawn] == groups[drawn][:, :1]).all()
    assert (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all()
    share = np.mean(groups[drawn[:, 0]] == "a")
    assert abs(share - 0.5) < 0.12
    counts = np.bincount(drawn[groups[drawn[:, 0]] == "c"].ravel() - 32)
    assert counts.min() > 0.7 * counts.mean()


class Wrong:
    def draw(self, generator, num_tasks, num_points):
        return np.zeros((num_tasks, num_points)), np.zeros((num_tasks, num_points, 1))


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: RegressionEpisodes(np.sin), "must have a method `draw"),
        (lambda: RegressionEpisodes(Wrong())[0], r"Received: x of shape \(16, 20\)"),
        (lambda: RegressionEpisodes(Sinusoids(), shots=0), "`shots` must be a whole"),
        (
            lambda: RegressionEpisodes(Sinusoids(), shots=5, most_points=5),
            "`most_points` must be a whole number of at least 6",
        ),
        (
            lambda: RegressionEpisodes(
                GroupedRows(np.zeros(8), np.zeros(8), [0] * 5 + [1] * 3), 2, 2
            ),
            "must have 4 rows, for shots and queries. Received: 3 rows of group 1",
        ),
        (lambda: GroupedRows([1], [1, 2], [1]), "must have as many rows"),
        (lambda: Sinusoids(amplitude=(2, 1)), "`amplitude` must have its least"),
        (lambda: Sinusoids(phase=(1, 2, 3)), "`phase` must be a pair of numbers"),
        (lambda: GaussianProcesses("linear"), "`kernel` must be one of"),
        (lambda: GaussianProcesses(length=0), "`length` must be a finite number gr"),
    ],
)
def test_refuses(make, match):
    with pytest.raises(ValueError, match=match):
        make()
