import math

import numpy as np
import pytest

from keras_mtl.metrics import mean_and_interval


@pytest.mark.parametrize(
    ("count", "confidence", "quantile"),
    # From tables of Student's distribution.
    [
        (2, 0.95, 12.7062),
        (3, 0.95, 4.3027),
        (4, 0.95, 3.1824),
        (5, 0.95, 2.7764),
        (6, 0.90, 2.0150),
        (11, 0.99, 3.1693),
        (31, 0.95, 2.0423),
        (1001, 0.95, 1.9623),
    ],
)
def test_tables_of_students_distribution(count, confidence, quantile):
    values = np.random.default_rng(0).normal(size=count)
    found = mean_and_interval(values, confidence)
    standard_error = values.std(ddof=1) / math.sqrt(count)
    np.testing.assert_allclose(
        found.half_width / standard_error, quantile, atol=6e-5, rtol=1e-5
    )
    np.testing.assert_allclose(found.mean, values.mean())
    np.testing.assert_allclose(found.std, values.std(ddof=1))
    assert found.count == count


def test_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    for count in (2, 3, 7, 20, 151):
        for confidence in (0.1, 0.5, 0.95, 0.999):
            values = np.arange(count, dtype="float64")
            found = mean_and_interval(values, confidence)
            expected = stats.t.interval(
                confidence, count - 1, values.mean(), stats.sem(values)
            )
            np.testing.assert_allclose(
                (found.lower, found.upper), expected, rtol=1e-9, atol=1e-12
            )


def test_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        found = mean_and_interval(rng.normal(3.0, 2.0, size=4), 0.9)
        covered += found.lower <= 3.0 <= found.upper
    # 1800 are expected, with a deviation of 13.4.
    assert 1740 < covered < 1860


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_scales_with_the_values(scale):
    base = mean_and_interval([1.0, 2.0, 4.0])
    found = mean_and_interval([scale, 2 * scale, 4 * scale])
    np.testing.assert_allclose(found[:4], np.multiply(base[:4], scale))


def test_one_value_says_nothing_about_the_spread():
    found = mean_and_interval([0.5])
    assert (found.mean, found.lower, found.upper) == (0.5, -math.inf, math.inf)
    assert math.isnan(found.std) and found.half_width == math.inf


def test_equal_values_have_no_spread():
    found = mean_and_interval([0.5, 0.5, 0.5])
    assert found.lower == found.upper == 0.5 and found.std == 0.0


def test_text():
    assert str(mean_and_interval([0.91, 0.93, 0.92])) == "0.92 ± 0.025"


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_no_values(values):
    with pytest.raises(ValueError, match=r"`values` must be at least one.*Received"):
        mean_and_interval(values)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_confidence_out_of_range(confidence):
    message = rf"`confidence` must.*Received: confidence={confidence}"
    with pytest.raises(ValueError, match=message):
        mean_and_interval([1.0, 2.0], confidence)
