import numpy as np
import pytest
from gradients import differentiate

from keras_mtl.weighting import ScaleInvariant


def test_the_value_is_the_sum_of_the_logarithms():
    result = differentiate(ScaleInvariant(), [0.5, 20.0])
    np.testing.assert_allclose(result["weighted"], np.log([0.5, 20.0]), rtol=1e-6)
    np.testing.assert_allclose(result["by_losses"], [2.0, 0.05], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e9])
def test_rescaling_a_loss_changes_no_gradient_by_the_parameters(scale):
    losses = np.array([0.7, 3.0])
    plain = differentiate(ScaleInvariant(1e-12), losses)["by_losses"]
    scales = np.array([scale, 1.0])
    scaled = differentiate(ScaleInvariant(1e-12), scales * losses)["by_losses"]
    np.testing.assert_allclose(scales * scaled, plain, rtol=1e-4)


def test_a_loss_just_above_zero_has_the_largest_weight_and_one_below_none():
    result = differentiate(ScaleInvariant(1e-6), [1e-12, 0.0, -1.0])
    np.testing.assert_allclose(result["weighted"], np.log([1e-6] * 3), rtol=1e-6)
    np.testing.assert_allclose(result["by_losses"], [1e6, 0.0, 0.0], rtol=1e-5)
    np.testing.assert_allclose(result["weights"], [1e6, 0.0, 0.0], rtol=1e-5)


def test_epsilon_out_of_range_is_refused():
    with pytest.raises(ValueError, match="`epsilon` must be a finite number greater"):
        ScaleInvariant(0.0)
