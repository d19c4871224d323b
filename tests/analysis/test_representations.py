"""How alike the representations of two networks are."""

import keras
import numpy as np
import pytest
from probed_models import data, two_layers

from keras_mtl.analysis import linear_cka
from keras_mtl.analysis.representations import alignment, centred_kernels

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 5))


def test_the_formula():
    y = RNG.normal(size=(40, 3))
    a, b = X - X.mean(0), y - y.mean(0)
    norm = np.linalg.norm
    expected = norm(a.T @ b) ** 2 / (norm(a.T @ a) * norm(b.T @ b))
    np.testing.assert_allclose(linear_cka(X, y), expected)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_rotations_shifts_and_factors_change_nothing(scale):
    rotation = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
    np.testing.assert_allclose(linear_cka(X, scale * (X @ rotation + 7)), 1.0)


def test_what_is_uncorrelated_has_none():
    columns = np.linalg.qr(X - X.mean(0))[0]
    assert abs(linear_cka(columns[:, :2], columns[:, 2:])) < 1e-12
    assert np.isnan(linear_cka(X, np.ones((40, 2))))


def test_other_rows_are_an_error():
    with pytest.raises(ValueError, match=r"same rows.*\(40, 5\) and \(39, 5\)"):
        linear_cka(X, X[1:])


def test_layers_of_a_model():
    """Of each innermost layer with variables, what the model makes of some rows."""
    model = two_layers()
    x, _ = data()
    kernels = centred_kernels(model, x, 10)
    assert sorted(kernels) == [f"kernel_{i}" for i in range(5)]
    lower = keras.Model(model.input, model.get_layer("lower").output)
    features = keras.ops.convert_to_numpy(lower(x[:10]))
    again = features - features.mean(0)
    np.testing.assert_allclose(
        alignment(kernels["kernel_0"], again @ again.T), 1.0, rtol=1e-5
    )
