"""Models and data that the tests of measuring callbacks share."""

import keras
import numpy as np

import keras_mtl

NAMES = ["a", "b", "c"]
ROWS = 24


def data(seed=0, names=NAMES):
    """Inputs `(rows, 4)` and labels of linear tasks."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(ROWS, 4)).astype("float32")
    return x, {
        name: (x @ generator.normal(size=(4, 1))).astype("float32") for name in names
    }


def two_layers(names=NAMES, extra=()):
    """Two shared layers and a head for each task."""
    inputs = keras.Input((4,))
    h = keras.layers.Dense(6, "tanh", name="lower")(inputs)
    for layer in extra:
        h = layer(h)
    h = keras.layers.Dense(5, "tanh", name="upper")(h)
    heads = {n: keras.layers.Dense(1, name=f"head_{n}")(h) for n in names}
    return keras_mtl.MultiTaskModel(inputs, heads)


def linear(names=("a", "b")):
    """A shared linear layer of two units, and a linear head for each task."""
    inputs = keras.Input((4,))
    h = keras.layers.Dense(2, use_bias=False, name="trunk")(inputs)
    heads = {n: keras.layers.Dense(1, use_bias=False, name=n)(h) for n in names}
    return keras_mtl.MultiTaskModel(inputs, heads)


def losses_by_hand(trunk, heads, x, y):
    """Mean squared errors of the linear model, in float64."""
    return np.array([((x @ trunk @ heads[n] - y[n]) ** 2).mean() for n in y])


def gradients_by_hand(trunk, heads, x, y):
    """Their gradients by the trunk, `(T, 4, 2)`."""
    found = []
    for name, labels in y.items():
        residual = x @ trunk @ heads[name] - labels
        found.append(2 / len(x) * x.T @ residual @ heads[name].T)
    return np.stack(found)


def as_float64(model, x, y):
    """Weights of the linear model and its data, in float64."""
    trunk = keras.ops.convert_to_numpy(model.get_layer("trunk").kernel)
    heads = {n: keras.ops.convert_to_numpy(model.get_layer(n).kernel) for n in y}
    y = {name: labels.astype("float64") for name, labels in y.items()}
    return trunk.astype("float64"), heads, x.astype("float64"), y
