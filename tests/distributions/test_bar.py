import math
from itertools import pairwise

import keras
import numpy as np
import pytest
from keras import ops

from keras_mtl.distributions import Bar

SCALES = [1e-10, 1e-3, 1.0, 1e3, 1e10]
BORDERS = np.array([-3.0, -1.0, -0.5, 0.0, 2.0, 2.25, 4.0])
WIDTHS = np.diff(BORDERS)
MASS = np.array([0.1, 0.3, 0.05, 0.25, 0.1, 0.2])
LOGITS = np.log(MASS) + 3.0
# Half of the mass of a half-normal distribution is within 0.674 of its scale.
TAILS = WIDTHS[[0, -1]] / 0.6744897501960817


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def density(y):
    """The density, written from the formula."""
    if BORDERS[1] <= y < BORDERS[-2]:
        place = np.searchsorted(BORDERS, y, "right") - 1
        return MASS[place] / WIDTHS[place]
    inner, tail, mass = (
        (BORDERS[1], TAILS[0], MASS[0])
        if y < BORDERS[1]
        else (BORDERS[-2], TAILS[1], MASS[-1])
    )
    normal = math.exp(-(((y - inner) / tail) ** 2) / 2) / math.sqrt(2 * math.pi) / tail
    return 2 * normal * mass


def centres_of_cells(cells=400, width=9.0):
    """Centres and widths of cells within the bars and their tails."""
    ends = BORDERS.copy()
    ends[0] = BORDERS[1] - width * TAILS[0]
    ends[-1] = BORDERS[-2] + width * TAILS[1]
    borders = np.concatenate(
        [np.linspace(*pair, cells + 1)[:-1] for pair in pairwise(ends)] + [ends[-1:]]
    )
    return (borders[1:] + borders[:-1]) / 2, np.diff(borders)


def of(method, numbers, scale=1.0):
    """What the method gives for each number, in units of the scale.

    All in one shape, since JAX compiles for each.
    """
    padded = np.zeros((2400, 1))
    padded[: len(numbers), 0] = numbers
    padded = padded if method == "quantile" else scale * padded
    found = getattr(Bar(scale * BORDERS), method)(padded, LOGITS[None, None])
    assert found.shape == (2400, 1)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    found = numpy(found)[: len(numbers), 0].astype("float64")
    return found / scale if method == "quantile" else found


def densities(y, scale=1.0):
    return np.exp(of("log_prob", y, scale)) * scale


@pytest.mark.parametrize("scale", SCALES)
def test_log_prob_is_that_of_the_formula(scale):
    # Within each bar, and far out in the tails.
    y = np.array(
        [-30.0, -3.5, -3.0, -1.1, -0.9, -0.1, 0.1, 1.9, 2.1, 2.3, 4.0, 5.0, 20]
    )
    found = of("log_prob", y, scale)
    expected = np.log([density(number) for number in y]) - math.log(scale)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_border_is_of_the_bar_above():
    found = densities(BORDERS[1:-1])
    expected = [density(number) for number in BORDERS[1:-1]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_density_is_that_of_the_outputs_own_logits():
    logits = np.random.default_rng(0).normal(size=(2, 3, 2, 6))
    y = np.broadcast_to([0.5, -0.7], (2, 3, 2))  # the fourth and the second bar
    found = np.exp(numpy(Bar(BORDERS).log_prob(y, logits)))
    mass = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    expected = np.stack([mass[..., 0, 3] / 2, mass[..., 1, 1] / 0.5], axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_density_integrates_to_one(scale):
    y, widths = centres_of_cells()
    np.testing.assert_allclose(np.sum(densities(y, scale) * widths), 1.0, rtol=1e-5)


def test_every_bar_has_its_own_mass():
    y, widths = centres_of_cells()
    mass = (densities(y) * widths).reshape(6, -1).sum(axis=1)
    np.testing.assert_allclose(mass, MASS, rtol=1e-4)


def test_half_of_the_outer_mass_is_within_the_outer_borders():
    found = of("cdf", BORDERS[[0, -1]])
    np.testing.assert_allclose(found, [MASS[0] / 2, 1 - MASS[-1] / 2], rtol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_mean_is_the_integral_of_y_times_density(scale):
    y, widths = centres_of_cells()
    found = numpy(Bar(scale * BORDERS).mean(LOGITS[None, None]))
    expected = np.sum(y * densities(y) * widths)
    np.testing.assert_allclose(found, [[scale * expected]], rtol=1e-4)


def test_mean_of_equal_bars_is_their_centre():
    found = numpy(Bar([1.0, 2.0, 3.0, 4.0, 5.0]).mean(np.zeros((2, 3, 1, 4))))
    np.testing.assert_allclose(found, np.full((2, 3, 1), 3.0), rtol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_cdf_rises_from_zero_to_one(scale):
    found = of("cdf", np.linspace(-60, 60, 2400), scale)
    np.testing.assert_allclose(found[[0, -1]], [0.0, 1.0], atol=1e-6)
    assert (np.diff(found) >= -1e-6).all()


def test_no_probability_is_out_of_range():
    logits = 3 * np.random.default_rng(0).normal(size=(200, 1, 150))
    bar = Bar(np.linspace(-1, 1, 151))
    for y in (-100.0, -1.0, 0.99, 1.0, 100.0):
        found = numpy(bar.cdf(np.full((200, 1), y), logits))
        assert (found >= 0).all() and (found <= 1).all()


@pytest.mark.parametrize("scale", SCALES)
def test_density_is_the_derivative_of_the_cdf(scale):
    step = 0.02
    y = np.linspace(-8, 10, 181) + 0.05
    y = y[np.abs(y[:, None] - BORDERS).min(axis=1) > step]
    change = of("cdf", y + step, scale) - of("cdf", y - step, scale)
    np.testing.assert_allclose(change / (2 * step), densities(y, scale), atol=2e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_quantile_is_the_inverse_of_the_cdf(scale):
    probabilities = np.linspace(0.001, 0.999, 333)
    found = of("cdf", of("quantile", probabilities, scale), scale)
    np.testing.assert_allclose(found, probabilities, rtol=1e-4, atol=1e-6)


def test_cdf_is_the_inverse_of_the_quantile():
    y = np.linspace(-6, 8, 141)
    found = of("quantile", of("cdf", y))
    np.testing.assert_allclose(found, y, rtol=1e-3, atol=1e-4)


def test_quantiles_at_the_borders_are_sums_of_mass():
    found = of("quantile", np.cumsum(MASS)[:-1])
    np.testing.assert_allclose(found, BORDERS[1:-1], atol=1e-4)


@pytest.mark.parametrize("shape", [(5, 1), (4, 1, 1)])
def test_many_quantiles_of_many_numbers(shape):
    bar = Bar(BORDERS)
    logits = np.random.default_rng(0).normal(size=(5, 2, 6))
    probabilities = np.linspace(0.1, 0.9, math.prod(shape)).reshape(shape)
    found = numpy(bar.quantile(probabilities, logits))
    everywhere = np.broadcast_to(probabilities, found.shape)
    assert found.shape == np.broadcast_shapes(shape, (5, 2))
    reached = bar.cdf(found, np.broadcast_to(logits, (*found.shape, 6)))
    np.testing.assert_allclose(numpy(reached), everywhere, atol=1e-5)


def test_quantiles_of_sure_things_are_finite():
    least, most = of("quantile", [0.0, 1.0])
    assert -20 < least < BORDERS[0] and BORDERS[-1] < most < 20


def test_quantiles_of_one_bar_are_within_it():
    logits = np.array([[[-1e4, -1e4, -1e4, 0.0, -1e4, -1e4]]])
    for probability in (0.01, 0.25, 0.5, 0.99):
        found = numpy(Bar(BORDERS).quantile(probability, logits))
        np.testing.assert_allclose(found, [[2 * probability]], rtol=1e-5)


def test_every_number_has_a_density():
    found = of("log_prob", [-1e6, -100.0, 100.0, 1e6])
    assert np.isfinite(found).all()
    assert found[0] < found[1] < -100 and found[3] < found[2] < -100


def test_a_constant_of_all_logits_changes_nothing():
    y = np.linspace(-5, 5, 2400)
    for method in ("log_prob", "cdf"):
        found = getattr(Bar(BORDERS), method)(y[:, None], LOGITS[None, None] + 50)
        expected = of(method, y)
        np.testing.assert_allclose(numpy(found)[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_large_logits_are_no_overflow():
    bar, logits = Bar(BORDERS), np.array([[[1e10, 0.0, -1e10, 0.0, 0.0, 0.0]]])
    sure, excluded = (
        numpy(bar.log_prob(np.array([[y]]), logits)) for y in (-1.0 - 1e-6, 1.0)
    )
    expected = math.log(2 / math.sqrt(2 * math.pi) / TAILS[0])
    np.testing.assert_allclose(sure, [[expected]], rtol=1e-5)
    np.testing.assert_allclose(excluded, [[-1e10]], rtol=1e-5)
    assert np.isfinite(numpy(bar.mean(logits))).all()
    assert np.isfinite(numpy(bar.quantile(0.5, logits))).all()


def test_predictions_may_be_in_training():
    # On PyTorch a variable asks for gradients, as predictions do in `fit`.
    bar, logits = Bar(BORDERS), keras.Variable(LOGITS[None, None], dtype="float32")
    y = np.zeros((1, 1))
    for found, expected in [
        (bar.mean(logits), bar.mean(LOGITS[None, None])),
        (bar.log_prob(y, logits), bar.log_prob(y, LOGITS[None, None])),
        (bar.cdf(y, logits), bar.cdf(y, LOGITS[None, None])),
        (bar.quantile(0.1, logits), bar.quantile(0.1, LOGITS[None, None])),
    ]:
        np.testing.assert_allclose(numpy(found), numpy(expected), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_computes_in_float32(dtype):
    bar, half = Bar(BORDERS), ops.cast(LOGITS[None, None], dtype)
    assert keras.backend.standardize_dtype(bar.parameters(half).dtype) == "float32"
    single = ops.cast(half, "float32")
    y = np.array([[0.1234567]])
    for found, expected in [
        (bar.log_prob(y, half), bar.log_prob(y, single)),
        (bar.cdf(y, half), bar.cdf(y, single)),
        (bar.mean(half), bar.mean(single)),
    ]:
        np.testing.assert_array_equal(numpy(found), numpy(expected))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(6000,), (20, 150, 2)])
def test_bars_of_labels_have_equal_mass(scale, shape):
    labels = scale * np.random.default_rng(0).gamma(2.0, size=shape)
    bar = Bar.from_labels(labels, num_bars=30)
    assert bar.raw_size == 30 and len(bar.borders) == 31
    counts = np.histogram(labels, bar.borders)[0]
    np.testing.assert_allclose(counts, 200, atol=1)
    assert bar.borders[0] == labels.min() and bar.borders[-1] == labels.max()


def test_equal_logits_are_the_distribution_of_the_labels():
    labels = np.random.default_rng(0).normal(size=100_000)
    bar = Bar.from_labels(labels, num_bars=50)
    prior = np.zeros((1, 1, 50))
    y = np.linspace(-2, 2, 2400)[:, None]
    expected = [(1 + math.erf(number / math.sqrt(2))) / 2 for number in y[:, 0]]
    np.testing.assert_allclose(numpy(bar.cdf(y, prior))[:, 0], expected, atol=0.01)


def test_config():
    bar = Bar([0.1, 1 / 3, 1.0, 7.0])
    config = keras.saving.serialize_keras_object(bar)
    restored = keras.saving.deserialize_keras_object(config)
    assert type(restored) is Bar
    assert restored.get_config() == {"borders": [0.1, 1 / 3, 1.0, 7.0]}
    assert restored.raw_size == bar.raw_size == 3


@pytest.mark.parametrize(
    "borders",
    [
        [0.0, 1.0, 2.0],
        [],
        0.0,
        [[0.0, 1.0, 2.0, 3.0]],
        [0.0, 1.0, 1.0, 2.0],
        [0.0, 2.0, 1.0, 3.0],
        [3.0, 2.0, 1.0, 0.0],
        [0.0, 1.0, 2.0, math.nan],
        [-math.inf, 0.0, 1.0, 2.0],
        [0.0, 1.0, 2.0, 1e39],
        [0.0, 1.0, 1.0 + 1e-9, 2.0],
    ],
)
def test_borders_that_are_few_or_not_finite_or_do_not_increase(borders):
    with pytest.raises(ValueError, match=r"(?s)`borders` must.*Received: borders="):
        Bar(borders)


@pytest.mark.parametrize(
    "labels", [np.zeros(100), np.arange(5.0).repeat(50), 1e10 + np.arange(100.0)]
)
def test_labels_that_do_not_differ_enough(labels):
    different = len(np.unique(labels))
    message = (
        rf"`labels` must differ enough for 10 bars. Received: {different} different "
        rf"labels of {labels.size}"
    )
    with pytest.raises(ValueError, match=message):
        Bar.from_labels(labels, num_bars=10)


@pytest.mark.parametrize("num_bars", [0, 2, 10.0, True])
def test_number_of_bars_out_of_range(num_bars):
    with pytest.raises(ValueError, match=r"`num_bars` must.*Received: num_bars="):
        Bar.from_labels(np.arange(100.0), num_bars)


@pytest.mark.parametrize("method", ["log_prob", "cdf", "quantile", "mean"])
@pytest.mark.parametrize("size", [4, 8])
def test_logits_of_other_bars(method, size):
    arguments = [] if method == "mean" else [np.full((5, 1), 0.5)]
    message = rf"6 logits on the last axis. Received.*\(5, 1, {size}\)"
    with pytest.raises(ValueError, match=message):
        getattr(Bar(BORDERS), method)(*arguments, np.zeros((5, 1, size)))
