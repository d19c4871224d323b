import numpy as np
import pytest

from keras_mtl.data.counter_noise import CounterNoise, NoiseColumns


@pytest.mark.parametrize("width", [1, 4, 7])
def test_a_row_is_the_same_wherever_the_rows_begin(width):
    noise = CounterNoise(3, width)
    rows = noise(0, 20)
    assert rows.shape == (20, width)
    np.testing.assert_array_equal(noise(5, 10), rows[5:15])
    np.testing.assert_array_equal(
        np.concatenate([noise(i, 1) for i in range(20)]), rows
    )
    far = noise(10**12, 2)
    np.testing.assert_array_equal(noise(10**12 + 1, 1), far[1:])


def test_rows_seeds_and_streams_are_independent_and_uniform():
    rows = CounterNoise(0, 50)(0, 2000)
    assert len(np.unique(rows)) == rows.size
    assert rows.min() >= 0
    assert rows.max() < 1
    np.testing.assert_allclose(rows.mean(axis=0), 0.5, atol=0.04)
    np.testing.assert_allclose(rows.var(axis=0), 1 / 12, atol=0.01)
    for other in (CounterNoise(1, 50), CounterNoise(0, 50, stream=1)):
        correlation = np.corrcoef(rows.ravel(), other(0, 2000).ravel())[0, 1]
        assert abs(correlation) < 0.02


def test_columns_are_handed_out_once():
    noise = CounterNoise(0, 6)(0, 3)
    columns = NoiseColumns(noise)
    np.testing.assert_array_equal(columns.take(), noise[:, 0])
    np.testing.assert_array_equal(columns.take(2, 2), noise[:, 1:5].reshape(3, 2, 2))
    with pytest.raises(IndexError, match="6 columns of noise, 7 are asked for"):
        columns.take(2)
