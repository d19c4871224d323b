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

from keras_mtl.layers import AdditiveConditioning, ConcatConditioning

RNG = np.random.default_rng(0)
X, Z = RNG.normal(size=(10, 5)).astype("float32"), RNG.normal(size=(10, 2))
Z = Z.astype("float32")
STEPS = RNG.normal(size=(10, 4, 5)).astype("float32")
IMAGE = RNG.normal(size=(10, 4, 3, 5)).astype("float32")


@pytest.mark.parametrize("x, units", [(X, None), (STEPS, 6), (IMAGE, None)])
def test_layer(x, units):
    check_layer(lambda: AdditiveConditioning(units), (x, Z))


def test_layer_with_every_argument():
    def make():
        return AdditiveConditioning(
            6,
            use_bias=False,
            kernel_initializer="he_normal",
            descriptor_initializer=keras.initializers.RandomNormal(0.0, 0.1),
            kernel_regularizer="l2",
            descriptor_regularizer=keras.regularizers.L1(0.1),
        )

    check_layer(make, (STEPS, RNG.normal(size=(10, 4, 2))))


def test_mask():
    steps = STEPS.copy()
    steps[2:5, 1:] = 0
    check_mask(lambda: AdditiveConditioning(6), (steps, Z))


@slow_to_compile
def test_jit():
    check_jit(lambda: AdditiveConditioning(6), (STEPS, Z))


def test_half_precision():
    check_half_precision_gradients(lambda: AdditiveConditioning(6), (STEPS, Z))


@pytest.mark.parametrize("x", [X, STEPS, IMAGE], ids=["dense", "sequence", "image"])
def test_equals_concatenation_followed_by_a_linear_layer(x):
    """The lecture's fact, with the linear layer's weights split accordingly."""
    linear = keras.layers.Dense(6, bias_initializer="normal")
    expected = ops.convert_to_numpy(linear(ConcatConditioning()(x, Z)))
    kernel, bias = linear.get_weights()

    with_units = AdditiveConditioning(6)
    with_units(x, Z)
    with_units.kernel.assign(kernel[:5])
    with_units.descriptor_kernel.assign(kernel[5:])
    with_units.bias.assign(bias)
    y = ops.convert_to_numpy(with_units(x, Z))
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)

    of_x = keras.layers.Dense(6)
    of_x.build((None, 5))
    of_x.set_weights([kernel[:5], bias])
    alone = AdditiveConditioning()
    alone(of_x(x), Z)
    alone.set_weights([kernel[5:]])
    y = ops.convert_to_numpy(alone(of_x(x), Z))
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_it_is_linear_in_features_and_descriptor(scale):
    layer = AdditiveConditioning(6)
    y = ops.convert_to_numpy(layer(X, Z))
    scaled = ops.convert_to_numpy(layer(X * np.float32(scale), Z * np.float32(scale)))
    np.testing.assert_allclose(scaled, y * scale, rtol=1e-4, atol=1e-6 * scale)


def test_zeros_start_from_a_network_that_does_not_know_its_task():
    layer = AdditiveConditioning(descriptor_initializer="zeros")
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(X, Z)), X)


def test_without_units_there_is_one_variable():
    layer = AdditiveConditioning()
    layer(X, Z)
    assert [v.name for v in layer.weights] == ["descriptor_kernel"]
    assert layer.descriptor_kernel.shape == (2, 5)


def test_refuses_an_index_for_a_descriptor():
    with pytest.raises(ValueError, match=r"TaskEmbedding first"):
        AdditiveConditioning()(X, np.zeros(10, "int32"))
    with pytest.raises(ValueError, match=r"TaskEmbedding first"):
        AdditiveConditioning()(keras.Input((5,)), keras.Input((1,), dtype="int32"))


def test_refuses_features_of_unknown_size():
    with pytest.raises(
        ValueError, match=r"last axis of the features `x` must be known"
    ):
        AdditiveConditioning(6)(keras.Input((4, None)), keras.Input((2,)))


def test_refuses_units_below_one():
    with pytest.raises(ValueError, match=r"`units` must be a positive.*Received: 0"):
        AdditiveConditioning(0)
