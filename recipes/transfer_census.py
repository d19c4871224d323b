"""Do income and marriage help each other? A study of transfer on Census-Income.

    python recipes/transfer_census.py --data-dir data

Income over 50K and never married, of 40 facts on a person: a network of two layers for
each task alone, for both, with a wider trunk, with a weighting and an aggregator, on a
quarter and on half of the rows, three seeds each. What counts is the cross-entropy on
validation rows. The study says what to do (`transfer_census.html`), the advice is
followed, and compared by AUC on test rows with single networks and with one for both,
with other seeds.

The data are a prepared file under --data-dir or the environment variable
KERAS_MTL_DATA; without one the loader fetches the public file, or says what to do.
"""

import argparse

import keras
from following_advice import compare

import keras_mtl
from keras_mtl.analysis import TransferStudy

SHORT = {"income_over_50k": "income", "never_married": "married"}


def load(options):
    """Returns training rows, as many as asked for, validation and test rows."""
    data = keras_mtl.datasets.load_census_income(options.data_dir)
    parts = []
    for split, rows in (
        (data.train, options.rows),
        (data.validation, None),
        (data.test, None),
    ):
        y = {SHORT[task]: labels[:rows] for task, labels in split.y.items()}
        parts.append((split.x[:rows], y))
    return parts


def builder(columns, options):
    """Returns the function that builds a network for some tasks."""

    def build(tasks, width=1.0):
        inputs = h = keras.Input((columns,))
        for name, units in (("lower", 128), ("upper", 64)):
            h = keras.layers.Dense(round(units * width), "relu", name=name)(h)
            h = keras.layers.Dropout(0.2)(h)
        outputs = {
            task: keras.layers.Dense(1, "sigmoid", name=f"{task}_head")(h)
            for task in tasks
        }
        model = keras_mtl.MultiTaskModel(inputs, outputs)
        model.compile(
            keras.optimizers.Adam(options.learning_rate),
            loss=dict.fromkeys(tasks, "binary_crossentropy"),
            metrics={task: [keras.metrics.AUC(name="auc")] for task in tasks},
        )
        return model

    return build


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--directory", default="transfer_census")
    parser.add_argument("--page", default="transfer_census.html")
    options = parser.parse_args()

    train, validation, test = load(options)
    study = TransferStudy(
        builder(train[0].shape[1], options),
        train,
        validation,
        seeds=options.seeds,
        directory=options.directory,
        epochs=options.epochs,
        batch_size=256,
        validation_batch_size=4096,
    )
    study.run()
    report = study.report(options.page, title="Income and marriage")
    for task, advice in report.advice.items():
        print(f"{task}: {advice}")
    metrics = {task: f"{task}_auc" for task in study.task_names}
    compare(study, test, report, metrics, True)


if __name__ == "__main__":
    main()
