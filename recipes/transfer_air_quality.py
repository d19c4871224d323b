"""Do five gases help each other? A study of transfer with labels that are missing.

    python recipes/transfer_air_quality.py --data-dir data

UCI Air Quality: the concentrations of five gases from five cheap sensors and the
weather, of which 4 % to 90 % of the hours have no label (one analyser stopped after six
weeks). A network of two layers is trained for each gas alone, for all, for pairs, for
all but one, with a wider trunk, with a weighting and an aggregator, and on a quarter of
the hours, three seeds each. Labels are standardised; what counts is the mean squared
error on validation weeks, in parts of the variance. The study says what to do
(`transfer_air_quality.html`), the advice is followed, and compared on test weeks with
single networks, with one for all, and with the two groups of gases that affinities and
gains of pairs recommend, with other seeds.

Weeks go to training, validation and test in turns of 3, 1 and 1, so that each part has
labels of all five.

The data are a prepared file under --data-dir or the environment variable
KERAS_MTL_DATA; without one the loader fetches the public file, or says what to do.
"""

import argparse

import keras
import numpy as np
from following_advice import compare

import keras_mtl
from keras_mtl.analysis import TransferStudy

HOURS_OF_A_WEEK = 168


def load(options):
    """Returns training, validation and test rows, with labels on the unit scale."""
    data = keras_mtl.datasets.load_air_quality(options.data_dir)
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    hours = np.concatenate([data.meta["hours"][name] for name in splits])
    x = np.concatenate([split.x for split in splits.values()])
    y = {
        task: np.concatenate([split.y[task] for split in splits.values()])
        for task in data.task_names
    }
    turn = hours // HOURS_OF_A_WEEK % 5
    parts = [turn < 3, turn == 3, turn == 4]
    scaled = {}
    for task, labels in y.items():
        scaler = keras_mtl.data.LabelScaler()
        scaler.adapt(labels[parts[0]])
        scaled[task] = keras.ops.convert_to_numpy(scaler.scale(labels))[:, None]
    return [
        (x[rows], {task: labels[rows] for task, labels in scaled.items()})
        for rows in parts
    ]


def builder(columns, options):
    """Returns the function that builds a network for some tasks."""

    def build(tasks, width=1.0):
        inputs = h = keras.Input((columns,))
        for name, units in (("lower", 64), ("upper", 32)):
            h = keras.layers.Dense(round(units * width), "relu", name=name)(h)
        outputs = {
            task: keras.layers.Dense(1, name=f"{task}_head")(h) for task in tasks
        }
        model = keras_mtl.MultiTaskModel(inputs, outputs)
        model.compile(keras.optimizers.Adam(options.learning_rate), loss="mse")
        return model

    return build


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--directory", default="transfer_air_quality")
    parser.add_argument("--page", default="transfer_air_quality.html")
    options = parser.parse_args()

    train, validation, test = load(options)
    for task, labels in train[1].items():
        there = np.isfinite(labels).mean()
        print(f"{task}: {there:.0%} of {len(labels)} training hours have a label")
    study = TransferStudy(
        builder(train[0].shape[1], options),
        train,
        validation,
        seeds=options.seeds,
        directory=options.directory,
        epochs=options.epochs,
        batch_size=128,
        validation_batch_size=2048,
    )
    study.run(fractions=(0.25,))
    report = study.report(options.page, title="Five gases")
    for task, advice in report.advice.items():
        print(f"{task}: {advice}")
    metrics = {task: f"{task}_loss" for task in study.task_names}
    compare(study, test, report, metrics, False, groups=True)


if __name__ == "__main__":
    main()
