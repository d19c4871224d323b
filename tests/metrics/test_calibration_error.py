import math

import keras
import numpy as np
import pytest

from keras_mtl.distributions import Bar, Gaussian
from keras_mtl.metrics import CalibrationError


def result(*batches, **arguments):
    metric = CalibrationError(**arguments)
    for batch in batches:
        metric.update_state(*batch)
    return float(metric.result())


def normal(count, mean=0.0, scale=1.0):
    return np.random.default_rng(0).normal(mean, scale, size=(count, 1))


def described(count, mean=0.0, scale=1.0):
    return np.tile([mean, scale], (count, 1, 1))


def at(shares):
    """Labels at these shares of a unit normal, and that as predictions."""
    y = Gaussian().quantile(np.reshape(shares, (-1, 1)), described(len(shares)))
    return keras.ops.convert_to_numpy(y), described(len(shares))


def expected(shares, levels=19, weight=None):
    """The formula."""
    probabilities = np.arange(1, levels + 1) / (levels + 1)
    below = np.reshape(shares, (-1, 1)) <= probabilities
    return np.abs(np.average(below, 0, weight) - probabilities).mean()


@pytest.mark.parametrize("levels", [1, 3, 19])
def test_is_the_mean_over_levels_of_the_distance_of_shares(levels):
    shares = [0.11, 0.17, 0.42, 0.83]
    found = result(at(shares), levels=levels)
    np.testing.assert_allclose(found, expected(shares, levels), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_calibrated_predictions_have_none(scale):
    y = normal(10_000, 3 * scale, scale)
    assert result((y, described(10_000, 3 * scale, scale))) < 0.01


def test_even_shares_have_none():
    found = result(at((np.arange(10_000) + 0.5) / 10_000))
    np.testing.assert_allclose(found, 0.0, atol=2e-4)


def test_one_number_in_the_middle_has_a_quarter():
    y = normal(10_000)
    found = result((y, described(10_000, scale=1e-6)), levels=99)
    np.testing.assert_allclose(found, 0.25, atol=0.01)
    # By default a little less, since 19 levels leave out the ends.
    wanted = np.abs(np.arange(1, 20) / 20 - 0.5).mean()
    found = result((y, described(10_000, scale=1e-6)))
    np.testing.assert_allclose(found, wanted, atol=0.01)


@pytest.mark.parametrize("mean", [-1e3, 1e3])
def test_predictions_far_off_have_a_half(mean):
    found = result((normal(10_000), described(10_000, mean)))
    np.testing.assert_allclose(found, 0.5, rtol=1e-5)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_wrong_scale_has_some(scale):
    found = result((normal(10_000), described(10_000, scale=scale)))
    assert 0.05 < found < 0.2


def test_bars():
    bar = Bar(np.linspace(0.0, 1.0, 5))
    y = np.array([[0.1], [0.3], [0.6], [5.0]])
    found = result((y, np.zeros((4, 1, 4))), levels=3, distribution=bar)
    np.testing.assert_allclose(found, 0.0, atol=1e-6)


@pytest.mark.parametrize("distribution", ["gaussian", Bar(range(5))])
def test_predictions_may_be_in_training(distribution):
    # On PyTorch a variable asks for gradients, as predictions do in `fit`.
    size = 2 if distribution == "gaussian" else 4
    y_true, y_pred = np.ones((4, 1)), np.ones((4, 1, size), "float32")
    np.testing.assert_allclose(
        result((y_true, keras.Variable(y_pred)), distribution=distribution),
        result((y_true, y_pred), distribution=distribution),
    )


def test_queries_without_weight_do_not_count():
    shares = [0.11, 0.31, 0.63, 0.92]
    y, pred = at(shares)
    y[1], y[3] = 1e6, np.nan
    weight = np.array([1.0, 0.0, 1.0, 0.0])
    np.testing.assert_allclose(
        result((y, pred, weight)), expected(shares[::2]), rtol=1e-5
    )


def test_shares_are_weighted():
    shares, weight = [0.11, 0.31, 0.63, 0.92], np.array([1.0, 2.0, 0.5, 3.0])
    found = result((*at(shares), weight))
    np.testing.assert_allclose(found, expected(shares, weight=weight), rtol=1e-5)


def test_several_outputs_and_episodes_are_pooled():
    y = np.random.default_rng(0).normal(size=(3, 4, 2))
    weight = np.random.default_rng(1).uniform(size=(3, 4))
    found = result((y, np.tile([0.3, 1.5], (3, 4, 2, 1)), weight))
    shares = [(1 + math.erf((v - 0.3) / 1.5 / math.sqrt(2))) / 2 for v in y.ravel()]
    wanted = expected(shares, weight=weight.repeat(2))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_several_batches_equal_one():
    whole = (normal(12, scale=2.0), described(12), np.arange(12.0))
    batches = zip(*(np.split(a, 3) for a in whole), strict=True)
    np.testing.assert_allclose(result(*batches), result(whole), rtol=1e-5)


def test_without_queries_it_is_zero():
    metric = CalibrationError()
    assert float(metric.result()) == 0.0
    metric.update_state(normal(5), described(5, 7.0))
    assert float(metric.result()) > 0
    metric.reset_state()
    assert float(metric.result()) == 0.0


def test_config():
    metric = CalibrationError(9, Bar([-2.0, -1.0, 0.0, 2.0]), name="error")
    config = keras.saving.serialize_keras_object(metric)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is CalibrationError and again.name == "error"
    assert again.levels == 9
    assert again.distribution.borders == [-2.0, -1.0, 0.0, 2.0]
    assert again.get_config() == metric.get_config()
    assert CalibrationError().name == "calibration_error"


@pytest.mark.parametrize("levels", [0, -1, 2.5])
def test_levels_out_of_range(levels):
    with pytest.raises(ValueError, match=rf"`levels` must.*Received: levels={levels}"):
        CalibrationError(levels)
