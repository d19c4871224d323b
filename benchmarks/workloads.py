"""The models of the benchmarks of weighting and of aggregation, and their data.

- `mlp`: 64 features, a trunk of 256-256-128, batches of 256 rows;
- `conv`: 28x28 images, three convolutions of stride 2 (32, 64, 128), batches of 128.

T heads of 64-1 with the mean squared error, and Adam.
"""

import time

import keras
import numpy as np

import keras_mtl

BATCHES = {"mlp": (256, (64,)), "conv": (128, (28, 28, 1))}
"""By workload, the rows of a batch and the shape of one."""


def task_names(job):
    return [f"task_{index}" for index in range(job["tasks"])]


def make_data(job):
    """Returns inputs and a dict of labels for the steps of one round."""
    generator = np.random.default_rng(0)
    batch, shape = BATCHES[job["workload"]]
    rows = batch * job["steps"]
    x = generator.normal(size=(rows, *shape)).astype("float32")
    y = {
        name: generator.normal(size=(rows, 1)).astype("float32")
        for name in task_names(job)
    }
    return x, y


def make_model(job, multi_head=False, **compile_arguments):
    """Returns a `MultiTaskModel`, or a plain one if compiled with losses alone."""
    keras.utils.set_random_seed(0)
    names = task_names(job)
    inputs = h = keras.Input(BATCHES[job["workload"]][1])
    if job["workload"] == "mlp":
        for units in (256, 256, 128):
            h = keras.layers.Dense(units, "relu")(h)
    else:
        for filters in (32, 64, 128):
            h = keras.layers.Conv2D(filters, 3, 2, "same", activation="relu")(h)
        h = keras.layers.Flatten()(h)
    if multi_head:
        outputs = keras_mtl.layers.MultiHead(1, names, hidden_units=(64,))(h)
    else:
        outputs = {
            name: keras.layers.Dense(1)(keras.layers.Dense(64, "relu")(h))
            for name in names
        }
    plain = not (multi_head or compile_arguments)
    make = keras.Model if plain else keras_mtl.MultiTaskModel
    model = make(inputs, outputs)
    model.compile(
        "adam",
        loss=dict.fromkeys(names, "mse"),
        jit_compile=job["jit"],
        **compile_arguments,
    )
    return model


class Clock(keras.callbacks.Callback):
    """Times an epoch less its start and end, in seconds a step.

    Args:
        skip: Steps at the start that do not count.
    """

    def __init__(self, skip=0):
        super().__init__()
        self.skip = skip

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.skip:
            self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        if batch in (self.skip - 1, self.params["steps"] - 1):
            # Reading the loss waits for the device.
            float(keras.ops.convert_to_numpy(logs["loss"]))
        if batch == self.params["steps"] - 1:
            self.seconds = (time.perf_counter() - self.start) / (batch + 1 - self.skip)


def seconds_a_step(model, x, y, batch_size, callbacks=(), skip=0):
    """Trains for an epoch and returns seconds a step."""
    clock = Clock(skip)
    callbacks = [*callbacks, clock]
    model.fit(
        x, y, batch_size=batch_size, shuffle=False, verbose=0, callbacks=callbacks
    )
    return clock.seconds
