import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_mtl.distributions import Bar, Gaussian
from keras_mtl.losses import GaussianNegativeLogLikelihood, NegativeLogLikelihood
from keras_mtl.metrics import (
    CalibrationError,
    IntervalCoverage,
    LogLikelihood,
    SquaredErrorOfMean,
)

SCALES = [1e-10, 1e-3, 1.0, 1e3, 1e10]
BAR = Bar([-2.0, -1.0, 0.0, 1.0, 2.0])
GAUSSIAN_LOSSES = [NegativeLogLikelihood, GaussianNegativeLogLikelihood]


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def example(shape=(3, 5, 2), scale=1.0):
    """Labels, and means and scales for them."""
    rng = np.random.default_rng(0)
    y_true, mean = scale * rng.normal(size=(2, *shape))
    deviation = scale * rng.uniform(0.5, 2.0, size=shape)
    return y_true, np.stack([mean, deviation], axis=-1)


def each_query(y_true, y_pred):
    """The formula, one value a query."""
    mean, scale = y_pred[..., 0], y_pred[..., 1]
    square = (y_true - mean) ** 2 / (2 * scale**2)
    return np.sum(square + np.log(scale) + math.log(2 * math.pi) / 2, axis=-1)


@pytest.mark.parametrize("make", GAUSSIAN_LOSSES)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(7, 1), (3, 5, 2)])
def test_is_the_mean_of_the_formula_over_queries(make, scale, shape):
    y_true, y_pred = example(shape, scale)
    found = make()(y_true, y_pred)
    expected = each_query(y_true, y_pred).mean()
    np.testing.assert_allclose(float(found), expected, rtol=1e-5)


def test_one_bar_of_four():
    loss = NegativeLogLikelihood(BAR)
    found = loss(np.array([[0.5], [-0.5]]), np.zeros((2, 1, 4)))
    np.testing.assert_allclose(float(found), math.log(4), rtol=1e-6)


def test_outputs_of_a_query_are_summed():
    y_true, y_pred = example()
    loss = GaussianNegativeLogLikelihood(reduction=None)
    parts = [loss(y_true[..., d : d + 1], y_pred[..., d : d + 1, :]) for d in range(2)]
    np.testing.assert_allclose(
        numpy(loss(y_true, y_pred)), numpy(parts[0] + parts[1]), rtol=1e-5
    )


@pytest.mark.parametrize("make", GAUSSIAN_LOSSES)
@pytest.mark.parametrize("reduction", ["sum", "none", None])
def test_reductions(make, reduction):
    y_true, y_pred = example()
    found = numpy(make(reduction=reduction)(y_true, y_pred))
    expected = each_query(y_true, y_pred)
    expected = expected.sum() if reduction == "sum" else expected
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("make", GAUSSIAN_LOSSES)
def test_sample_weights_are_of_queries(make):
    y_true, y_pred = example()
    weight = np.random.default_rng(1).uniform(size=(3, 5))
    found = make()(y_true, y_pred, sample_weight=weight)
    expected = (weight * each_query(y_true, y_pred)).sum() / 15
    np.testing.assert_allclose(float(found), expected, rtol=1e-5)


@pytest.mark.parametrize("make", GAUSSIAN_LOSSES)
def test_queries_without_weight_do_not_count(make):
    y_true, y_pred = example()
    weight = np.ones((3, 5))
    weight[1, 2:] = 0
    y_true[1, 2:] = 1e6
    found = make(reduction="sum")(y_true, y_pred, sample_weight=weight)
    expected = each_query(y_true, y_pred)[weight == 1].sum()
    np.testing.assert_allclose(float(found), expected, rtol=1e-5)


@pytest.mark.parametrize("y_dtype", ["float64", "float32", "int32"])
def test_labels_of_any_type(y_dtype):
    y_true = np.array([[1], [3]], y_dtype)
    y_pred = np.array([[[0.0, 1.0]], [[1.0, 2.0]]], "float32")
    found = GaussianNegativeLogLikelihood()(y_true, y_pred)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    expected = each_query(y_true, y_pred.astype("float64")).mean()
    np.testing.assert_allclose(float(found), expected, rtol=1e-6)


@pytest.mark.parametrize("make", GAUSSIAN_LOSSES)
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_half_precision_is_computed_in_float32(make, policy):
    keras.config.set_dtype_policy(policy)
    # The label is not a number of float16, nor is the loss.
    y_true = np.array([[0.1234567]])
    y_pred = np.array([[[2048.0, 0.125]]], "float16")
    found = make().call(ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred))
    expected = each_query(y_true, y_pred.astype("float64"))
    np.testing.assert_allclose(numpy(found), expected, rtol=1e-6)
    found = make()(y_true, ops.convert_to_tensor(y_pred))
    np.testing.assert_allclose(float(found), expected.mean(), rtol=1e-6)


def test_the_truth_has_the_least_loss():
    y_true = np.random.default_rng(0).normal(1.0, 2.0, size=(20_000, 1))
    loss = GaussianNegativeLogLikelihood()

    def of(mean, scale):
        return float(loss(y_true, np.tile([mean, scale], (20_000, 1, 1))))

    least = of(1.0, 2.0)
    # The entropy of a normal distribution.
    np.testing.assert_allclose(
        least, math.log(2 * math.sqrt(2 * math.pi * math.e)), atol=0.02
    )
    for mean, scale in [(0.8, 2.0), (1.2, 2.0), (1.0, 1.8), (1.0, 2.2), (0.0, 4.0)]:
        assert of(mean, scale) > least


@pytest.mark.parametrize("make", GAUSSIAN_LOSSES)
@pytest.mark.parametrize(
    ("labels", "predictions"),
    [
        ((4,), (4, 1, 2)),
        ((4, 1), (4, 2)),
        ((4, 2), (4, 1, 2)),
        ((4, 1), (4, 2, 2)),
        ((3, 4, 1), (4, 3, 1, 2)),
    ],
)
def test_shapes_that_do_not_fit(make, labels, predictions):
    message = (
        r"shape of the labels and one more axis.*Received: labels of shape "
        rf"\({', '.join(map(str, labels))},?\), predictions of shape"
    )
    with pytest.raises(ValueError, match=message):
        make()(np.zeros(labels), np.ones(predictions))


@pytest.mark.parametrize("distribution", ["gaussian", BAR])
def test_parameters_of_another_distribution(distribution):
    with pytest.raises(ValueError, match=r"last axis. Received.*\(4, 1, 7\)"):
        NegativeLogLikelihood(distribution)(np.zeros((4, 1)), np.ones((4, 1, 7)))


def test_what_is_no_distribution():
    message = "`distribution` must be.*Received: distribution='normal'"
    with pytest.raises(ValueError, match=message):
        NegativeLogLikelihood("normal")


@pytest.mark.parametrize(
    "loss",
    [
        NegativeLogLikelihood(),
        NegativeLogLikelihood(Gaussian(0.1), reduction="sum", name="nll"),
        GaussianNegativeLogLikelihood(),
        GaussianNegativeLogLikelihood(reduction=None, name="nll"),
    ],
)
def test_goes_through_serialization(loss):
    config = keras.saving.serialize_keras_object(loss)
    restored = keras.saving.deserialize_keras_object(config)
    assert type(restored) is type(loss)
    assert restored.get_config() == loss.get_config()
    assert restored.distribution.get_config() == loss.distribution.get_config()
    y_true, y_pred = example()
    np.testing.assert_array_equal(
        numpy(restored(y_true, y_pred)), numpy(loss(y_true, y_pred))
    )


def test_bars_go_through_serialization():
    loss = NegativeLogLikelihood(BAR)
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert restored.distribution.borders == BAR.borders
    assert restored.get_config() == loss.get_config()


def test_names():
    assert NegativeLogLikelihood().name == "negative_log_likelihood"
    assert GaussianNegativeLogLikelihood().name == "gaussian_negative_log_likelihood"


@pytest.mark.parametrize("distribution", [Gaussian(), Bar(range(-4, 7))])
def test_a_model_learns_the_distribution_of_its_labels(distribution):
    rng = np.random.default_rng(0)
    x = np.ones((640, 1), "float32")
    y = rng.normal(1.0, 2.0, size=(640, 1)).astype("float32")
    inputs = keras.Input((1,))
    raw = keras.layers.Dense(distribution.raw_size, kernel_initializer="zeros")(inputs)
    raw = keras.layers.Reshape((1, distribution.raw_size))(raw)
    outputs = keras.layers.Lambda(
        distribution.parameters, output_shape=(1, distribution.raw_size)
    )(raw)
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.Adam(0.1),
        NegativeLogLikelihood(distribution),
        metrics=[
            LogLikelihood(distribution),
            SquaredErrorOfMean(distribution),
            IntervalCoverage(0.9, distribution),
            CalibrationError(distribution=distribution),
        ],
    )
    model.fit(x, y, batch_size=64, epochs=12, verbose=0)
    found = model.evaluate(x, y, batch_size=64, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["loss"], -found["log_likelihood"], rtol=1e-5)
    entropy = math.log(2 * math.sqrt(2 * math.pi * math.e))
    np.testing.assert_allclose(found["loss"], entropy, atol=0.15)
    np.testing.assert_allclose(found["mse"], 4.0, atol=0.5)
    np.testing.assert_allclose(found["coverage_90"], 0.9, atol=0.05)
    assert found["calibration_error"] < 0.06
