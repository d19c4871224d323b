import numpy as np
from keras import ops

from keras_mtl.weighting.running_mean import running_mean


def test_each_task_is_averaged_over_its_own_batches():
    losses = np.array([[1, 5, 0], [3, 0, 0], [8, 7, 0]], "float32")
    present = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0]], "float32")
    mean, count = ops.zeros(3), ops.zeros(3)
    for batch in range(3):
        mean, count = running_mean(
            mean, count, *map(ops.array, (losses[batch], present[batch]))
        )
    np.testing.assert_allclose(ops.convert_to_numpy(mean), [4.0, 6.0, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(ops.convert_to_numpy(count), [3, 2, 0])


def test_a_long_mean_of_large_losses_keeps_its_digits():
    loss, count = ops.array(1e10), ops.array(1e6)
    mean, _ = running_mean(loss, count, loss, ops.array(1.0))
    assert ops.convert_to_numpy(mean) == np.float32(1e10)
