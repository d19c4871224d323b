import numpy as np
import pytest

from keras_mtl.datasets.table_columns import one_hot, standardised


def test_one_hot():
    encoded = one_hot(np.array([[0, 2], [1, 0]]), [2, 3])
    np.testing.assert_array_equal(encoded, [[1, 0, 0, 0, 1], [0, 1, 1, 0, 0]])


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_standardised_over_the_given_rows(scale):
    columns = scale * (3 + np.random.default_rng(0).normal(size=(200, 2)))
    rows = np.arange(0, 200, 2)
    made = standardised(columns, rows)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made[rows].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(made[rows].std(axis=0), 1, rtol=1e-5)
    assert np.abs(made[1::2].mean(axis=0)).max() > 1e-3


def test_constant_columns_are_centred():
    np.testing.assert_array_equal(standardised(np.full((4, 1), 7), np.arange(3)), 0.0)
