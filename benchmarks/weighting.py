"""Times a step of `MultiTaskModel` against plain Keras, side by side in one run.

    python benchmarks/weighting.py --backend tensorflow jax torch

Each backend runs in a process of its own. In it, every model of a row is made,
trained for a few steps to compile, and then timed in turns, so that what else the
machine does falls on all alike. A step is one step of `fit` on data in memory;
printed are medians over rounds: ms, and the ratio to plain Keras's step of the
same round.

Rows: plain `keras.Model` with a dict of losses, and `MultiTaskModel` with every
weighting, with separate heads and with all heads in one `MultiHead`. Workloads:
64 features, trunk 256-256-128, T heads 64-1, batch 256; and 28x28 images, three
convolutions of stride 2 (32, 64, 128), the same heads, batch 128.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

EXPENSIVE = {"famo": lambda tasks: 1.5, "grad_norm": lambda tasks: 1.3 + 0.05 * tasks}
"""Bounds of the weightings that need more than the losses."""

BOUND = 1.05
MULTI_HEAD_BOUND = {"tensorflow": 0.65, "jax": 0.85}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--workload", nargs="+", default=["mlp", "conv"])
    parser.add_argument("--tasks", nargs="+", type=int, default=[2, 8, 32])
    parser.add_argument("--weighting", nargs="+", help="default: all")
    parser.add_argument(
        "--rounds", type=int, help="default: 31, 14, 10 for T = 2, 8, 32"
    )
    parser.add_argument("--steps", type=int, default=20, help="steps of a round")
    parser.add_argument("--jit", choices=["both", "on", "off"], default="both")
    parser.add_argument("--json", help="file to append the figures to")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print("RESULT " + json.dumps(measure(json.loads(arguments.worker))))
        return
    for backend in arguments.backend:
        # TensorFlow is the backend on which compiling by XLA is a choice to weigh.
        jits = {"both": [False, True], "on": [True], "off": [False]}[arguments.jit]
        for jit in jits if backend == "tensorflow" else [backend == "jax"]:
            for workload in arguments.workload:
                table = {}
                for tasks in arguments.tasks:
                    job = {
                        "workload": workload,
                        "tasks": tasks,
                        "weightings": arguments.weighting,
                        "rounds": arguments.rounds or 9 + 44 // tasks,
                        "steps": arguments.steps,
                        "jit": jit,
                    }
                    table[tasks] = run(backend, job)
                    if arguments.json:
                        with open(arguments.json, "a") as file:
                            row = {"backend": backend, **job, "ms, ratio": table[tasks]}
                            file.write(json.dumps(row) + "\n")
                print_table(backend, jit, workload, table)


def run(backend, job):
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    result = subprocess.run(
        [sys.executable, __file__, "--worker", json.dumps(job)],
        env=environment,
        capture_output=True,
        text=True,
    )
    for line in result.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    raise SystemExit(f"{backend} {job} failed:\n{result.stderr[-3000:]}")


def print_table(backend, jit, workload, table):
    """Prints ms and ratios; a ratio over its bound has an exclamation mark."""
    tasks = list(table)
    compiled = {True: "jit_compile=True", False: "jit_compile=False"}[jit]
    print(f"\n{backend}, {compiled}, {workload}: ms a step (ratio to plain Keras)")
    print(f"{'':<28}" + "".join(f"{f'T = {t}':>20}" for t in tasks))
    for name in table[tasks[0]]:
        cells = []
        for count in tasks:
            ms, ratio = table[count][name]
            over = ratio > bound(name, count, backend, jit)
            cells.append(f"{ms:>9.2f} ({ratio:.2f}){'!' if over else ' '}")
        print(f"{name:<28}" + "".join(f"{cell:>20}" for cell in cells))
    sys.stdout.flush()


def bound(name, tasks, backend, jit):
    if name == "plain Keras":
        return float("inf")
    if name == "equal, MultiHead":
        if tasks != 32 or (backend == "tensorflow" and jit):
            return float("inf")
        return MULTI_HEAD_BOUND.get(backend, float("inf"))
    return EXPENSIVE.get(name, lambda _: BOUND)(tasks)


def measure(job):
    """Returns by row the medians of ms a step and of the ratio to plain Keras."""
    import keras
    import numpy as np

    import keras_mtl

    class Clock(keras.callbacks.Callback):
        """Times an epoch less its start and end."""

        def on_train_batch_begin(self, batch, logs=None):
            if batch == 0:
                self.start = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            if batch == self.params["steps"] - 1:
                # Reading the loss waits for the device.
                float(keras.ops.convert_to_numpy(logs["loss"]))
                self.seconds = (time.perf_counter() - self.start) / (batch + 1)

    generator = np.random.default_rng(0)
    names = [f"task_{index}" for index in range(job["tasks"])]
    if job["workload"] == "mlp":
        batch, shape = 256, (64,)
    else:
        batch, shape = 128, (28, 28, 1)
    rows = batch * job["steps"]
    x = generator.normal(size=(rows, *shape)).astype("float32")
    y = {name: generator.normal(size=(rows, 1)).astype("float32") for name in names}

    def trunk(inputs):
        if job["workload"] == "mlp":
            h = inputs
            for units in (256, 256, 128):
                h = keras.layers.Dense(units, "relu")(h)
            return h
        h = inputs
        for filters in (32, 64, 128):
            h = keras.layers.Conv2D(filters, 3, 2, "same", activation="relu")(h)
        return keras.layers.Flatten()(h)

    def separate(h):
        return {
            name: keras.layers.Dense(1)(keras.layers.Dense(64, "relu")(h))
            for name in names
        }

    def stacked(h):
        head = keras_mtl.layers.MultiHead(1, names, hidden_units=(64,))
        return head(h)

    def compiled(make, heads, **compile_arguments):
        keras.utils.set_random_seed(0)
        inputs = keras.Input(shape)
        model = make(inputs, heads(trunk(inputs)))
        model.compile(
            "adam",
            loss=dict.fromkeys(names, "mse"),
            jit_compile=job["jit"],
            **compile_arguments,
        )
        return model

    models = {"plain Keras": compiled(keras.Model, separate)}
    for name in job["weightings"] or keras_mtl.weighting.names():
        if name not in ("static", "schedule"):
            models[name] = compiled(keras_mtl.MultiTaskModel, separate, weighting=name)
    models["static"] = compiled(
        keras_mtl.MultiTaskModel, separate, loss_weights={names[0]: 2.0}
    )
    models["equal, MultiHead"] = compiled(keras_mtl.MultiTaskModel, stacked)
    times = {name: [] for name in models}
    for round_index in range(job["rounds"] + 1):
        for name, model in models.items():
            clock = Clock()
            model.fit(
                x, y, batch_size=batch, shuffle=False, verbose=0, callbacks=[clock]
            )
            if round_index:
                times[name].append(clock.seconds * 1000)
    plain = times["plain Keras"]
    return {
        name: (
            statistics.median(values),
            statistics.median(a / b for a, b in zip(values, plain, strict=True)),
        )
        for name, values in times.items()
    }


if __name__ == "__main__":
    main()
