import keras
import numpy as np
import pytest
from keras import ops
from layer_check import (
    check_half_precision_gradients,
    check_jit,
    check_layer,
    check_mask,
    slow_to_compile,
)

from keras_mtl.layers import ConcatConditioning

RNG = np.random.default_rng(0)
X, Z = RNG.normal(size=(10, 5)).astype("float32"), RNG.normal(size=(10, 2))
STEPS = RNG.normal(size=(10, 4, 5)).astype("float32")
IMAGE = RNG.normal(size=(10, 4, 3, 5)).astype("float32")


@pytest.mark.parametrize("x", [X, STEPS, IMAGE], ids=["dense", "sequence", "image"])
def test_layer(x):
    check_layer(ConcatConditioning, (x, Z))


def test_layer_with_a_descriptor_for_each_step():
    check_layer(ConcatConditioning, (STEPS, RNG.normal(size=(10, 4, 2))))


def test_mask():
    steps = STEPS.copy()
    steps[2:5, 1:] = 0
    check_mask(ConcatConditioning, (steps, Z))


class LinearOfBoth(keras.layers.Layer):
    """Has the weights to train that concatenation itself has not."""

    def build(self, x_shape, z_shape):
        self.concat, self.dense = ConcatConditioning(), keras.layers.Dense(3)
        self.dense.build((*x_shape[:-1], x_shape[-1] + z_shape[-1]))

    def call(self, x, z):
        return self.dense(self.concat(x, z))


@slow_to_compile
def test_jit():
    check_jit(LinearOfBoth, (STEPS, Z))


def test_half_precision():
    check_half_precision_gradients(LinearOfBoth, (STEPS, Z))


def test_the_descriptor_stands_behind_the_features_of_every_position():
    y = ops.convert_to_numpy(ConcatConditioning()(IMAGE, Z.astype("float32")))
    np.testing.assert_array_equal(y[..., :5], IMAGE)
    for h in range(4):
        for w in range(3):
            np.testing.assert_array_equal(y[:, h, w, 5:], Z.astype("float32"))


def test_one_descriptor_serves_the_whole_batch():
    z = Z[:1].astype("float32")
    y = ops.convert_to_numpy(ConcatConditioning()(X, z))
    np.testing.assert_array_equal(y[:, 5:], np.tile(z, (10, 1)))


def test_an_unknown_number_of_features_stays_unknown():
    x, z = keras.Input((None, None)), keras.Input((2,))
    assert ConcatConditioning()(x, z).shape == (None, None, None)


def test_refuses_an_index_for_a_descriptor():
    index = np.zeros((10, 1), "int32")
    with pytest.raises(ValueError, match=r"TaskEmbedding first"):
        ConcatConditioning()(X, index)
    with pytest.raises(ValueError, match=r"TaskEmbedding first"):
        ConcatConditioning()(keras.Input((5,)), keras.Input((1,), dtype="int32"))


def test_refuses_other_batches():
    with pytest.raises(ValueError, match=r"must be the first axes of the features"):
        ConcatConditioning()(X, Z[:3])
