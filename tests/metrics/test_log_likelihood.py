import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_mtl.distributions import Bar
from keras_mtl.losses import GaussianNegativeLogLikelihood
from keras_mtl.metrics import LogLikelihood


def example(shape=(3, 4, 2), scale=1.0):
    rng = np.random.default_rng(0)
    y_true, mean = scale * rng.normal(size=(2, *shape))
    deviation = scale * rng.uniform(0.5, 2.0, size=shape)
    return y_true, np.stack([mean, deviation], axis=-1)


def each_query(y_true, y_pred):
    mean, scale = y_pred[..., 0], y_pred[..., 1]
    log_prob = -(((y_true - mean) / scale) ** 2) / 2 - np.log(scale)
    return np.sum(log_prob - math.log(2 * math.pi) / 2, axis=-1)


def result(*batches, **arguments):
    metric = LogLikelihood(**arguments)
    for batch in batches:
        metric.update_state(*batch)
    return float(metric.result())


@pytest.mark.parametrize("scale", [1e-10, 1e-3, 1.0, 1e3, 1e10])
@pytest.mark.parametrize("shape", [(7, 1), (3, 4, 2)])
def test_is_the_mean_of_the_formula(scale, shape):
    y_true, y_pred = example(shape, scale)
    expected = each_query(y_true, y_pred).mean()
    np.testing.assert_allclose(result((y_true, y_pred)), expected, rtol=1e-5)


def test_is_the_loss_with_the_other_sign():
    y_true, y_pred = example()
    loss = float(GaussianNegativeLogLikelihood()(y_true, y_pred))
    np.testing.assert_allclose(result((y_true, y_pred)), -loss, rtol=1e-6)


def test_bars():
    bar = Bar([-2.0, -1.0, 0.0, 1.0, 2.0])
    batch = (np.array([[0.5], [-0.5], [0.0], [-0.9]]), np.zeros((4, 1, 4)))
    found = result(batch, distribution=bar)
    np.testing.assert_allclose(found, -math.log(4), rtol=1e-6)


def test_queries_without_weight_do_not_count():
    y_true, y_pred = example()
    weight = np.ones((3, 4))
    weight[0, 1:] = 0
    y_true[0, 1:] = 1e6
    expected = each_query(y_true, y_pred)[weight == 1].mean()
    np.testing.assert_allclose(result((y_true, y_pred, weight)), expected, rtol=1e-5)


def test_mean_is_weighted():
    y_true, y_pred = example()
    weight = np.random.default_rng(1).uniform(size=(3, 4))
    expected = np.average(each_query(y_true, y_pred), weights=weight)
    np.testing.assert_allclose(result((y_true, y_pred, weight)), expected, rtol=1e-5)


def test_several_batches_equal_one():
    y_true, y_pred = example((12, 1))
    weight = np.arange(12.0)
    batches = zip(*(np.split(a, 3) for a in (y_true, y_pred, weight)), strict=True)
    np.testing.assert_allclose(
        result(*batches), result((y_true, y_pred, weight)), rtol=1e-6
    )


def test_predictions_in_half_precision():
    y_true = np.array([[0.1234567]])
    y_pred = np.array([[[2048.0, 0.125]]], "float16")
    found = result((y_true, ops.convert_to_tensor(y_pred)))
    expected = each_query(y_true, y_pred.astype("float64"))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_reset():
    metric = LogLikelihood()
    metric.update_state(*example())
    metric.reset_state()
    assert float(metric.result()) == 0.0


def test_config():
    metric = LogLikelihood(Bar([-2.0, -1.0, 0.0, 2.0]), name="density")
    config = keras.saving.serialize_keras_object(metric)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is LogLikelihood and again.name == "density"
    assert again.distribution.borders == [-2.0, -1.0, 0.0, 2.0]
    assert again.get_config() == metric.get_config()
    assert LogLikelihood().name == "log_likelihood"
