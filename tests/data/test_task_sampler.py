import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mtl.data.task_sampler import (
    TaskSampler,
    largest_remainder,
    systematic_counts,
)


def all_counts(sampler, epoch, steps):
    return np.stack([sampler.batch(epoch, step)[1] for step in range(steps)])


def sampler_of(shares, rows, steps=50, seed=0, **arguments):
    return TaskSampler(np.array(shares), rows, steps, seed, **arguments)


shares_strategy = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=12).map(
    lambda weights: np.array(weights) / np.sum(weights)
)


@settings(deadline=None, max_examples=60)
@given(shares_strategy, st.integers(1, 64), st.floats(0.0, 1.0, exclude_max=True))
def test_rounding_keeps_the_sum_and_stays_within_one(shares, rows, offset):
    expected = (shares * rows)[None]
    counts = systematic_counts(expected, np.array([[offset]]))
    assert counts.sum() == rows
    assert np.all(np.abs(counts - expected) < 1 + 1e-6)


def test_rounding_is_right_on_average():
    expected = np.tile([0.3, 1.45, 2.25], (20000, 1))
    offset = np.random.default_rng(0).random((20000, 1))
    means = systematic_counts(expected, offset).mean(axis=0)
    np.testing.assert_allclose(means, expected[0], atol=0.02)


def test_equal_shares_are_exact_where_they_divide_the_batch():
    counts = all_counts(sampler_of([0.25] * 4, rows=32), 0, 50)
    assert np.all(counts == 8)


def test_shares_are_met_over_an_epoch():
    shares = np.array([0.07, 0.13, 0.8])
    counts = all_counts(sampler_of(shares, rows=10, steps=4000), 0, 4000)
    assert np.all(counts.sum(axis=1) == 10)
    np.testing.assert_allclose(counts.mean(axis=0) / 10, shares, atol=0.004)


def test_tasks_per_batch_bounds_the_tasks_and_keeps_the_shares():
    shares = np.array([0.1, 0.2, 0.3, 0.4])
    sampler = sampler_of(shares, rows=7, steps=8000, tasks_per_batch=2)
    counts = all_counts(sampler, 0, 8000)
    assert np.all(counts.sum(axis=1) == 7)
    assert np.all((counts > 0).sum(axis=1) <= 2)
    np.testing.assert_allclose(counts.mean(axis=0) / 7, shares, atol=0.01)


def test_uniform_tasks_per_batch_meets_every_pair_of_tasks():
    sampler = sampler_of([0.25] * 4, rows=4, steps=600, tasks_per_batch=2)
    present = all_counts(sampler, 0, 600) > 0
    assert np.all(present.sum(axis=1) == 2)
    together = present.T.astype(int) @ present
    pairs = together[~np.eye(4, dtype=bool)]
    # Each of the 6 pairs is expected 100 times, with a deviation of 9.1.
    assert pairs.min() > 60 and pairs.max() < 140


def test_rows_when_present_are_fixed():
    rows = np.array([1, 2, 5])
    sampler = sampler_of([1 / 3] * 3, rows=8, tasks_per_batch=2, rows_when_present=rows)
    counts = all_counts(sampler, 0, 50)
    assert np.all((counts == 0) | (counts == rows))
    assert np.all((counts > 0).sum(axis=1) == 2)


def test_positions_go_on_from_batch_to_batch_and_epoch_to_epoch():
    sampler = sampler_of([0.3, 0.7], rows=5, steps=7)
    expected = np.zeros(2, "int64")
    for epoch in range(3):
        for step in range(7):
            positions, counts = sampler.batch(epoch, step)
            np.testing.assert_array_equal(positions, expected)
            expected = expected + counts


def test_a_plan_depends_on_seed_and_epoch_alone():
    shares = [0.37, 0.63]
    fresh = sampler_of(shares, rows=5)
    used = sampler_of(shares, rows=5)
    for epoch in range(5):
        used.batch(epoch, 0)
    np.testing.assert_array_equal(fresh.batch(4, 9), used.batch(4, 9))
    first = all_counts(fresh, 0, 50)
    assert not np.array_equal(first, all_counts(fresh, 1, 50))
    other_seed = sampler_of(shares, rows=5, seed=1)
    assert not np.array_equal(first, all_counts(other_seed, 0, 50))


@pytest.mark.parametrize(
    ("expected", "counts"),
    [
        ([4.0, 4.0], [4, 4]),
        ([3.5, 2.3, 2.2], [4, 2, 2]),
        ([0.001, 0.002, 7.997], [1, 1, 6]),
        ([2.5, 2.5, 2.5, 0.5], [3, 2, 2, 1]),
    ],
)
def test_largest_remainder(expected, counts):
    assert sorted(largest_remainder(np.array(expected))) == sorted(counts)


@settings(deadline=None, max_examples=60)
@given(shares_strategy, st.integers(0, 50))
def test_largest_remainder_gives_every_task_a_row(shares, more):
    rows = len(shares) + more
    counts = largest_remainder(shares * rows)
    assert counts.sum() == rows and counts.min() >= 1
