import keras
import numpy as np
import pytest
from built_learner import to_numpy

from keras_mtl.learners import ConvolutionalEncoder, conv4
from keras_mtl.learners.channel_normalization import BatchMoments, SupportMoments

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 5, 8, 8, 1)).astype("float32")
SUPPORT, QUERY = IMAGES[:, :3], IMAGES[:, 3:]
THERE = np.ones((2, 3), bool)


def make(**kwargs):
    return ConvolutionalEncoder(**{"filters": 4, "blocks": 2, "groups": 2, **kwargs})


def encoded(encoder, x, **kwargs):
    return to_numpy(encoder(x, **kwargs))


@pytest.mark.parametrize("pool", ["max", "stride"])
def test_each_block_halves_the_image(pool):
    assert encoded(make(pool=pool), IMAGES[0]).shape == (5, 2 * 2 * 4)
    assert encoded(make(pool=pool, embedding_dim=3), IMAGES[0]).shape == (5, 3)


def test_conv4_makes_64_numbers_of_28_pixels():
    assert encoded(conv4(norm="none"), np.zeros((1, 28, 28), "uint8")).shape == (1, 64)


@pytest.mark.parametrize("convolution", ["direct", "patches"])
@pytest.mark.parametrize("pool", ["max", "stride"])
def test_ways_to_convolve(convolution, pool, tmp_path):
    """Have the same results, also of a file of weights of each other."""
    encoders = [
        make(pool=pool, norm="none"),
        make(pool=pool, norm="none", convolution=convolution),
    ]
    assert encoders[1].get_config()["convolution"] == convolution
    models = [
        keras.Sequential([keras.Input(IMAGES.shape[2:]), encoder])
        for encoder in encoders
    ]
    models[0].save_weights(tmp_path / "one.weights.h5")
    models[1].load_weights(tmp_path / "one.weights.h5")
    expected, found = (encoded(model, IMAGES[0]) for model in models)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_grey_images_need_no_channel_and_integers_are_rescaled():
    pixels = RNG.integers(0, 256, size=(2, 8, 8)).astype("uint8")
    encoder = make(rescale=1 / 255)
    given = encoded(encoder, pixels)
    np.testing.assert_allclose(given, encoded(encoder, pixels[..., None]))
    plain = make()
    plain(IMAGES[0])
    plain.set_weights(encoder.get_weights())
    floats = (pixels[..., None] / 255).astype("float32")
    np.testing.assert_allclose(given, encoded(plain, floats), atol=1e-5)


@pytest.mark.parametrize("norm", ["group", "layer", "none", "batch"])
def test_an_image_does_not_see_the_others(norm):
    encoder = make(norm=norm)
    every = encoded(encoder, IMAGES[0])
    np.testing.assert_allclose(every[2:3], encoded(encoder, IMAGES[0, 2:3]), atol=1e-5)


def test_in_training_batch_moments_are_of_all_images():
    encoder = make(norm="batch")
    every = encoded(encoder, IMAGES[0], training=True)
    alone = encoded(encoder, IMAGES[0, 2:3], training=True)
    assert np.abs(every[2:3] - alone).max() > 1e-3


@pytest.mark.parametrize("norm, groups", [("group", 2), ("layer", 1)])
def test_group_moments_against_numpy(norm, groups):
    encoder = make(norm=norm, blocks=1)
    given = encoded(encoder, IMAGES[0])
    x = to_numpy(encoder.convolutions[0](IMAGES[0])).reshape(5, 64, groups, -1)
    mean = x.mean((1, 3), keepdims=True)
    x = (x - mean) / np.sqrt(x.var((1, 3), keepdims=True) + 1e-3)
    x = np.maximum(x.reshape(5, 4, 2, 4, 2, 4), 0).max((2, 4))
    np.testing.assert_allclose(given, x.reshape(5, -1), atol=1e-4)


def test_support_moments_against_numpy():
    layer = SupportMoments()
    mask = np.array([[1, 1, 0], [1, 1, 1]], bool)
    moments = layer.adapt(SUPPORT, mask)
    layer.gamma.assign([-2.0])  # as 2.0
    layer.beta.assign([0.5])
    images = QUERY.reshape(4, *QUERY.shape[2:])
    found = to_numpy(layer.of_images(images, moments, 2))
    for task in range(2):
        there = SUPPORT[task, mask[task]]
        mean, root = there.mean(), np.sqrt(there.var() + 1e-3)
        for image in range(2):
            x = QUERY[task, image]
            np.testing.assert_allclose(
                found[2 * task + image],
                2 * (x - mean) / root + 0.5,
                atol=1e-5,
            )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_running_averages_are_float32_under_any_policy(dtype):
    images = (300 * RNG.normal(size=(6, 4, 4, 3))).astype("float32")
    layer = BatchMoments(dtype=dtype, momentum=0.0)
    assert layer(images, training=True).shape == images.shape
    found = to_numpy(layer.moving_variance)
    np.testing.assert_allclose(found, images.var((0, 1, 2)), rtol=0.02)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_batch_moments_are_those_of_keras(dtype):
    """In training and after it, and so are the running averages."""
    images = (5 + 3 * RNG.normal(size=(6, 4, 4, 3))).astype("float32")
    ours = BatchMoments(dtype=dtype)
    keras_own = keras.layers.BatchNormalization(momentum=0.9)
    for layer in (ours, keras_own):
        layer.build(images.shape)
        layer.gamma.assign([1.0, 2.0, 0.5])
        layer.beta.assign([0.0, 1.0, -1.0])
    for training in (True, True, False):
        found = to_numpy(ours(images, training=training))
        expected = to_numpy(keras_own(images, training=training))
        np.testing.assert_allclose(found, expected, atol=1e-4)
    for name in ("moving_mean", "moving_variance"):
        found, expected = (to_numpy(getattr(x, name)) for x in (ours, keras_own))
        np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["group", "layer", "batch"])
def test_pooling_before_the_normalisation_changes_nothing(norm, training):
    encoder = make(norm=norm, blocks=1)
    encoder(IMAGES[0])
    encoder.norms[0].gamma.assign([-1.0, 0.5, 2.0, -0.1])
    mode = {"training": training} if norm == "batch" else {}
    x = to_numpy(encoder.norms[0](encoder.convolutions[0](IMAGES[0]), **mode))
    expected = np.maximum(x.reshape(5, 4, 2, 4, 2, 4).max((2, 4)), 0).reshape(5, -1)
    found = encoded(encoder, IMAGES[0], training=training)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_batch_moments_against_numpy(scale):
    """Also of one number, whose variance is 0."""
    for images in (RNG.normal(size=(6, 4, 4, 3)) + 2, np.ones((1, 1, 1, 3))):
        images = (scale * images).astype("float32")
        layer = BatchMoments(momentum=0.0)
        found = to_numpy(layer(images, training=True))
        x = images.astype("float64")
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        root = np.sqrt(variance + 1e-3)
        # A factor and a shift are rounded as numbers of the size of mean / root.
        np.testing.assert_allclose(
            found, (x - mean) / root, atol=2e-6 * np.max(np.abs(mean) / root)
        )
        np.testing.assert_allclose(to_numpy(layer.moving_mean), mean, rtol=1e-5)
        found = to_numpy(layer.moving_variance)
        np.testing.assert_allclose(found, variance, rtol=1e-4)


def test_queries_see_the_support_and_no_queries():
    encoder = make(norm="support")
    _, state = encoder.adapt(SUPPORT, THERE)
    every = to_numpy(encoder.encode(state, QUERY))
    alone = to_numpy(encoder.encode(state, QUERY[:, :1]))
    np.testing.assert_allclose(every[:, :1], alone, atol=1e-5)
    _, other = encoder.adapt(3 * SUPPORT + 1, THERE)
    assert np.abs(to_numpy(encoder.encode(other, QUERY)) - every).max() > 1e-2


def test_the_support_is_encoded_as_a_query_would_be():
    encoder = make(norm="support")
    vectors, state = encoder.adapt(SUPPORT, THERE)
    again = encoder.encode(state, SUPPORT)
    np.testing.assert_allclose(to_numpy(vectors), to_numpy(again), atol=1e-5)


def test_images_that_are_not_there_change_no_moments():
    encoder = make(norm="support")
    _, state = encoder.adapt(SUPPORT, THERE)
    padded = np.concatenate([SUPPORT, 100 * QUERY], 1)
    mask = np.concatenate([THERE, np.zeros((2, 2), bool)], 1)
    _, other = encoder.adapt(padded, mask)
    for one, two in zip(
        keras.tree.flatten(state), keras.tree.flatten(other), strict=True
    ):
        np.testing.assert_allclose(to_numpy(one), to_numpy(two), atol=1e-4)


def test_support_moments_need_a_support():
    with pytest.raises(ValueError, match="images alone"):
        make(norm="support")(IMAGES[0])


def test_config_makes_the_same_encoder():
    encoder = make(norm="layer", pool="stride", embedding_dim=3, rescale=0.5)
    again = ConvolutionalEncoder.from_config(encoder.get_config())
    assert again.get_config() == encoder.get_config()
