import keras
import numpy as np
import pytest

from keras_mtl.distributions import Bar
from keras_mtl.metrics import SquaredErrorOfMean


def example(shape=(3, 4, 2), scale=1.0):
    rng = np.random.default_rng(0)
    y_true, mean = scale * rng.normal(size=(2, *shape))
    deviation = scale * rng.uniform(0.5, 2.0, size=shape)
    return y_true, np.stack([mean, deviation], axis=-1)


def each_query(y_true, y_pred):
    return np.mean((y_true - y_pred[..., 0]) ** 2, axis=-1)


def result(*batches, **arguments):
    metric = SquaredErrorOfMean(**arguments)
    for batch in batches:
        metric.update_state(*batch)
    return float(metric.result())


@pytest.mark.parametrize("scale", [1e-10, 1e-3, 1.0, 1e3, 1e10])
@pytest.mark.parametrize("shape", [(7, 1), (3, 4, 2)])
def test_is_the_mean_of_the_formula(scale, shape):
    y_true, y_pred = example(shape, scale)
    expected = each_query(y_true, y_pred).mean()
    np.testing.assert_allclose(result((y_true, y_pred)), expected, rtol=1e-5)


def test_is_the_mse_of_a_plain_prediction():
    y_true, y_pred = example()
    plain = keras.metrics.MeanSquaredError()
    plain.update_state(y_true, y_pred[..., 0])
    found = result((y_true, y_pred))
    np.testing.assert_allclose(found, float(plain.result()), rtol=1e-6)


def test_bars_have_their_centre_as_mean():
    bar = Bar([-2.0, -1.0, 0.0, 1.0, 2.0])
    batch = (np.array([[2.0], [1.0], [-3.0], [0.0]]), np.zeros((4, 1, 4)))
    np.testing.assert_allclose(result(batch, distribution=bar), 3.5, rtol=1e-6)


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


def test_reset():
    metric = SquaredErrorOfMean()
    metric.update_state(*example())
    metric.reset_state()
    assert float(metric.result()) == 0.0


def test_config():
    metric = SquaredErrorOfMean(Bar([-2.0, -1.0, 0.0, 2.0]), name="error")
    config = keras.saving.serialize_keras_object(metric)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is SquaredErrorOfMean and again.name == "error"
    assert again.distribution.borders == [-2.0, -1.0, 0.0, 2.0]
    assert again.get_config() == metric.get_config()
    assert SquaredErrorOfMean().name == "mse"
