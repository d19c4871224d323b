"""Products of patches and kernels are convolutions."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_mtl import MetaModel, learners

CASES = [
    {"kernel_size": 3},
    {"kernel_size": 3, "strides": 2},
    {"kernel_size": 3, "strides": 2, "padding": "same"},
    {"kernel_size": (2, 5), "strides": (3, 1), "padding": "same"},
    {"kernel_size": (4, 1), "padding": "same", "activation": "relu"},
    {"kernel_size": 3, "dilation_rate": 2, "padding": "same", "use_bias": False},
    {"kernel_size": (1, 2), "dilation_rate": (1, 3)},
]


def both(arguments):
    """Returns a convolution as patches and one of Keras, with the same weights."""
    plain = keras.layers.Conv2D(6, data_format="channels_last", **arguments)
    patches = learners.PatchConv2D(6, **arguments)
    for layer in (plain, patches):
        layer.build((None, 9, 8, 3))
    patches.set_weights(plain.get_weights())
    return plain, patches


def images(count=4):
    x = np.random.default_rng(0).normal(size=(count, 9, 8, 3))
    return x.astype("float32")


@pytest.mark.parametrize("arguments", CASES, ids=str)
def test_is_the_convolution(arguments):
    plain, patches = both(arguments)
    expected, found = plain(images()), patches(images())
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), ops.convert_to_numpy(expected), atol=1e-5
    )
    assert tuple(found.shape[1:]) == patches.compute_output_shape((None, 9, 8, 3))[1:]


def test_trains_like_the_convolution():
    targets = np.random.default_rng(1).normal(size=(4, 6)).astype("float32")
    trained = []
    for layer in both({"kernel_size": 3, "strides": 2, "padding": "same"}):
        model = keras.Sequential([layer, keras.layers.GlobalAveragePooling2D()])
        model.compile(keras.optimizers.SGD(0.1), loss="mse")
        model.fit(images(), targets, epochs=3, shuffle=False, verbose=0)
        trained.append(layer.get_weights())
    for expected, found in zip(*trained, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def network(convolution):
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            convolution(4, 3, strides=2, padding="same", activation="tanh"),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )


def test_maml_of_patches_has_a_kernel_a_task():
    """Against a task alone, and where Keras can, against its own convolution."""
    x = np.random.default_rng(0).normal(size=(3, 4, 6, 6, 1)).astype("float32")
    y = np.array([[0, 1, 0, 1], [1, 0, 1, 0], [1, 1, 0, 0]])
    models = [
        MetaModel(learners.MAML(ways=2, network=network(kind), inner_steps=2))
        for kind in (learners.PatchConv2D, keras.layers.Conv2D)
    ]
    patches, plain = models
    together = patches.predict_query(patches.adapt(x, y), x)
    for task in range(3):
        alone = patches.predict_query(patches.adapt(x[task], y[task]), x[task])
        np.testing.assert_allclose(together[task], alone, atol=1e-5)
    assert np.ptp(together, axis=0).max() > 1e-2  # tasks differ
    if keras.backend.backend() != "torch":
        plain.adapt(x, y)
        plain.set_weights(patches.get_weights())
        found = plain.predict_query(plain.adapt(x, y), x)
        np.testing.assert_allclose(together, found, atol=1e-5)


def test_half_precision():
    layer = learners.PatchConv2D(6, 3, dtype="mixed_bfloat16")
    assert keras.backend.standardize_dtype(layer(images()).dtype) == "bfloat16"


def test_is_restored():
    layer = learners.PatchConv2D(6, (3, 2), strides=2, padding="same")
    other = learners.PatchConv2D.from_config(layer.get_config())
    assert other.get_config() == layer.get_config()


@pytest.mark.parametrize(
    "arguments", [{"data_format": "channels_first"}, {"groups": 3}]
)
def test_what_it_is_not_for(arguments):
    with pytest.raises(ValueError, match="Received: data_format"):
        learners.PatchConv2D(6, 3, **arguments)


def test_sizes_must_be_known():
    layer = learners.PatchConv2D(6, 3)
    layer.build((None, None, None, 3))
    with pytest.raises(ValueError, match="known height and width"):
        layer.convolution_op(keras.Input((None, None, 3)), layer.kernel)


def test_images_smaller_than_the_kernel():
    layer = learners.PatchConv2D(6, 3, strides=2)
    layer.build((None, None, None, 3))
    with pytest.raises(ValueError, match="as large as the kernel"):
        layer(np.zeros((1, 2, 5, 3)))
