import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_mtl.metrics import EpisodeMean


def result(*batches):
    """Mean and half width after these batches."""
    metric = EpisodeMean("value")
    for batch in batches:
        metric.update_state(*batch)
    found = metric.result()
    assert list(found) == ["value", "value_ci95"]
    return [float(number) for number in found.values()]


def expected(values):
    half = 1.959964 * np.std(values, ddof=1) / math.sqrt(len(values))
    return [np.mean(values), half]


@pytest.mark.parametrize("scale", [1e-10, 1e-3, 1.0, 1e3, 1e10])
@pytest.mark.parametrize("count", [2, 30, 1000])
def test_mean_and_interval(scale, count):
    values = scale * np.random.default_rng(0).normal(0.7, 0.2, size=count)
    np.testing.assert_allclose(result((values,)), expected(values), rtol=1e-5)


def test_closed_form():
    mean, half = result((np.array([1.0, 3.0]),))
    assert mean == 2.0
    # Their deviation is the root of two, over the root of two episodes.
    np.testing.assert_allclose(half, 1.959964, rtol=1e-6)


@pytest.mark.parametrize("offset", [1.0, -1e3, 1e5])
def test_a_small_spread_of_large_values_survives(offset):
    values = (offset + np.random.default_rng(0).normal(size=(100, 6))).astype("float32")
    _, half = result(*((batch,) for batch in values))
    _, wanted = expected(values.astype("float64").ravel())
    np.testing.assert_allclose(half, wanted, rtol=1e-2)


@pytest.mark.parametrize("value", [0.0, 0.9, 1e5, -1e-10])
def test_equal_values_have_no_spread(value):
    batches = [(np.full(8, value),)] * 50
    mean, half = result(*batches)
    np.testing.assert_allclose(mean, value, rtol=1e-6)
    assert half <= 1e-6 * abs(value)


def test_one_episode_says_nothing_about_the_spread():
    mean, half = result((np.array([0.5]),))
    assert mean == 0.5 and math.isnan(half)


def test_no_episode():
    mean, half = result()
    assert mean == 0.0 and math.isnan(half)
    mean, half = result((np.array([0.5, np.nan]), np.zeros(2)))
    assert mean == 0.0 and math.isnan(half)


def test_episodes_without_weight_do_not_count():
    values = np.array([0.5, np.nan, 0.9, np.inf, 0.8, 1e30])
    weight = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    np.testing.assert_allclose(
        result((values, weight)), expected([0.5, 0.9, 0.8]), rtol=1e-5
    )


def test_one_episode_with_weight_has_no_interval():
    mean, half = result((np.array([0.5, 0.7]), np.array([1.0, 0.0])))
    assert mean == 0.5 and math.isnan(half)


@pytest.mark.parametrize(
    "weight",
    [
        [1.0, 0.0, 1.0],
        np.array([0.1, 0.0, 7.0]),
        np.array([True, False, True]),
        np.array([1, 0, 1]),
    ],
    ids=["list", "floats", "booleans", "integers"],
)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_weight_says_whether_an_episode_counts(weight, as_tensor):
    weight = ops.convert_to_tensor(weight) if as_tensor else weight
    found = result((np.array([1.0, np.nan, 3.0]), weight))
    np.testing.assert_allclose(found, expected([1.0, 3.0]), rtol=1e-5)


def test_one_weight_for_all_episodes():
    values = np.array([1.0, 2.0, 6.0])
    np.testing.assert_allclose(result((values, 1.0)), result((values,)))


def test_several_batches_equal_one():
    values = np.random.default_rng(0).normal(0.7, 0.2, size=40)
    weight = (np.arange(40) % 3 > 0).astype("float32")
    parts = [slice(0, 1), slice(1, 2), slice(2, 40)]
    batches = [(values[part], weight[part]) for part in parts]
    np.testing.assert_allclose(result(*batches), result((values, weight)), rtol=1e-5)
    np.testing.assert_allclose(result(*batches), expected(values[weight > 0]), 1e-5)


def test_a_batch_without_episodes_changes_nothing():
    values = np.array([1.0, 2.0, 6.0])
    absent = (np.array([np.nan, 5.0]), np.zeros(2))
    np.testing.assert_array_equal(result(absent, (values,), absent), result((values,)))


def test_a_result_stays_when_the_metric_goes_on():
    metric = EpisodeMean("value")
    metric.update_state(np.array([1.0, 3.0]))
    found = metric.result()
    metric.update_state(np.array([7.0]))
    metric.reset_state()
    np.testing.assert_allclose(float(found["value"]), 2.0)
    np.testing.assert_allclose(float(found["value_ci95"]), 1.959964, rtol=1e-6)


def test_reset():
    metric = EpisodeMean("value")
    metric.update_state(np.array([100.0, 300.0]))
    metric.reset_state()
    assert float(metric.result()["value"]) == 0.0
    metric.update_state(np.array([1.0, 3.0]))
    np.testing.assert_allclose(float(metric.result()["value_ci95"]), 1.959964, 1e-6)


def test_config():
    metric = EpisodeMean("accuracy")
    config = keras.saving.serialize_keras_object(metric)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is EpisodeMean and again.name == "accuracy"
    assert list(again.result()) == ["accuracy", "accuracy_ci95"]
    assert again.get_config() == metric.get_config()
