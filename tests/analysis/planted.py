"""Families of tasks of which it is known what to do about them."""

import keras
import numpy as np

import keras_mtl

INPUTS = 16


def model_of(
    tasks,
    units,
    outputs=1,
    shared_output=False,
    output="glorot_uniform",
    learning_rate=0.01,
):
    """A linear trunk, and a linear head for each task, or one output for all."""
    inputs = keras.Input((INPUTS,))
    h = keras.layers.Dense(units, name="trunk")(inputs)
    if shared_output:
        h = keras.layers.Dense(1, kernel_initializer=output, name="output")(h)
        heads = {t: keras.layers.Identity(name=f"{t}_head")(h) for t in tasks}
    else:
        heads = {
            t: keras.layers.Dense(
                outputs, kernel_initializer="zeros", name=f"{t}_head"
            )(h)
            for t in tasks
        }
    model = keras_mtl.MultiTaskModel(inputs, heads)
    model.compile(keras.optimizers.Adam(learning_rate), loss="mse")
    return model


def family(weights, noise, rows, build, seed, own_rows=False, **fit):
    """Returns what a study of linear tasks is made of.

    Args:
        weights: By task, what it reads of the inputs, `(inputs, outputs)`.
        noise: Standard deviation of the noise of labels.
        rows: Number of training rows, of each task if they have rows of their own.
        build: Function of tasks and a width.
        seed: Of the data.
        own_rows: Whether a row has a label of one task alone.
        **fit: Arguments of `fit`.
    """
    generator = np.random.default_rng(1000 + seed)

    def draw(count):
        x = generator.normal(size=(count, INPUTS)).astype("float32")
        y = {
            task: (x @ w + noise * generator.normal(size=(count, w.shape[1])))
            for task, w in weights.items()
        }
        return x, {task: labels.astype("float32") for task, labels in y.items()}

    x, y = draw(rows * len(weights) if own_rows else rows)
    for place, task in enumerate(weights if own_rows else ()):
        y[task][np.arange(len(x)) % len(weights) != place] = np.nan
    return {
        "build": build,
        "data": (x, y),
        "validation_data": draw(1000),
        "validation_batch_size": 1000,
        **fit,
    }


def directions(count, seed, outputs=1):
    """Orthogonal vectors of length 1, `(inputs, outputs)` as often as asked for."""
    generator = np.random.default_rng(seed)
    columns = np.linalg.qr(generator.normal(size=(INPUTS, INPUTS)))[0]
    return np.split(columns[:, : count * outputs], count, axis=1)


def interference(seed):
    """One output for two tasks that want other things of it, at whatever width."""

    def build(tasks, width=1.0):
        return model_of(tasks, round(8 * width), shared_output=True)

    weights = dict(zip("ab", directions(2, seed), strict=True))
    return family(weights, 0.5, 512, build, seed, epochs=20, batch_size=64)


def capacity(seed):
    """A trunk of four units for two tasks, of which each needs four of its own."""

    def build(tasks, width=1.0):
        return model_of(tasks, round(4 * width), outputs=4, learning_rate=0.03)

    weights = dict(zip("ab", directions(2, seed, outputs=4), strict=True))
    return family(weights, 0.5, 512, build, seed, epochs=20, batch_size=64)


def overfitting(seed):
    """Few rows of its own for each of three tasks that are one and the same."""

    def build(tasks, width=1.0):
        return model_of(tasks, round(8 * width), shared_output=True, output="zeros")

    (common,) = directions(1, seed)
    weights = dict.fromkeys("abc", common)
    fit = {"epochs": 100, "batch_size": 72}
    return family(weights, 0.5, 24, build, seed, own_rows=True, **fit)


def independence(seed):
    """Tasks that have nothing to do with each other, rows and units enough."""

    def build(tasks, width=1.0):
        return model_of(tasks, round(32 * width), learning_rate=0.003)

    weights = dict(zip("ab", directions(2, seed), strict=True))
    return family(weights, 0.5, 2048, build, seed, epochs=15, batch_size=128)


EXPECTED = {
    interference: "share less",
    capacity: "widen",
    overfitting: "share more",
    independence: "keep",
}
