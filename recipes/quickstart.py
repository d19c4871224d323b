"""Two overlaid handwritten digits and their sum: three tasks, one small network.

    python recipes/quickstart.py

The images are scikit-learn's, two of them on one canvas. The tasks are: which digit is
on the left, which on the right (classification), and what is their sum (regression).
One network is trained for each task alone, then one for all three with two weightings
of the losses. Printed is a table of the tasks' metrics on test images made from other
source digits, the relative improvement over the single-task networks (delta-m, positive
is better) and the seconds of training; drawn are losses and task weights over time.
"""

import argparse
import time

import keras
from training_progress import TrainingProgress

import keras_mtl
from keras_mtl.metrics import RelativeImprovement, ResultsTable

TASKS = ("left", "right", "sum")
METRICS = {"left_accuracy": True, "right_accuracy": True, "sum_mae": False}
WEIGHTINGS = ("equal", "uncertainty")


def build(tasks, scaler, options, weighting=None):
    """One trunk, a head for each of `tasks`."""
    images = keras.Input((8, 12, 1))
    h = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(images)
    h = keras.layers.Conv2D(64, 3, strides=2, padding="same", activation="relu")(h)
    h = keras.layers.Flatten()(h)
    h = keras.layers.Dense(128, "relu")(h)
    h = keras.layers.Dropout(options.dropout)(h)

    def head(task):
        if task != "sum":
            return keras.layers.Dense(10, "softmax", name=task)(h)
        # The head predicts near 1; the scaler returns the sum itself.
        return scaler(keras.layers.Dense(1)(keras.layers.Dense(64, "relu")(h)))

    losses = {
        "left": "sparse_categorical_crossentropy",
        "right": "sparse_categorical_crossentropy",
        "sum": scaler.loss("mse"),
    }
    metrics = {"left": ["accuracy"], "right": ["accuracy"], "sum": ["mae"]}
    model = keras_mtl.MultiTaskModel(images, {task: head(task) for task in tasks})
    model.compile(
        keras.optimizers.Adam(options.learning_rate),
        loss={task: losses[task] for task in tasks},
        metrics={task: metrics[task] for task in tasks},
        weighting=weighting,
    )
    return model


def train(model, data, tasks, options, callback):
    """Returns test metrics, the history of training, and its seconds."""
    parts = {
        name: (split.x, {task: split.y[task] for task in tasks})
        for name, split in [
            ("train", data.train),
            ("validation", data.validation),
            ("test", data.test),
        ]
    }
    start = time.perf_counter()
    history = model.fit(
        *parts["train"],
        validation_data=parts["validation"],
        batch_size=options.batch_size,
        epochs=options.epochs,
        verbose=0,
        callbacks=[callback],
    ).history
    seconds = time.perf_counter() - start
    results = model.evaluate(*parts["test"], verbose=0, return_dict=True)
    return {k: v for k, v in results.items() if k in METRICS}, history, seconds


def draw(histories, path):
    """Draws validation losses (left) and task weights (right) over epochs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    styles = dict(zip(WEIGHTINGS, ("-", "--"), strict=True))
    colours = dict(zip(TASKS, ("#0072b2", "#d55e00", "#009e73"), strict=True))
    for weighting, history in histories.items():
        for task in TASKS:
            look = {"ls": styles[weighting], "color": colours[task]}
            label = f"{task}, {weighting}"
            epochs = range(1, len(history["loss"]) + 1)
            regression = int(task == "sum")
            axes[regression].plot(
                epochs, history[f"val_{task}_loss"], label=label, **look
            )
            axes[2].plot(epochs, history[f"{task}_weight"], label=label, **look)
    titles = (
        "validation loss, digits (crossentropy)",
        "validation loss, sum (squared error, unit scale)",
        "task weight in force",
    )
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epoch")
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[1].set_yscale("log")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--train-size", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", default="quickstart.png")
    options = parser.parse_args()

    keras.utils.set_random_seed(options.seed)
    data = keras_mtl.datasets.load_overlaid_digits(
        train_size=options.train_size, seed=options.seed
    )
    scaler = keras_mtl.data.LabelScaler()
    scaler.adapt(data.train.y["sum"])

    table = ResultsTable(
        {**METRICS, "delta-m %": True},
        digits={"delta-m %": 1, "seconds": 1},
        title=f"two overlaid digits and their sum, backend {keras.backend.backend()}",
    )
    histories = {}
    models = len(TASKS) + len(WEIGHTINGS)
    with TrainingProgress(models * options.epochs) as progress:
        baselines, total = {}, 0.0
        for task in TASKS:
            model = build([task], scaler, options)
            callback = progress.callback(f"{task} alone", options.epochs)
            results, _, seconds = train(model, data, [task], options, callback)
            baselines.update(results)
            total += seconds
        improvement = RelativeImprovement(baselines, METRICS)
        table.add(
            "single-task (3 networks)",
            {**baselines, "delta-m %": 0.0, "seconds": total},
        )
        for weighting in WEIGHTINGS:
            model = build(TASKS, scaler, options, weighting)
            callback = progress.callback(f"together, {weighting}", options.epochs)
            results, history, seconds = train(model, data, TASKS, options, callback)
            histories[weighting] = history
            results["delta-m %"] = improvement(results)
            table.add(f"multi-task, {weighting}", {**results, "seconds": seconds})

    model.sharing_summary()
    print()
    table.print()
    draw(histories, options.picture)
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    main()
