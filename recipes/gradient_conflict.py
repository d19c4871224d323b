"""Gradient conflict on MultiMNIST: does a weighting or an aggregator help?

    python recipes/gradient_conflict.py --data-dir data

Two overlaid digits of MNIST, the left and the right one a task each. Compared are, with
one network (two convolutions and a dense layer, a head of two layers for each task),
one optimiser and the same epochs:

- a network for each task alone;
- the sum of the losses (equal);
- static weights: of a grid of five the pair with the best accuracy on the validation
  images, averaged over tasks and seeds, 1 : 1 among them;
- weightings by losses and aggregators of gradients that --methods names, by their names
  in keras_mtl. An aggregator followed by @representation is given the gradients by the
  output of the trunk, any other those by its parameters.

No epoch is chosen: the learning rate decays to zero, and the last epoch counts. A seed
stands for other digits in training and validation, other pairs, another start and
another order. Printed are means over seeds with the standard deviation:

- the accuracy of both tasks on the test images;
- delta-m, the mean relative improvement over the single-task networks of the same seed,
  positive is better; and by how much it is more than that of equal with the same seed.
  With three seeds such a mean differs from 0 at a level of 95 % only if it is greater
  than 2.5 standard deviations, and eight methods are eight chances of an accident;
- conflict: in how many steps the gradients of the two tasks by the parameters of the
  trunk have a negative cosine. Chance alone would give half of the steps;
- seconds per epoch, the least of three, without the logs of conflict. The search for
  static weights, a network for each pair of the grid, is not in it.

Drawn is the conflict rate over training. Where there is no aggregator it is measured by
aggregator="sum", which is the same training. By the representation it is another figure
than by the parameters: such methods have a panel of their own, and equal beside them.

The data are a prepared file under --data-dir or the environment variable
KERAS_MTL_DATA; without one the loader fetches the public file, or says what to do.
"""

import argparse
import time
from typing import NamedTuple

import keras
import numpy as np
from training_progress import TrainingProgress

import keras_mtl
from keras_mtl import aggregation, weighting
from keras_mtl.metrics import RelativeImprovement, ResultsTable

TASKS = ("left", "right")
METHODS = (
    "equal",
    "static",
    "uncertainty",
    "dynamic_weight_average",
    "geometric_mean",
    "pcgrad",
    "cagrad",
    "nash_mtl",
    "mgda@representation",
)
# Weights of the left task; the right one has what is missing to 2, as with equal.
GRID = (0.6, 0.8, 1.0, 1.2, 1.4)
# These want a step of their own, beside which no conflict can be measured.
WITHOUT_CONFLICT = ("famo", "grad_norm")
# Gives the training of equal, with the conflict rate by the representation.
EQUAL_AT_REPRESENTATION = "sum@representation"
SINGLE = "single-task (2 networks)"
TIMED_ROUNDS = 4


class Result(NamedTuple):
    """Of one seed: test accuracies by task, validation accuracy, conflict by epoch."""

    accuracies: dict[str, float]
    validation: float
    conflict: list[float]


class Stopwatch(keras.callbacks.Callback):
    """Adds up the seconds of epochs, without what `fit` does before and after."""

    seconds = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds += time.perf_counter() - self.start


def build(tasks, options, steps, **compiled):
    """LeNet with a head of two layers for each task."""
    images = keras.Input((28, 28, 1))
    h = images
    for filters in (10, 20):
        h = keras.layers.Conv2D(filters, 5, activation="relu")(h)
        h = keras.layers.MaxPooling2D()(h)
    h = keras.layers.Flatten()(h)
    h = keras.layers.Dense(50, "relu")(h)
    outputs = {}
    for task in tasks:
        hidden = keras.layers.Dense(50, "relu")(h)
        outputs[task] = keras.layers.Dense(10, "softmax", name=task)(hidden)
    model = keras_mtl.MultiTaskModel(images, outputs)
    decay = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)
    model.compile(
        keras.optimizers.Adam(decay),
        loss="sparse_categorical_crossentropy",
        metrics={task: ["accuracy"] for task in tasks},
        **compiled,
    )
    return model


def runs_of(method):
    """Names of the networks that are trained for a method: for static the grid."""
    return [f"static:{left}" for left in GRID] if method == "static" else [method]


def arguments_of(run):
    """What `compile` is given: new instances, since they may have a state."""
    name, _, place = run.partition("@")
    if run.startswith("static:"):
        left = float(run.removeprefix("static:"))
        return {"loss_weights": {"left": left, "right": 2 - left}}
    if name in aggregation.names():
        return {"aggregator": name, "aggregate_at": place or "parameters"}
    if name == "uncertainty":
        return {"weighting": weighting.Uncertainty("classification")}
    return {"weighting": name}


def label(run):
    """What a row or a line is called."""
    if run.startswith("static:"):
        left = float(run.removeprefix("static:"))
        return f"static, {left:.1f} : {2 - left:.1f}"
    run = run.replace(EQUAL_AT_REPRESENTATION, "equal@representation")
    return run.replace("@", " at ").replace("_", " ")


def train(data, seed, options, callback, **compiled):
    """Trains one network on the tasks that `data` has; returns a `Result`."""
    keras.utils.set_random_seed(seed)
    steps = options.epochs * -(-data.sizes["train"] // options.batch_size)
    model = build(data.task_names, options, steps, **compiled)
    history = model.fit(
        *data.train,
        batch_size=options.batch_size,
        epochs=options.epochs,
        verbose=0,
        callbacks=[callback],
    ).history

    def accuracies(split):
        results = model.evaluate(*split, batch_size=500, verbose=0, return_dict=True)
        return {task: results[f"{task}_accuracy"] for task in data.task_names}

    validation = float(np.mean(list(accuracies(data.validation).values())))
    return Result(accuracies(data.test), validation, history.get("conflict_rate", []))


def train_seed(data, runs, seed, options, progress):
    """Returns the result of every run, and of the single-task networks."""
    accuracies = {}
    for task in TASKS:
        callback = progress.callback(f"seed {seed}: {task} alone")
        result = train(data.select([task]), seed, options, callback)
        accuracies.update(result.accuracies)
    results = {SINGLE: Result(accuracies, np.nan, [])}
    for run in runs:
        callback = progress.callback(f"seed {seed}: {label(run)}")
        compiled = {"aggregator": "sum", **arguments_of(run)}
        results[run] = train(
            data, seed, options, callback, gradient_logs=["conflict_rate"], **compiled
        )
    return results


def best_static(results):
    """Returns the pair of the grid with the best accuracy on the validation images."""
    found = {
        run: np.mean([result.validation for result in several])
        for run, several in results.items()
        if run.startswith("static:")
    }
    shown = ", ".join(f"{label(run)[8:]} {100 * v:.2f}" for run, v in found.items())
    print(f"static weights, validation accuracy in %: {shown}")
    return max(found, key=found.get)


def seconds_per_epoch(data, runs, options, progress):
    """Seconds of an epoch, the least of several rounds through all runs.

    Going round lets what else the machine does meet all of them alike.
    """
    models = {
        SINGLE: [(data.select([task]), build([task], options, 1)) for task in TASKS]
    }
    for run in runs:
        models[run] = [(data, build(TASKS, options, 1, **arguments_of(run)))]
    found = {run: [] for run in models}
    for _ in range(TIMED_ROUNDS):
        for run, several in models.items():
            stopwatch = Stopwatch()
            for part, model in several:
                model.fit(
                    *part.train,
                    batch_size=options.batch_size,
                    verbose=0,
                    callbacks=[stopwatch, progress.callback("seconds per epoch")],
                )
            found[run].append(stopwatch.seconds)
    # The first round compiles.
    return {run: min(times[1:]) for run, times in found.items()}


def tabulate(results, seconds, title):
    """Returns the table of all runs."""
    columns = ["left accuracy", "right accuracy", "delta-m %", "over equal %"]
    table = ResultsTable(
        dict.fromkeys(columns, True),
        digits={
            **dict.fromkeys(columns[:2], 4),
            **dict.fromkeys(columns[2:], 2),
            "conflict %": 1,
            "s/epoch": 2,
        },
        title=title,
    )
    baselines = [result.accuracies for result in results[SINGLE]]
    improvements = [RelativeImprovement(baseline, True) for baseline in baselines]
    equal = [result.accuracies for result in results["equal"]]
    for run in seconds:
        for improvement, of_equal, result in zip(
            improvements, equal, results[run], strict=True
        ):
            cells = {f"{task} accuracy": result.accuracies[task] for task in TASKS}
            cells["delta-m %"] = improvement(result.accuracies)
            cells["over equal %"] = cells["delta-m %"] - improvement(of_equal)
            if result.conflict:
                cells["conflict %"] = 100 * np.mean(result.conflict)
            table.add(label(run), cells)
        table.add(label(run), {"s/epoch": seconds[run]})
    return table


def draw(conflicts, path):
    """Draws the conflict rate by epoch: the mean over seeds, and from least to most."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    def panel_of(run):
        if "@" in run:
            return "at the representation"
        return "aggregators" if run in aggregation.names() else "weightings"

    panels = {title: {} for title in ("weightings", "aggregators")}
    for run, rates in conflicts.items():
        panels.setdefault(panel_of(run), {})[run] = rates
    panels["aggregators"] = {"equal": conflicts["equal"], **panels["aggregators"]}
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(4.2 * len(panels), 3.8),
        sharey=True,
        layout="constrained",
    )
    colours = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        axis.axhline(50, color="0.6", lw=1, ls=":")
        for number, (run, rates) in enumerate(lines.items()):
            rates = 100 * np.array(rates)
            epochs = np.arange(1, rates.shape[1] + 1)
            colour = colours[number % len(colours)]
            axis.plot(epochs, rates.mean(axis=0), "o-", ms=3, color=colour, lw=1.5)
            low, high = rates.min(axis=0), rates.max(axis=0)
            axis.fill_between(epochs, low, high, color=colour, alpha=0.12, lw=0)
            axis.lines[-1].set_label(label(run))
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epoch")
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("steps in conflict, %")
    figure.savefig(path, dpi=110)


def parse():
    names = [name for name in weighting.names() if name not in WITHOUT_CONFLICT]
    by_gradients = [name for name in aggregation.names() if name != "sum"]
    at_representation = [f"{name}@representation" for name in by_gradients]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=8e-3)
    parser.add_argument("--train-size", type=int, default=6_000)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=METHODS,
        metavar="METHOD",
        choices=[*names, *by_gradients, *at_representation],
        help=f"beside equal, which is always there; default: {' '.join(METHODS)}",
    )
    parser.add_argument("--picture", default="gradient_conflict.png")
    parser.add_argument("--markdown", help="file to write the table to")
    return parser.parse_args()


def main():
    options = parse()
    methods = list(dict.fromkeys(["equal", *options.methods]))
    runs = [run for method in methods for run in runs_of(method) if run != "static:1.0"]
    if any("@" in run for run in runs):
        runs.append(EQUAL_AT_REPRESENTATION)
    results = {}
    models = options.seeds * (len(TASKS) + len(runs))
    total = models * options.epochs + TIMED_ROUNDS * (len(TASKS) + len(methods))
    with TrainingProgress(total) as progress:
        for seed in range(options.seeds):
            data = keras_mtl.datasets.load_multi_mnist(
                options.data_dir,
                train_size=options.train_size,
                test_size=5_000,
                seed=seed,
            )
            of_seed = train_seed(data, runs, seed, options, progress)
            for run, result in of_seed.items():
                results.setdefault(run, []).append(result)
        results["static:1.0"] = results["equal"]
        chosen = [
            best_static(results) if method == "static" else method for method in methods
        ]
        seconds = seconds_per_epoch(data, chosen, options, progress)

    table = tabulate(
        results,
        seconds,
        f"MultiMNIST, {options.seeds} seeds, {options.epochs} epochs, "
        f"{keras.backend.backend()}",
    )
    table.print()
    if options.markdown:
        with open(options.markdown, "w") as file:
            file.write(table.to_markdown() + "\n")
    drawn = [run for run in (*chosen, EQUAL_AT_REPRESENTATION) if run in results]
    draw(
        {run: [result.conflict for result in results[run]] for run in drawn},
        options.picture,
    )
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    main()
