import numpy as np
from gradients import differentiate

from keras_mtl.weighting import Weighting
from keras_mtl.weighting.value_with_slope import value_with_slope


class Fixed(Weighting):
    def task_weights(self, losses, present, training):
        return present * 3.0

    def objective(self, losses, present, weights):
        return value_with_slope(losses * losses, losses, weights)


def test_the_value_is_the_one_and_the_derivative_the_other():
    result = differentiate(Fixed(), [2.0, 1e10])
    np.testing.assert_allclose(result["weighted"], [4.0, 1e20])
    np.testing.assert_allclose(result["by_losses"], [3.0, 3.0])
