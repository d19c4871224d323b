import keras
import numpy as np
import pytest
from gradients import differentiate
from keras import ops

from keras_mtl.weighting import IMTLLoss, ScaleInvariant, Uncertainty


def test_the_objective_is_the_scaled_loss_less_the_log_scale():
    result = differentiate(IMTLLoss([0.0, -3.0]), [0.5, 20.0])
    expected = [0.5, 20.0 * np.exp(-3.0) + 3.0]
    np.testing.assert_allclose(result["weighted"], expected, rtol=1e-6)
    np.testing.assert_allclose(result["by_losses"], np.exp([0.0, -3.0]), rtol=1e-6)
    np.testing.assert_allclose(
        result["by_variables"][0], [0.5 - 1.0, 20.0 * np.exp(-3.0) - 1.0], rtol=1e-5
    )


@pytest.mark.parametrize("kind", ["regression", "classification", "laplace"])
def test_the_weights_go_to_those_of_uncertainty_and_of_scale_invariance(kind):
    losses = np.array([0.2, 5.0, 1.0])
    target = differentiate(ScaleInvariant(), losses)["weights"]
    share = 1.0 if kind == "laplace" else 0.5
    for weighting, factor in ((IMTLLoss(), 1.0), (Uncertainty(kind), share)):
        optimizer = keras.optimizers.SGD(0.5)
        for _ in range(40):
            gradient = differentiate(weighting, losses)["by_variables"][0]
            optimizer.apply([ops.array(gradient)], weighting.trainable_variables)
        weights = differentiate(weighting, losses)["weights"]
        np.testing.assert_allclose(weights, factor * target, rtol=1e-3)


def test_a_loss_that_stays_zero_stops_at_the_bound():
    weighting = IMTLLoss(max_log_scale=2.0)
    optimizer = keras.optimizers.SGD(1.0)
    for _ in range(5):
        gradient = differentiate(weighting, [0.0, 1.0])["by_variables"][0]
        optimizer.apply([ops.array(gradient)], weighting.trainable_variables)
    np.testing.assert_allclose(ops.convert_to_numpy(weighting.log_scale), [2.0, 0.0])


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`initial_log_scale` must be a finite number"):
        IMTLLoss([0.0, 31.0])
    with pytest.raises(ValueError, match="`max_log_scale` must be a finite number"):
        IMTLLoss(max_log_scale=-1.0)
