import numpy as np
from keras import ops

from keras_mtl.weighting.log_losses import log_losses, log_losses_slope


def test_values_and_slopes_from_below_zero_to_the_largest_losses():
    losses = np.array([-1.0, 0.0, 1e-10, 1.0, 1e10], "float32")
    clipped = np.maximum(losses.astype("float64"), 0.0)
    np.testing.assert_allclose(
        ops.convert_to_numpy(log_losses(losses, 1e-8)),
        np.log(clipped + 1e-8),
        rtol=1e-6,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(log_losses_slope(losses, 1e-8)),
        np.where(losses <= 0, 0.0, 1.0 / (clipped + 1e-8)),
        rtol=1e-6,
    )
