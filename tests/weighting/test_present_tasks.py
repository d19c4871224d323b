import numpy as np
from keras import ops

from keras_mtl.weighting.present_tasks import (
    logsumexp_over_present,
    mean_over_present,
    softmax_over_present,
)

PRESENT = ops.array([1.0, 0.0, 1.0])
NONE = ops.zeros(3)
SCORES = ops.array([1.0, 50.0, 3.0])


def numbers(tensor):
    return ops.convert_to_numpy(tensor)


def test_the_mean_counts_present_tasks_only():
    assert numbers(mean_over_present(SCORES, PRESENT)) == 2.0
    assert numbers(mean_over_present(SCORES, NONE)) == 0.0


def test_the_softmax_is_that_of_the_present_tasks_and_zero_elsewhere():
    expected = np.exp([1.0, 3.0]) / np.exp([1.0, 3.0]).sum()
    result = numbers(softmax_over_present(SCORES, PRESENT))
    np.testing.assert_allclose(result, [expected[0], 0.0, expected[1]], rtol=1e-6)
    np.testing.assert_array_equal(numbers(softmax_over_present(SCORES, NONE)), 0.0)


def test_the_log_of_a_sum_of_exponentials_neither_overflows_nor_is_nan():
    result = numbers(logsumexp_over_present(SCORES, PRESENT))
    np.testing.assert_allclose(result, np.log(np.exp(1) + np.exp(3)), rtol=1e-6)
    large = numbers(logsumexp_over_present(1e20 * SCORES, PRESENT))
    np.testing.assert_allclose(large, 3e20, rtol=1e-6)
    assert np.isfinite(numbers(logsumexp_over_present(SCORES, NONE)))
