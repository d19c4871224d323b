import keras
import numpy as np
import pytest

from keras_mtl.layers.wrapped_layer import call_with_mask, mask_after

X = np.ones((2, 4, 5), "float32")
MASK = np.array([[1, 1, 0, 0], [1, 1, 1, 0]], bool)


def sequential(*layers):
    return keras.Sequential([keras.Input((4, 5)), *layers])


@pytest.mark.parametrize(
    "make_layer, passes",
    [
        (lambda: keras.layers.Dense(3), True),
        (lambda: keras.layers.GRU(3, return_sequences=True), True),
        (lambda: keras.layers.GRU(3), False),
        (lambda: keras.layers.Conv1D(3, 1), False),
        (lambda: sequential(keras.layers.Dense(3)), True),
        (lambda: sequential(sequential(keras.layers.Dense(5))), True),
        (lambda: sequential(keras.layers.Conv1D(3, 1), keras.layers.ReLU()), False),
        (lambda: sequential(keras.layers.GRU(3)), False),
    ],
)
def test_the_mask_passes_where_the_layer_lets_it(make_layer, passes):
    layer = make_layer()
    layer(X)
    mask = mask_after(layer, X, MASK)
    assert (mask is MASK) if passes else mask is None


def test_without_a_mask_there_is_none_after():
    layer = keras.layers.Dense(3)
    layer(X)
    assert mask_after(layer, X, None) is None


def test_each_output_has_its_own_mask():
    inputs = keras.Input((4, 5))
    steps, last = keras.layers.ReLU()(inputs), keras.layers.GRU(3)(inputs)
    model = keras.Model(inputs, {"steps": steps, "last": last})
    assert mask_after(model, X, MASK) == {"steps": MASK, "last": None}
    assert mask_after(model, X, None) == {"steps": None, "last": None}


def test_a_layer_gets_the_mask_only_if_it_takes_one():
    pooled = call_with_mask(keras.layers.GlobalAveragePooling1D(), X, MASK)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(pooled), np.ones((2, 5)))
    assert call_with_mask(keras.layers.Dense(3), X, MASK).shape == (2, 4, 3)
