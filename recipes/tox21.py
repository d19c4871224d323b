"""Tox21: twelve toxicity tests of 8000 molecules, a sixth of the labels missing.

    python recipes/tox21.py --data-dir data

Twelve single-task networks against one of all tasks, with the sum of the losses and
with uncertainty weighting: exact ROC-AUC per task and on average on the test molecules,
mean and standard deviation over seeds. The split is by scaffold, so that a test
molecule looks like none that was trained on. All models have the same trunk, see the
same number of epochs at most, and are taken at their best epoch on the validation
molecules.

A missing label is -1 and is left out of loss and metrics (`mask_value`). The data are a
prepared file under --data-dir or the environment variable KERAS_MTL_DATA; without one
the loader fetches the public file, or says what to do.
"""

import argparse
import time

import keras
import numpy as np
from sklearn.metrics import roc_auc_score
from training_progress import TrainingProgress

import keras_mtl
from keras_mtl.metrics import ResultsTable


def build(columns, tasks, mask_value, options, weighting=None):
    """A trunk of two layers and a linear head for each task."""
    inputs = keras.Input((columns,))
    h = keras.layers.Dropout(0.2)(inputs)
    for units in (512, 128):
        h = keras.layers.Dense(units, "relu", kernel_regularizer=options.l2)(h)
        h = keras.layers.Dropout(options.dropout)(h)
    if len(tasks) == 1:
        outputs = {tasks[0]: keras.layers.Dense(1, "sigmoid")(h)}
    else:
        outputs = keras_mtl.layers.MultiHead(1, tasks, activation="sigmoid")(h)
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    model.compile(
        keras.optimizers.Adam(options.learning_rate),
        loss=dict.fromkeys(tasks, "binary_crossentropy"),
        mask_value=mask_value,
        weighting=weighting,
    )
    return model


def auc(model, split, tasks, mask_value):
    """ROC-AUC by task over the labels that are there; both classes must be."""
    predicted = model.predict(split.x, batch_size=2048, verbose=0)
    scores = {}
    for task in tasks:
        there = split.y[task] != mask_value
        labels = split.y[task][there]
        if len(np.unique(labels)) == 2:
            scores[task] = roc_auc_score(labels, predicted[task][there, 0])
    return scores


class BestEpoch(keras.callbacks.Callback):
    """Stops after `patience` epochs without a better mean AUC; keeps the best."""

    def __init__(self, split, tasks, mask_value, patience):
        super().__init__()
        self.split, self.tasks, self.mask_value = split, tasks, mask_value
        self.patience = patience

    def on_train_begin(self, logs=None):
        self.best, self.waited = -np.inf, 0

    def on_epoch_end(self, epoch, logs=None):
        model = self.model
        scores = auc(model, self.split, self.tasks, self.mask_value)
        mean = np.mean(list(scores.values()))
        self.waited += 1
        if mean > self.best:
            self.best, self.waited = mean, 0
            self.weights = model.get_weights()
        if self.waited >= self.patience:
            model.stop_training = True

    def on_train_end(self, logs=None):
        self.model.set_weights(self.weights)


def train(data, tasks, weighting, options, callback):
    """Returns the test AUC by task, and the seconds of training."""
    mask_value = data.meta["mask_value"]
    model = build(data.train.x.shape[1], tasks, mask_value, options, weighting)
    x, y = data.train.x, {task: data.train.y[task] for task in tasks}
    if len(tasks) == 1:  # rows without the label teach this network nothing
        there = y[tasks[0]] != mask_value
        x, y = x[there], {tasks[0]: y[tasks[0]][there]}
    start = time.perf_counter()
    model.fit(
        x,
        y,
        batch_size=options.batch_size,
        epochs=options.epochs,
        verbose=0,
        callbacks=[
            callback,
            BestEpoch(data.validation, tasks, mask_value, options.patience),
        ],
    )
    seconds = time.perf_counter() - start
    return auc(model, data.test, tasks, mask_value), seconds


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--patience", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--l2", type=keras.regularizers.L2, default=None)
    parser.add_argument("--weighting", nargs="+", default=["equal", "uncertainty"])
    parser.add_argument("--markdown", help="file to write the table to")
    options = parser.parse_args()

    data = keras_mtl.datasets.load_tox21(options.data_dir)
    tasks = data.task_names
    methods = ["single-task", *(f"multi-task, {name}" for name in options.weighting)]
    # Tasks are rows here: twelve columns would not fit a page.
    rows = {method: {} for method in methods}
    total = {method: [] for method in methods}
    epochs = options.seeds * (len(tasks) + len(options.weighting)) * options.epochs
    with TrainingProgress(epochs) as progress:
        for seed in range(options.seeds):
            keras.utils.set_random_seed(seed)
            elapsed, alone = 0.0, {}
            for task in tasks:
                callback = progress.callback(f"seed {seed}: {task}", options.epochs)
                scores, seconds = train(data, [task], None, options, callback)
                alone.update(scores)
                elapsed += seconds
            runs = {"single-task": (alone, elapsed)}
            for name in options.weighting:
                keras.utils.set_random_seed(seed)
                callback = progress.callback(f"seed {seed}: {name}", options.epochs)
                runs[f"multi-task, {name}"] = train(
                    data, tasks, name, options, callback
                )
            for method, (scores, seconds) in runs.items():
                for task, score in scores.items():
                    rows[method].setdefault(task, []).append(score)
                rows[method].setdefault("mean", []).append(
                    float(np.mean(list(scores.values())))
                )
                total[method].append(seconds)

    table = ResultsTable(
        title=f"Tox21, test ROC-AUC, {options.seeds} seeds, {keras.backend.backend()}"
    )
    for task in [*tasks, "mean"]:
        for seed in range(options.seeds):
            table.add(
                task,
                {m: rows[m][task][seed] for m in methods if task in rows[m]},
            )
    table.print()
    for method in methods:
        print(f"{method}: {np.mean(total[method]):.1f} s of training a seed")
    if options.markdown:
        with open(options.markdown, "w") as file:
            file.write(table.to_markdown() + "\n")


if __name__ == "__main__":
    main()
