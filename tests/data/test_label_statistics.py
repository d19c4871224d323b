import numpy as np
import pytest

from keras_mtl.data.label_statistics import RunningMoments, robust, standardising

SCALES = [1e-10, 1e-3, 1.0, 1e3, 1e10]


def in_parts(values, sizes):
    begin = 0
    for size in sizes:
        yield values[begin : begin + size]
        begin += size


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("offset", [0.0, 1.0, -1e6])
def test_moments_of_parts_are_those_of_the_whole(scale, offset):
    values = scale * (offset + np.random.default_rng(0).normal(size=(1000, 3)))
    count, mean, deviation = standardising(in_parts(values, [1, 499, 13, 487]))
    np.testing.assert_array_equal(count, 1000)
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(deviation, values.std(axis=0), rtol=1e-9)


def test_missing_values_are_left_out():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 4))
    values[rng.random(values.shape) < 0.6] = np.nan
    values[:100, 2] = np.nan  # a part without any
    count, mean, deviation = standardising(in_parts(values, [100, 150, 250]))
    np.testing.assert_array_equal(count, (~np.isnan(values)).sum(axis=0))
    np.testing.assert_allclose(mean, np.nanmean(values, axis=0), rtol=1e-12)
    np.testing.assert_allclose(deviation, np.nanstd(values, axis=0), rtol=1e-12)


@pytest.mark.parametrize("value", [0.1, 1e10 / 3, -1e-10 / 7])
def test_one_value_has_no_deviation_at_all(value):
    parts = in_parts(np.full((777, 1), value), [1, 76, 700])
    _, mean, deviation = standardising(parts)
    assert mean == value and deviation == 0.0


def test_a_column_without_values_has_none():
    moments = RunningMoments(2)
    moments.update(np.array([[1.0, np.nan], [3.0, np.nan]]))
    np.testing.assert_array_equal(moments.count, [2, 0])
    np.testing.assert_array_equal(moments.mean, [2.0, np.nan])


def test_robust_is_unmoved_by_outliers():
    values = np.random.default_rng(0).normal(5.0, 2.0, size=(20001, 1))
    _, median, spread = robust([values])
    np.testing.assert_allclose(median, 5.0, atol=0.05)
    np.testing.assert_allclose(spread, 2.0, atol=0.05)
    values[:2000] = 1e9
    _, median, spread = robust([values[:7], values[7:]])
    assert 5.0 < median < 5.5 and 2.0 < spread < 2.7


def test_robust_falls_back_to_the_deviation():
    values = np.array([[0.0]] * 9 + [[10.0]])
    _, median, spread = robust([values])
    assert median == 0.0
    np.testing.assert_allclose(spread, 3.0)
