"""A network with weights of each task is that network, task by task."""

import keras
import numpy as np
import pytest
from keras import ops
from keras.layers import (
    Activation,
    AveragePooling2D,
    Dense,
    Flatten,
    GlobalAveragePooling2D,
    LayerNormalization,
    LeakyReLU,
    MaxPooling2D,
    Permute,
    PReLU,
    ReLU,
    Reshape,
)

from keras_mtl.learners import PatchConv2D
from keras_mtl.learners.networks_of_tasks import call_with_weights

IMAGE = (6, 5, 2)
NETWORKS = {
    "dense": lambda: [Flatten(), Dense(7, "tanh"), Dense(3)],
    "dense on axes": lambda: [Dense(4, use_bias=False), Permute((2, 1, 3)), Dense(3)],
    "convolutions": lambda: [
        PatchConv2D(4, 3, padding="same"),
        LeakyReLU(0.2),
        MaxPooling2D(2, data_format="channels_last"),
        PatchConv2D(5, 2, use_bias=False),
        Activation("gelu"),
        GlobalAveragePooling2D(data_format="channels_last"),
        Dense(3),
    ],
    "pools": lambda: [
        AveragePooling2D(2, data_format="channels_last"),
        ReLU(),
        Reshape((12,)),
        Dense(2),
    ],
    "any other": lambda: [Flatten(), Dense(7), LayerNormalization(), Dense(3)],
    "other activations": lambda: [
        Flatten(),
        Dense(7, activation=PReLU()),
        Activation(lambda x: x - ops.mean(x, axis=0, keepdims=True)),
        Dense(3, activation=lambda x: x / (1 + ops.max(ops.abs(x), axis=0))),
    ],
    "any convolution": lambda: [
        PatchConv2D(4, 3, activation="relu"),
        LayerNormalization(),
        Flatten(),
        Dense(3),
    ],
    "frozen": lambda: [Flatten(), Dense(7, trainable=False), Dense(3)],
}


def with_weights(layers):
    """Returns a network, weights for each of three tasks, and examples."""
    network = keras.Sequential([keras.Input(IMAGE), *layers])
    network(np.zeros((1, *IMAGE)))  # `PReLU` as an activation is built when called
    generator = np.random.default_rng(0)
    weights = [
        generator.normal(size=(3, *v.shape)).astype("float32")
        for v in network.trainable_variables
    ]
    return network, weights, generator.normal(size=(3, 4, *IMAGE)).astype("float32")


def check(network, weights, x, atol=1e-5):
    found = call_with_weights(network, [ops.convert_to_tensor(w) for w in weights], x)
    for task in range(3):
        for variable, weight in zip(network.trainable_variables, weights, strict=True):
            variable.assign(weight[task])
        np.testing.assert_allclose(
            ops.convert_to_numpy(ops.cast(found[task], "float32")),
            ops.convert_to_numpy(ops.cast(network(x[task]), "float32")),
            atol=atol,
        )
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_is_the_network_of_each_task(name):
    check(*with_weights(NETWORKS[name]()))


def test_half_precision():
    layers = [PatchConv2D(4, 3, dtype="mixed_bfloat16"), Dense(3, dtype="bfloat16")]
    found = check(*with_weights(layers), atol=0.1)
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"


def test_a_layer_that_stands_twice():
    shared = Dense(60, "tanh")
    check(*with_weights([Flatten(), shared, shared, Dense(3)]))


def test_a_frozen_bias():
    layers = [Flatten(), Dense(7), Dense(3)]
    network, _, x = with_weights(layers)
    layers[1].bias.trainable = False
    shapes = [v.shape for v in network.trainable_variables]
    assert len(shapes) == 3
    weights = [np.random.default_rng(0).normal(size=(3, *shape)) for shape in shapes]
    check(network, [w.astype("float32") for w in weights], x)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="elsewhere sizes are known"
)
@pytest.mark.parametrize("tasks", [1, 2])
def test_batches_of_unknown_size(tasks):
    """One task among them: see `for_each_task`."""
    import tensorflow as tf

    layers = [keras.layers.Conv2D(4, 3, data_format="channels_last"), Flatten()]
    network, weights, x = with_weights(layers)
    bias = tf.constant(weights[1][:tasks])

    def slope(bias, x):
        with tf.GradientTape() as tape:
            tape.watch(bias)
            kernels = tf.constant(weights[0])[: tf.shape(bias)[0]]
            value = tf.reduce_sum(call_with_weights(network, [kernels, bias], x) ** 2)
        return tape.gradient(value, bias)

    signature = [tf.TensorSpec((None, 4)), tf.TensorSpec((None, None, *IMAGE))]
    found = tf.function(slope, input_signature=signature)(bias, x[:tasks])
    for task in range(tasks):
        outputs = tf.nn.conv2d(x[task], weights[0][task], 1, "VALID") + bias[task]
        expected = 2 * tf.reduce_sum(outputs, axis=(0, 1, 2))
        np.testing.assert_allclose(found[task], expected, rtol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of its XLA")
def test_no_function_stands_between_batches_of_unknown_size_and_xla():
    """What is behind one is compiled anew for each batch; see `call_with_weights`."""
    import tensorflow as tf

    network, weights, _ = with_weights(NETWORKS["convolutions"]())

    def slopes(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            copies = [tf.repeat(w[:1], tf.shape(x)[0], axis=0) for w in weights]
            value = tf.reduce_sum(call_with_weights(network, copies, x))
        return tape.gradient(value, x)

    compiled = tf.function(slopes, jit_compile=True)
    graph = compiled.get_concrete_function(tf.TensorSpec((None, None, *IMAGE))).graph
    kinds = {operation.type for operation in graph.get_operations()}
    assert "BatchMatMulV2" in kinds
    assert not [kind for kind in kinds if "Call" in kind]
