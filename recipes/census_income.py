"""UCI Census-Income: income over 50K and never married, from 40 facts on a person.

    python recipes/census_income.py --data-dir data

Single-task networks against a shared trunk with the sum of the losses, with uncertainty
weighting and with FAMO: exact AUC on the test rows, mean and standard deviation over
seeds. All models have the same trunk and heads, see the same number of epochs at most,
and are taken at their best epoch on the validation rows. Delta-m is the mean relative
improvement over the single-task networks of the same seed, positive is better.

The data are a prepared file under --data-dir or the environment variable
KERAS_MTL_DATA; without one the loader fetches the public file, or says what to do.
"""

import argparse
import time

import keras
from sklearn.metrics import roc_auc_score
from training_progress import TrainingProgress

import keras_mtl
from keras_mtl.metrics import RelativeImprovement, ResultsTable

SHORT = {"income_over_50k": "income", "never_married": "married"}


def build(columns, tasks, options, weighting=None):
    """A trunk of two layers, a head of one hidden layer for each task."""
    inputs = keras.Input((columns,))
    h = inputs
    for units in (256, 128):
        h = keras.layers.Dense(units, "relu")(h)
        h = keras.layers.Dropout(options.dropout)(h)
    outputs = {}
    for task in tasks:
        hidden = keras.layers.Dense(32, "relu")(h)
        outputs[task] = keras.layers.Dense(1, "sigmoid", name=SHORT[task])(hidden)
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    model.compile(
        keras.optimizers.Adam(options.learning_rate),
        loss=dict.fromkeys(tasks, "binary_crossentropy"),
        metrics={task: [keras.metrics.AUC(name="auc")] for task in tasks},
        weighting=weighting,
    )
    return model


class MeanAUC(keras.callbacks.Callback):
    """Puts the mean of the tasks' validation AUC into the logs."""

    def on_epoch_end(self, epoch, logs=None):
        values = [logs[key] for key in logs if key.startswith("val_") and "_auc" in key]
        logs["val_mean_auc"] = sum(values) / len(values)


def train(data, tasks, weighting, options, callback):
    """Returns the exact test AUC by task, and the seconds of training."""

    def labels(split):
        return split.x, {task: split.y[task] for task in tasks}

    model = build(data.train.x.shape[1], tasks, options, weighting)
    start = time.perf_counter()
    model.fit(
        *labels(data.train),
        validation_data=labels(data.validation),
        batch_size=options.batch_size,
        epochs=options.epochs,
        verbose=0,
        callbacks=[
            callback,
            MeanAUC(),
            keras.callbacks.EarlyStopping(
                "val_mean_auc", mode="max", patience=3, restore_best_weights=True
            ),
        ],
    )
    seconds = time.perf_counter() - start
    predicted = model.predict(data.test.x, batch_size=4096, verbose=0)
    scores = {
        f"{SHORT[task]} AUC": roc_auc_score(data.test.y[task], predicted[task])
        for task in tasks
    }
    return scores, seconds


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument(
        "--weighting", nargs="+", default=["equal", "uncertainty", "famo"]
    )
    parser.add_argument("--markdown", help="file to write the table to")
    options = parser.parse_args()

    data = keras_mtl.datasets.load_census_income(options.data_dir)
    tasks = data.task_names
    columns = [f"{SHORT[task]} AUC" for task in tasks]
    table = ResultsTable(
        {**dict.fromkeys(columns, True), "delta-m %": True},
        digits={**dict.fromkeys(columns, 4), "delta-m %": 2, "seconds": 1},
        title=f"Census-Income, {options.seeds} seeds, {keras.backend.backend()}",
    )
    print(f"{data.name}: {data.sizes}, {data.train.x.shape[1]} columns")
    models = len(tasks) + len(options.weighting)
    with TrainingProgress(options.seeds * models * options.epochs) as progress:
        for seed in range(options.seeds):
            keras.utils.set_random_seed(seed)
            baselines, total = {}, 0.0
            for task in tasks:
                callback = progress.callback(f"seed {seed}: {task}", options.epochs)
                scores, seconds = train(data, [task], None, options, callback)
                baselines.update(scores)
                total += seconds
            table.add(
                f"single-task ({len(tasks)} networks)",
                {**baselines, "delta-m %": 0.0, "seconds": total},
            )
            improvement = RelativeImprovement(baselines, True)
            for name in options.weighting:
                keras.utils.set_random_seed(seed)
                callback = progress.callback(f"seed {seed}: {name}", options.epochs)
                scores, seconds = train(data, tasks, name, options, callback)
                scores["delta-m %"] = improvement(scores)
                table.add(f"shared trunk, {name}", {**scores, "seconds": seconds})
    table.print()
    if options.markdown:
        with open(options.markdown, "w") as file:
            file.write(table.to_markdown() + "\n")


if __name__ == "__main__":
    main()
