"""Models and data that the tests of steps with an aggregator share."""

import keras
import numpy as np
from keras import ops

import keras_mtl

EAGER = keras.backend.backend() != "jax"
NAMES = ["a", "b", "c"]
ROWS = 24


def data(seed=0):
    """Inputs `(rows, 4)` and labels of three linear tasks."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(ROWS, 4)).astype("float32")
    weights = generator.normal(size=(3, 4, 1))
    return x, {
        n: (x @ w).astype("float32") for n, w in zip(NAMES, weights, strict=True)
    }


def separate_heads(extra=(), regularizer=None):
    inputs = keras.Input((4,))
    h = keras.layers.Dense(8, "tanh", kernel_regularizer=regularizer)(inputs)
    for layer in extra:
        h = layer(h)
    heads = {n: keras.layers.Dense(1, name=f"head_{n}")(h) for n in NAMES}
    return keras_mtl.MultiTaskModel(inputs, heads)


def stacked_heads(names=("c", "a", "b")):
    inputs = keras.Input((4,))
    h = keras.layers.Dense(8, "tanh")(inputs)
    heads = keras_mtl.layers.MultiHead(1, names, hidden_units=(3,))(h)
    return keras_mtl.MultiTaskModel(inputs, heads)


def tree_of_sharing():
    """One layer for all tasks, one for "a" and "b", heads."""
    inputs = keras.Input((4,))
    root = keras.layers.Dense(6, "tanh", name="root")(inputs)
    branch = keras.layers.Dense(5, "tanh", name="branch")(root)
    heads = {
        n: keras.layers.Dense(1, name=f"head_{n}")(branch if n in "ab" else root)
        for n in NAMES
    }
    return keras_mtl.MultiTaskModel(inputs, heads)


def conditioned():
    """One output whose rows belong to different tasks."""
    x = keras.Input((4,), name="x")
    task = keras.Input((), dtype="int32", name="task")
    z = keras_mtl.layers.TaskEmbedding(3, 2)(task)
    h = keras.layers.Dense(6, "tanh")(x)
    y = keras.layers.Dense(1)(keras_mtl.layers.ConcatConditioning()(h, z))
    return keras_mtl.MultiTaskModel(
        {"x": x, "task": task}, y, task_names=NAMES, task_input="task"
    )


def regularized():
    return separate_heads(
        [
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5, seed=3),
            keras.layers.ActivityRegularization(l2=0.1),
        ],
        regularizer="l2",
    )


def inputs_of_their_own():
    """A layer of each task's own before the trunk that all rows pass together."""
    inputs = {n: keras.Input((4,), name=n) for n in NAMES}
    encoded = {n: keras.layers.Dense(5, "tanh")(x) for n, x in inputs.items()}
    features = keras_mtl.layers.SharedTrunk(keras.layers.Dense(6, "tanh"))(encoded)
    heads = {n: keras.layers.Dense(1)(h) for n, h in features.items()}
    return keras_mtl.MultiTaskModel(inputs, heads)


def one_layer_in_two_heads():
    """Tasks "a" and "b" call one layer, each on something else; "b" reads the input."""
    inputs = keras.Input((4,))
    h = keras.layers.Dense(6, "tanh")(inputs)
    tied = keras.layers.Dense(3, "tanh", name="tied")
    sides = {
        "a": tied(keras.layers.Dense(4)(h)),
        "b": keras.layers.Concatenate()([tied(keras.layers.Dense(4)(h)), inputs]),
        "c": h,
    }
    return keras_mtl.MultiTaskModel(
        inputs, {n: keras.layers.Dense(1)(side) for n, side in sides.items()}
    )


@keras.saving.register_keras_serializable("keras_mtl_tests")
class Subclassed(keras_mtl.MultiTaskModel):
    """The model of `separate_heads` without a graph."""

    def __init__(self, **kwargs):
        super().__init__(task_names=NAMES, **kwargs)
        self.trunk = keras.Sequential([keras.layers.Dense(8, "tanh")], name="trunk")
        self.heads = [keras.layers.Dense(1, name=f"head_{n}") for n in NAMES]

    def call(self, x, training=False):
        h = self.trunk(x)
        return {n: head(h) for n, head in zip(NAMES, self.heads, strict=True)}

    def layer_tasks(self):
        heads = [(head, (n,)) for n, head in zip(NAMES, self.heads, strict=True)]
        return [(self.trunk, tuple(NAMES)), *heads]


def subclassed():
    model = Subclassed()
    model(data()[0])
    return model


def batch_of(model, seed=0):
    x, y = data(seed)
    if model.task_input is not None:
        task = np.arange(ROWS) % 3
        labels = np.stack([y[n] for n in NAMES])[task, np.arange(ROWS)]
        return {"x": x, "task": task.astype("int32")}, labels
    if isinstance(getattr(model, "input", None), dict):
        return {n: x + i for i, n in enumerate(NAMES)}, y
    return x, y


def compiled(make, optimizer=None, **arguments):
    keras.utils.set_random_seed(0)
    model = make()
    model.compile(
        optimizer or keras.optimizers.SGD(0.1),
        arguments.pop("loss", "mse"),
        run_eagerly=arguments.pop("run_eagerly", EAGER),
        **arguments,
    )
    return model


def values(model):
    """All weights, also those that are not trained."""
    return [ops.convert_to_numpy(v).copy() for v in model.weights]


def by_path(model):
    return {v.path: ops.convert_to_numpy(v).copy() for v in model.trainable_variables}


def assert_same(one, other, tolerance=1e-5):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
