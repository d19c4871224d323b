import numpy as np
from gradients import differentiate

from keras_mtl.weighting import Equal


def test_the_objective_is_the_sum_and_not_the_mean():
    result = differentiate(Equal(), [0.5, -2.0, 20.0])
    np.testing.assert_array_equal(result["weighted"], [0.5, -2.0, 20.0])
    np.testing.assert_array_equal(result["by_losses"], [1.0, 1.0, 1.0])


def test_it_has_no_state():
    weighting = Equal()
    differentiate(weighting, [1.0, 2.0], training=True)
    assert weighting.variables == []
