"""What cheaper steps of an aggregator cost in accuracy of the weights.

    python benchmarks/weights_accuracy.py

The network is that of the MLP workload (`workloads.py`), its labels those of a random
teacher, a small network for each task with a part in common, and noise. It is trained
with the sum of the losses; at every step the exact Gramian of the batch gives the
weights w of each method, which are compared with cheaper ones:

- `part`: weights of the Gramian of the first tenth of the batch;
- `every`: weights of up to 9 steps before, as they are with `EveryKSteps(k=10)`;
- `both`: weights of a tenth of the batch of up to 9 steps before;
- `equal`: the same weight for every task, what one would have for nothing.

Printed are, as means over steps and the standard deviation over seeds: the relative
distance of the weights of sum one, and the cosine of the updates, J^T w with the exact
J. It runs on JAX.
"""

import argparse
import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras
import numpy as np
import side_by_side
import workloads
from aggregation import compiled_solver

from keras_mtl import aggregation

COMPARED = ("part", "every", "both", "equal")


def main():
    options = parse_arguments()
    cells = {}
    for tasks in options.tasks:
        found = [run(tasks, options, seed) for seed in range(options.seeds)]
        for name in options.aggregator:
            for how in COMPARED:
                values = np.array([of_seed[name, how] for of_seed in found])
                mean, spread = values.mean(axis=0), values.std(axis=0)
                distance, cosine = (
                    f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True)
                )
                cells.setdefault(f"{name}, {how}", {})[tasks] = f"{distance}, {cosine} "
    side_by_side.print_table(
        "relative distance of the weights, cosine of the updates "
        f"({options.seeds} seeds, {options.steps} steps)",
        cells,
        width=34,
    )


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", type=int, default=[2, 8, 32])
    parser.add_argument(
        "--aggregator",
        nargs="+",
        default=["mgda", "pcgrad", "cagrad", "nash_mtl", "upgrad"],
    )
    parser.add_argument("--steps", type=int, default=200, help="a multiple of 10")
    parser.add_argument("--seeds", type=int, default=3)
    return parser.parse_args()


def run(tasks, options, seed):
    """Returns by method and way the mean distance and cosine over a training."""
    job = {"workload": "mlp", "tasks": tasks, "steps": options.steps, "jit": True}
    model = workloads.make_model(job)
    keras.utils.set_random_seed(seed)
    names = workloads.task_names(job)
    x, y = teacher_data(names, options.steps, seed)
    trunk = [v for v in model.trainable_variables if is_shared(model, v)]
    gramian = gramian_function(model, trunk, names)
    solvers = {
        name: compiled_solver(aggregation.get(name), job) for name in options.aggregator
    }
    held, sums = {}, {}
    batch, _ = workloads.BATCHES["mlp"]
    for step in range(options.steps):
        rows = slice(step * batch, (step + 1) * batch)
        inputs, labels = x[rows], {name: y[name][rows] for name in names}
        part = slice(-(-batch // 10))
        exact = gramian(inputs, labels)
        of_part = gramian(inputs[part], {n: label[part] for n, label in labels.items()})
        for name, solve in solvers.items():
            weights = normalized(solve(exact))
            ways = {"part": normalized(solve(of_part))}
            if step % 10 == 0:
                held[name] = weights, ways["part"]
            ways["every"], ways["both"] = held[name]
            ways["equal"] = np.full(tasks, 1 / tasks)
            for how, other in ways.items():
                sums.setdefault((name, how), []).append(
                    compared(weights, other, np.asarray(exact))
                )
        model.train_on_batch(inputs, labels)
    return {key: np.mean(values, axis=0) for key, values in sums.items()}


def teacher_data(names, steps, seed):
    """Labels of which a half is common to all tasks, with noise of a tenth."""
    generator = np.random.default_rng(seed)
    batch, (features,) = workloads.BATCHES["mlp"]
    x = generator.normal(size=(steps * batch, features)).astype("float32")
    first = generator.normal(size=(features, 32)) / np.sqrt(features)
    common = np.tanh(x @ first) @ generator.normal(size=(32, 1)) / np.sqrt(32)
    y = {}
    for name in names:
        first = generator.normal(size=(features, 32)) / np.sqrt(features)
        own = np.tanh(2 * x @ first) @ generator.normal(size=(32, 1)) / np.sqrt(32)
        noise = 0.1 * generator.normal(size=own.shape)
        y[name] = (common + own + noise).astype("float32")
    return x, y


def is_shared(model, variable):
    """Whether a variable is of the three layers that all tasks share."""
    shared = [v for layer in model.layers[1:4] for v in layer.trainable_variables]
    return any(variable is v for v in shared)


def gramian_function(model, trunk, names):
    """Returns a compiled function from a batch to the Gramian of the task gradients."""
    places = [
        i
        for i, variable in enumerate(model.trainable_variables)
        if any(variable is v for v in trunk)
    ]

    @jax.jit
    def compiled(values, inputs, labels):
        def losses(shared):
            full = list(values)
            for place, value in zip(places, shared, strict=True):
                full[place] = value
            outputs, _ = model.stateless_call(full, [], inputs)
            return jnp.stack(
                [jnp.mean((outputs[name] - labels[name]) ** 2) for name in names]
            )

        found, pull = jax.vjp(losses, [values[place] for place in places])
        rows = [pull(row)[0] for row in jnp.eye(len(names), dtype=found.dtype)]
        matrices = [
            jnp.stack([g.ravel() for g in leaf]) for leaf in zip(*rows, strict=True)
        ]
        return sum(matrix @ matrix.T for matrix in matrices)

    def gramian(inputs, labels):
        values = [jnp.asarray(v.value) for v in model.trainable_variables]
        return compiled(values, inputs, labels)

    return gramian


def normalized(weights):
    weights = np.asarray(weights, "float64")
    return weights / weights.sum()


def compared(weights, other, gramian):
    distance = np.linalg.norm(other - weights) / np.linalg.norm(weights)
    product = weights @ gramian @ other
    norms = np.sqrt((weights @ gramian @ weights) * (other @ gramian @ other))
    return distance, product / norms


if __name__ == "__main__":
    main()
