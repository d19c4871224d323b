"""Small models and data that the tests of `MultiTaskModel` share."""

import keras
import numpy as np
from keras import ops

from keras_mtl import MultiTaskModel

LOSSES = {"a": "mse", "b": "binary_crossentropy"}
FEATURES = 4

EAGER = keras.backend.backend() != "jax"
"""`run_eagerly` for small tests: on TensorFlow it is compiling that takes the time,
on JAX it is running op by op."""

IN_A_GRAPH = {"run_eagerly": False}


def network(extra=(), regularizer=None, width=8):
    """Inputs and outputs of a trunk with a linear and a sigmoid head.

    Args:
        extra: Layers between trunk and heads.
        regularizer: Of the trunk's kernel.
        width: Of the trunk.
    """
    inputs = keras.Input((FEATURES,), name="x")
    h = keras.layers.Dense(width, "tanh", kernel_regularizer=regularizer, name="trunk")(
        inputs
    )
    for layer in extra:
        h = layer(h)
    outputs = {
        "a": keras.layers.Dense(1, name="head_a")(h),
        "b": keras.layers.Dense(1, "sigmoid", name="head_b")(h),
    }
    return inputs, outputs


def two_tasks(**kwargs):
    """A functional model of the tasks "a" (regression) and "b" (binary)."""
    return MultiTaskModel(*network(**kwargs))


def compiled(model=None, **kwargs):
    """The model, by default `two_tasks()`, compiled with SGD and `LOSSES`.

    It runs eagerly where that is faster: `**IN_A_GRAPH` where the graph matters.
    """
    model = two_tasks() if model is None else model
    arguments = {"optimizer": keras.optimizers.SGD(0.1), "loss": LOSSES}
    model.compile(**{**arguments, "run_eagerly": EAGER, **kwargs})
    return model


def data(rows=48, seed=0):
    """Inputs, and labels of both tasks that depend on them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, FEATURES)).astype("float32")
    noise = rng.normal(size=rows).astype("float32")
    return x, {
        "a": (x[:, :1] - 2 * x[:, 1:2]).astype("float32"),
        "b": (x[:, 2] + 0.3 * noise > 0).astype("float32")[:, None],
    }


def conditioned(tasks=("a", "b", "c")):
    """A model of one output that is conditioned on the task of each row."""
    x = keras.Input((FEATURES,), name="x")
    task = keras.Input((), dtype="int32", name="task")
    h = keras.layers.Dense(8, "tanh", name="trunk")(x)
    z = keras.layers.Embedding(len(tasks), 4, name="embedding")(task)
    y = keras.layers.Dense(1, name="head")(keras.layers.Concatenate()([h, z]))
    return MultiTaskModel(
        {"x": x, "task": task}, y, task_names=tasks, task_input="task"
    )


def conditioned_data(rows=48, tasks=3, seed=0):
    """Inputs and labels of `conditioned`, whose rows belong to random tasks."""
    x, y = data(rows, seed)
    task = np.random.default_rng(seed).integers(0, tasks, rows).astype("int32")
    return {"x": x, "task": task}, y["a"] + task[:, None]


@keras.saving.register_keras_serializable("keras_mtl_tests")
class TwoHeads(MultiTaskModel):
    """The model of `two_tasks` as a subclass with a `call` of its own."""

    def __init__(self, width=8, **kwargs):
        super().__init__(task_names=["a", "b"], **kwargs)
        self.width = width
        self.trunk = keras.layers.Dense(width, "tanh")
        self.head_a = keras.layers.Dense(1)
        self.head_b = keras.layers.Dense(1, "sigmoid")

    def call(self, x, training=False):
        h = self.trunk(x)
        return {"a": self.head_a(h), "b": self.head_b(h)}

    def layer_tasks(self):
        return [
            (self.trunk, ("a", "b")),
            (self.head_a, ("a",)),
            (self.head_b, ("b",)),
        ]

    def get_config(self):
        return {"name": self.name, "width": self.width}


@keras.saving.register_keras_serializable("keras_mtl_tests")
class Scaled(MultiTaskModel):
    """A subclass that is functional: its constructor draws the graph."""

    def __init__(self, width=8, **kwargs):
        super().__init__(*network(width=width), **kwargs)
        self.width = width

    def get_config(self):
        return {"name": self.name, "width": self.width}


@keras.saving.register_keras_serializable("keras_mtl_tests")
class CallCounter(keras.layers.Layer):
    """Passes its input on and counts how often Python runs its `call`."""

    calls = 0

    def call(self, x):
        type(self).calls += 1
        return x

    @classmethod
    def reset(cls):
        cls.calls = 0


def copy_weights(source, target):
    """Gives the layers of `target` the weights of the same layers of `source`."""
    for one, other in zip(source.layers, target.layers, strict=True):
        other.set_weights(one.get_weights())


def layer_weights(model):
    """All weights of the model's layers as arrays, without the weighting's."""
    return [w for layer in model.layers for w in layer.get_weights()]


def state(model):
    """All variables of the model and of its optimizer as arrays."""
    variables = [*model.variables, *model.optimizer.variables]
    return [ops.convert_to_numpy(v) for v in variables]


def assert_close(one, other, tolerance=1e-6):
    """Asserts that two lists of arrays, or two dicts of numbers, are equal."""
    if isinstance(one, dict):
        assert sorted(one) == sorted(other)
        keys = sorted(one)
        one, other = [one[k] for k in keys], [other[k] for k in keys]
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)
