import keras
import numpy as np
import pytest

from keras_mtl.distributions import Bar
from keras_mtl.metrics import IntervalCoverage


def result(*batches, **arguments):
    metric = IntervalCoverage(**arguments)
    for batch in batches:
        metric.update_state(*batch)
    return float(metric.result())


def normal(count, mean=0.0, scale=1.0):
    return np.random.default_rng(0).normal(mean, scale, size=(count, 1))


def described(count, mean=0.0, scale=1.0):
    return np.tile([mean, scale], (count, 1, 1))


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_calibrated_predictions_cover_as_often_as_they_say(scale, confidence):
    y = normal(10_000, 3 * scale, scale)
    found = result((y, described(10_000, 3 * scale, scale)), confidence=confidence)
    # The deviation of the share is at most 0.005.
    np.testing.assert_allclose(found, confidence, atol=0.015)


def test_predictions_too_sure_cover_less_and_unsure_ones_more():
    y = normal(10_000)
    # Of a normal distribution 67.3 % are within 0.98 deviations.
    sure = result((y, described(10_000, scale=0.5)))
    np.testing.assert_allclose(sure, 0.673, atol=0.015)
    assert result((y, described(10_000, scale=2.0))) > 0.999


@pytest.mark.parametrize(
    ("confidence", "edge"), [(0.5, 0.674490), (0.9, 1.644854), (0.95, 1.959964)]
)
def test_edges_of_the_interval(confidence, edge):
    y = 10 + 2 * edge * np.array([[-1.001], [-0.999], [0.0], [0.999], [1.001]])
    pred = described(5, 10.0, 2.0)
    found = [
        result((y[i : i + 1], pred[i : i + 1]), confidence=confidence) for i in range(5)
    ]
    assert found == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_outputs_are_averaged():
    y_true = np.array([[0.0, 9.0], [0.0, 0.0]])
    y_pred = np.tile([0.0, 1.0], (2, 2, 1))
    np.testing.assert_allclose(result((y_true, y_pred)), 0.75)


def test_bars():
    bar = Bar([0.0, 0.25, 0.5, 0.75, 1.0])
    y = np.array([[-0.5], [0.27], [0.73], [0.77]])
    found = result((y, np.zeros((4, 1, 4))), confidence=0.5, distribution=bar)
    assert found == 0.5


def test_everything_is_within_certainty():
    bar = Bar(np.linspace(-1, 1, 151))
    logits = 3 * np.random.default_rng(0).normal(size=(200, 1, 150))
    for y in (-100.0, 0.0, 1.0, 100.0):
        batch = (np.full((200, 1), y), logits)
        assert result(batch, confidence=1.0, distribution=bar) == 1.0


def test_queries_without_weight_do_not_count():
    y = np.array([[0.0], [np.nan], [9.0], [9.0]])
    weight = np.array([1.0, 0.0, 0.0, 1.0])
    assert result((y, described(4), weight)) == 0.5


def test_several_batches_equal_one():
    whole = (normal(12, scale=2.0), described(12), np.arange(12.0))
    batches = zip(*(np.split(a, 3) for a in whole), strict=True)
    np.testing.assert_allclose(result(*batches), result(whole), rtol=1e-6)


def test_reset():
    metric = IntervalCoverage()
    metric.update_state(normal(5), described(5))
    metric.reset_state()
    assert float(metric.result()) == 0.0


@pytest.mark.parametrize(
    ("confidence", "name"),
    [(0.95, "coverage_95"), (0.29, "coverage_29"), (0.999, "coverage_99.9")],
)
def test_names_say_the_confidence(confidence, name):
    assert IntervalCoverage(confidence).name == name


def test_config():
    metric = IntervalCoverage(0.8, Bar([-2.0, -1.0, 0.0, 2.0]), name="inside")
    config = keras.saving.serialize_keras_object(metric)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is IntervalCoverage and again.name == "inside"
    assert again.confidence == 0.8
    assert again.distribution.borders == [-2.0, -1.0, 0.0, 2.0]
    assert again.get_config() == metric.get_config()


@pytest.mark.parametrize("confidence", [0.0, -0.5, 95, float("nan")])
def test_confidence_out_of_range(confidence):
    message = rf"`confidence` must.*Received: confidence={confidence}"
    with pytest.raises(ValueError, match=message):
        IntervalCoverage(confidence)
