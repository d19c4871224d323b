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

from keras_mtl.layers import ConditionalBatchNormalization, FiLM

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(10, 2)).astype("float32")
X = RNG.normal(3.0, 2.0, size=(10, 5)).astype("float32")
STEPS = RNG.normal(size=(10, 4, 5)).astype("float32")
IMAGE = RNG.normal(size=(10, 4, 3, 5)).astype("float32")


def to_numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("x, axis", [(X, -1), (STEPS, -1), (IMAGE, 1)])
def test_layer(x, axis):
    check_layer(lambda: ConditionalBatchNormalization(axis), (x, Z))


def test_layer_with_every_argument():
    def make():
        return ConditionalBatchNormalization(
            momentum=0.5,
            epsilon=1e-5,
            use_bias=False,
            kernel_initializer="normal",
            bias_initializer="ones",
            kernel_regularizer="l2",
        )

    check_layer(make, (X, Z))


def test_mask():
    steps = STEPS.copy()
    steps[2:5, 1:] = 0
    check_mask(ConditionalBatchNormalization, (steps, Z))


@slow_to_compile
def test_jit():
    check_jit(ConditionalBatchNormalization, (X, Z))


def test_half_precision():
    check_half_precision_gradients(ConditionalBatchNormalization, (X, Z))


@pytest.mark.parametrize("training", [True, False])
def test_it_starts_as_batch_normalization(training):
    plain = keras.layers.BatchNormalization()
    expected = to_numpy(plain(X, training=training))
    layer = ConditionalBatchNormalization()
    y = to_numpy(layer(X, Z, training=training))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    for moving in ("moving_mean", "moving_variance"):
        np.testing.assert_allclose(
            to_numpy(getattr(layer.normalization, moving)),
            to_numpy(getattr(plain, moving)),
            rtol=1e-5,
        )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_in_training_the_scale_of_the_features_does_not_matter(scale):
    layer = ConditionalBatchNormalization(epsilon=1e-12)
    y = to_numpy(layer(X, Z, training=True))
    scaled = to_numpy(layer(X * np.float32(scale), Z, training=True))
    np.testing.assert_allclose(scaled, y, rtol=1e-3, atol=1e-3)


def test_it_is_normalization_followed_by_film():
    layer = ConditionalBatchNormalization(kernel_initializer="normal")
    y = to_numpy(layer(X, Z, training=True))
    film = FiLM()
    film.build((None, 5), (None, 2))
    film.set_weights(layer.affine.get_weights())
    normalized = (X - X.mean(0)) / np.sqrt(X.var(0) + 1e-3)
    np.testing.assert_allclose(y, to_numpy(film(normalized, Z)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("explicit", [True, False])
def test_masked_steps_do_not_enter_the_statistics(explicit):
    steps = STEPS.copy()
    steps[:, 2:] = 0
    layer = ConditionalBatchNormalization(momentum=0.0)
    if explicit:
        layer(steps, Z, training=True, x_mask=(steps != 0).any(-1))
    else:
        layer(keras.layers.Masking()(steps), Z, training=True)
    np.testing.assert_allclose(
        to_numpy(layer.normalization.moving_mean),
        steps[:, :2].mean((0, 1)),
        rtol=1e-4,
        atol=1e-6,
    )


def test_frozen_it_uses_the_moving_statistics():
    layer = ConditionalBatchNormalization()
    layer.trainable = False
    y = to_numpy(layer(X, Z, training=True))
    np.testing.assert_allclose(y, X / np.sqrt(1 + 1e-3), rtol=1e-5)
    assert not layer.trainable_variables


def test_refuses_an_index_for_a_descriptor():
    with pytest.raises(ValueError, match=r"TaskEmbedding first"):
        ConditionalBatchNormalization()(X, np.zeros(10, "int32"))
    with pytest.raises(ValueError, match=r"TaskEmbedding first"):
        ConditionalBatchNormalization()(
            keras.Input((5,)), keras.Input((1,), dtype="int32")
        )


def test_refuses_an_axis_that_holds_no_features():
    with pytest.raises(ValueError, match=r"`axis` must be.*Received: axis=2"):
        ConditionalBatchNormalization(2)(X, Z)
