import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_mtl.distributions import Gaussian

SCALES = [1e-10, 1e-3, 1.0, 1e3, 1e10]


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def described(mean, scale):
    return np.array([[mean, scale]])


def points(mean, scale, count=2001, width=8.0):
    return mean + scale * np.linspace(-width, width, count)[:, None]


def integral(values, places):
    values = np.asarray(values, "float64")
    return np.sum((values[1:] + values[:-1]) / 2 * np.diff(places, axis=0))


@pytest.mark.parametrize("scale", SCALES)
def test_log_prob_is_that_of_the_formula(scale):
    y = points(3 * scale, scale, 41)
    found = numpy(Gaussian().log_prob(y, described(3 * scale, scale)))
    distance = (y - 3 * scale) / scale
    expected = -(distance**2) / 2 - math.log(scale * math.sqrt(2 * math.pi))
    assert found.shape == (41, 1) and found.dtype == "float32"
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_density_integrates_to_one(scale):
    y = points(-2 * scale, scale)
    density = np.exp(numpy(Gaussian().log_prob(y, described(-2 * scale, scale))))
    np.testing.assert_allclose(integral(density, y), 1.0, rtol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_mean_is_the_integral_of_y_times_density(scale):
    parameters = described(5 * scale, scale)
    y = points(5 * scale, scale)
    density = np.exp(numpy(Gaussian().log_prob(y, parameters)))
    found = numpy(Gaussian().mean(parameters))
    np.testing.assert_allclose(found, [integral(y * density, y)], rtol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_cdf_is_that_of_the_formula(scale):
    y = points(3 * scale, scale, 41, 5.0)
    found = numpy(Gaussian().cdf(y, described(3 * scale, scale)))
    expected = [
        (1 + math.erf((number - 3 * scale) / scale / math.sqrt(2))) / 2
        for number in y[:, 0]
    ]
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)


def test_cdf_rises_from_zero_to_one():
    found = numpy(Gaussian().cdf(points(1.0, 2.0, 200, 50.0), described(1.0, 2.0)))
    assert found[0] == 0.0 and found[-1] == 1.0
    assert (np.diff(found, axis=0) >= 0).all()
    np.testing.assert_array_equal(Gaussian().cdf([[1.0]], described(1.0, 2.0)), [[0.5]])


@pytest.mark.parametrize("scale", SCALES)
def test_density_is_the_derivative_of_the_cdf(scale):
    parameters = described(scale, scale)
    y, step = points(scale, scale, 61, 4.0), 0.02 * scale
    above, below = (
        numpy(Gaussian().cdf(y + side, parameters)) for side in (step, -step)
    )
    density = np.exp(numpy(Gaussian().log_prob(y, parameters)))
    np.testing.assert_allclose((above - below) / (2 * 0.02), density * scale, atol=2e-4)


@pytest.mark.parametrize("scale", SCALES)
def test_quantile_is_the_inverse_of_the_cdf(scale):
    parameters = described(-3 * scale, scale)
    probabilities = np.linspace(0.001, 0.999, 99)[:, None]
    y = Gaussian().quantile(probabilities, parameters)
    np.testing.assert_allclose(
        Gaussian().cdf(y, parameters), probabilities, rtol=1e-4, atol=1e-6
    )


def test_quantiles_of_tables():
    gaussian, parameters = Gaussian(), described(10.0, 2.0)
    tables = {0.5: 0.0, 0.75: 0.674490, 0.9: 1.281552, 0.975: 1.959964, 0.01: -2.326348}
    for probability, distance in tables.items():
        found = numpy(gaussian.quantile(probability, parameters))
        np.testing.assert_allclose(found, [10 + 2 * distance], rtol=1e-5)


def test_many_quantiles_of_many_numbers():
    parameters = np.stack([np.arange(6.0), np.ones(6)], axis=-1).reshape(2, 3, 1, 2)
    probabilities = np.array([0.025, 0.5, 0.975]).reshape(3, 1, 1, 1)
    found = numpy(Gaussian().quantile(probabilities, parameters))
    expected = parameters[..., 0] + np.reshape([-1.959964, 0.0, 1.959964], (3, 1, 1, 1))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_parameters_are_a_mean_and_a_softplus_of_raw_numbers():
    raw = np.random.default_rng(0).normal(scale=3.0, size=(4, 5, 2, 2))
    found = numpy(Gaussian(0.1).parameters(raw))
    np.testing.assert_allclose(found[..., 0], raw[..., 0], rtol=1e-6)
    expected = 0.1 + 0.9 * np.log1p(np.exp(raw[..., 1]))
    np.testing.assert_allclose(found[..., 1], expected, rtol=1e-5)


@pytest.mark.parametrize("min_scale", [1e-10, 0.01, 0.5, 1.0])
def test_no_scale_is_below_the_least(min_scale):
    raw = np.stack([np.zeros(5), [-1e10, -1e3, -100.0, -1.0, 0.0]], axis=-1)
    scale = numpy(Gaussian(min_scale).parameters(raw))[:, 1]
    assert (scale >= np.float32(min_scale)).all()
    np.testing.assert_allclose(scale[:3], min_scale, rtol=1e-6)


def test_the_least_scale_bounds_the_density():
    gaussian = Gaussian(0.1)
    parameters = gaussian.parameters(np.array([[0.0, -1e4]]))
    found = numpy(gaussian.log_prob(np.zeros((1, 1)), parameters))
    np.testing.assert_allclose(found, -math.log(0.1) - 0.918939, rtol=1e-5)


def test_large_raw_numbers_are_the_scale():
    scale = numpy(Gaussian().parameters(np.array([[0.0, 1e10]])))[0, 1]
    np.testing.assert_allclose(scale, 0.99e10, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32"])
def test_computes_in_float32(dtype):
    gaussian = Gaussian()
    raw = ops.cast(ops.convert_to_tensor([[2.0, 3.0]]), dtype)
    parameters = gaussian.parameters(raw)
    assert keras.backend.standardize_dtype(parameters.dtype) == "float32"
    np.testing.assert_allclose(
        parameters, [[2.0, 0.01 + 0.99 * math.log1p(math.exp(3))]], rtol=1e-6
    )
    # The square of the distance is out of the range of float16.
    found = gaussian.log_prob(ops.cast(ops.convert_to_tensor([1000.0]), dtype), raw)
    expected = -(((1000 - 2) / 3) ** 2) / 2 - math.log(3) - 0.918939
    np.testing.assert_allclose(numpy(found), [expected], rtol=1e-6)


def test_config():
    gaussian = Gaussian(min_scale=0.1)
    config = keras.saving.serialize_keras_object(gaussian)
    restored = keras.saving.deserialize_keras_object(config)
    assert type(restored) is Gaussian
    assert restored.get_config() == gaussian.get_config() == {"min_scale": 0.1}
    assert restored.raw_size == 2


@pytest.mark.parametrize("min_scale", [0.0, -1.0, 1.5, math.nan, math.inf, "small"])
def test_a_least_scale_out_of_range(min_scale):
    with pytest.raises(ValueError, match=r"`min_scale` must.*Received: min_scale="):
        Gaussian(min_scale)


@pytest.mark.parametrize("method", ["log_prob", "cdf", "quantile", "mean"])
def test_parameters_that_are_no_mean_and_scale(method):
    arguments = [] if method == "mean" else [np.full((5, 1), 0.5)]
    with pytest.raises(ValueError, match=r"a mean and a scale.*Received.*\(5, 1, 3\)"):
        getattr(Gaussian(), method)(*arguments, np.zeros((5, 1, 3)))
