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

from keras_mtl.layers import FiLM, MultiHead, TaskGating

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(10, 2)).astype("float32")
X = RNG.normal(size=(10, 5)).astype("float32")
STEPS = RNG.normal(size=(10, 4, 5)).astype("float32")
IMAGE = RNG.normal(size=(10, 4, 3, 5)).astype("float32")
INDEX = np.arange(10) % 3
ONE_HOT = np.eye(3, dtype="float32")[INDEX]


def to_numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("x, axis", [(X, -1), (STEPS, -1), (IMAGE, 1)])
def test_layer(x, axis):
    check_layer(lambda: FiLM(axis), (x, Z))


def test_layer_with_every_argument():
    def make():
        return FiLM(
            use_bias=False,
            kernel_initializer="glorot_normal",
            bias_initializer="ones",
            kernel_regularizer="l2",
        )

    check_layer(make, (STEPS, RNG.normal(size=(10, 4, 2))))


def test_mask():
    steps = STEPS.copy()
    steps[2:5, 1:] = 0
    check_mask(FiLM, (steps, Z))


@slow_to_compile
def test_jit():
    check_jit(FiLM, (IMAGE, Z))


def test_half_precision():
    check_half_precision_gradients(FiLM, (IMAGE, Z))


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
@pytest.mark.parametrize("x", [X, STEPS, IMAGE], ids=["dense", "sequence", "image"])
def test_it_starts_as_the_identity(x, scale):
    x = x * np.float32(scale)
    np.testing.assert_array_equal(to_numpy(FiLM()(x, Z)), x)


@pytest.mark.parametrize(
    "x, axis",
    [(X, -1), (STEPS, -1), (STEPS, 1), (IMAGE, 1), (IMAGE, 2), (IMAGE, 3)],
)
def test_formula(x, axis):
    layer = FiLM(axis, kernel_initializer="normal", bias_initializer="normal")
    y = to_numpy(layer(x, Z))
    gamma = Z @ to_numpy(layer.gamma.kernel) + to_numpy(layer.gamma.bias)
    beta = Z @ to_numpy(layer.beta.kernel) + to_numpy(layer.beta.bias)
    features_last = np.moveaxis(x, axis, -1)
    inner = (10,) + (1,) * (x.ndim - 2) + (-1,)
    expected = (1 + gamma.reshape(inner)) * features_last + beta.reshape(inner)
    np.testing.assert_allclose(np.moveaxis(y, axis, -1), expected, rtol=1e-5, atol=1e-6)


def test_channels_first_equals_channels_last():
    last, first = FiLM(-1), FiLM(1)
    moved = np.moveaxis(IMAGE, -1, 1)
    last(IMAGE, Z), first(moved, Z)
    last.set_weights([RNG.normal(size=w.shape) for w in last.get_weights()])
    first.set_weights(last.get_weights())
    np.testing.assert_allclose(
        np.moveaxis(to_numpy(first(moved, Z)), 1, -1),
        to_numpy(last(IMAGE, Z)),
        rtol=1e-6,
    )


def test_gamma_and_beta_are_drawn_independently():
    layer = FiLM(kernel_initializer="glorot_uniform")
    layer(X, Z)
    assert (to_numpy(layer.gamma.kernel) != to_numpy(layer.beta.kernel)).all()


def select_own_block(size):
    """A FiLM over T blocks of `size` features that keeps the row's block alone.

    With z one-hot, 1 + gamma is 1 on the block of the task and 0 on the others.
    """
    layer = FiLM(use_bias=False)
    layer.build((None, 3 * size), (None, 3))
    layer.gamma.kernel.assign(np.kron(np.eye(3) - 1.0, np.ones((1, size))))
    return layer


def test_it_can_express_gating():
    """Independent networks side by side, FiLM, and the sum over the blocks."""
    gating = TaskGating(
        [
            keras.Sequential(
                [keras.layers.Dense(7, "tanh"), keras.layers.Dense(4, "sigmoid")]
            )
            for _ in range(3)
        ]
    )
    expected = to_numpy(gating(X, INDEX))
    blocks = ops.concatenate([network(X) for network in gating.networks], axis=-1)
    own = to_numpy(select_own_block(4)(blocks, ONE_HOT))
    np.testing.assert_allclose(own.reshape(10, 3, 4).sum(1), expected, atol=1e-6)


def test_it_can_express_heads():
    """One linear layer that holds all heads, FiLM, and the sum over the blocks."""
    heads = MultiHead(2, ["a", "b", "c"], bias_initializer="normal")
    outputs = heads(X)
    expected = np.stack([to_numpy(outputs["abc"[t]])[i] for i, t in enumerate(INDEX)])

    all_heads = keras.layers.Dense(6)
    all_heads.build((None, 5))
    kernel = to_numpy(heads.kernels[0])  # (T, D, units)
    all_heads.set_weights(
        [kernel.transpose(1, 0, 2).reshape(5, 6), to_numpy(heads.biases[0]).reshape(6)]
    )
    own = to_numpy(select_own_block(2)(all_heads(X), ONE_HOT))
    np.testing.assert_allclose(own.reshape(10, 3, 2).sum(1), expected, atol=1e-6)


def test_it_can_express_additive_conditioning():
    film = FiLM(use_bias=False)
    film(X, Z)
    shift = RNG.normal(size=(2, 5)).astype("float32")
    film.beta.kernel.assign(shift)
    np.testing.assert_allclose(to_numpy(film(X, Z)), X + Z @ shift, atol=1e-6)


def test_refuses_an_index_for_a_descriptor():
    with pytest.raises(ValueError, match=r"TaskEmbedding first"):
        FiLM()(X, np.zeros(10, "int32"))
    with pytest.raises(ValueError, match=r"TaskEmbedding first"):
        FiLM()(keras.Input((5,)), keras.Input((1,), dtype="int32"))


@pytest.mark.parametrize("axis", [0, 2, -2, -3])
def test_refuses_an_axis_that_holds_no_features(axis):
    with pytest.raises(ValueError, match=f"`axis` must be.*Received: axis={axis}"):
        FiLM(axis)(X, Z)


def test_refuses_a_descriptor_for_each_step_when_the_features_are_not_last():
    with pytest.raises(ValueError, match=r"needs the features on the last axis"):
        FiLM(1)(STEPS, np.zeros((10, 4, 2), "float32"))


def test_refuses_features_of_unknown_size():
    with pytest.raises(ValueError, match=r"holds the features and must be known"):
        FiLM()(keras.Input((4, None)), keras.Input((2,)))
