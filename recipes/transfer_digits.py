"""Do three questions about a digit help each other? A study, advice, and its test.

    python recipes/transfer_digits.py

The 8x8 digits of scikit-learn: which digit it is, whether it is odd, and whether it has
a hole (0, 6, 8, 9). Of 800 training rows all say which digit it is, and a quarter the
two others. A network of two dense layers is trained for each question alone, for all
together, for pairs, with a wider trunk, with a weighting and an aggregator, three seeds
each. What counts is the cross-entropy on validation rows. The study says what to do:
`transfer.html` has the whole of it. Then the advice is followed, and compared by
accuracy on test rows with single networks and with one for all, with other seeds.

No network and no file is needed; it takes two and a half minutes on two cores.
"""

import argparse
import itertools
import math

import keras
import numpy as np
from following_advice import compare
from sklearn.datasets import load_digits

import keras_mtl
from keras_mtl.analysis import TransferStudy

CLASSES = {"digit": 10, "odd": 2, "hole": 2}
RARE = ("odd", "hole")
BATCH = 25


def load(train_rows):
    """Returns training, validation and test rows; of training rows some lack labels."""
    images, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x = (images[order] / 16).astype("float32")
    digits = digits[order]
    y = {"digit": digits, "odd": digits % 2, "hole": np.isin(digits, (0, 6, 8, 9)) * 1}
    y = {task: labels.astype("float32") for task, labels in y.items()}
    for task in RARE:
        y[task][:train_rows][np.arange(train_rows) % 4 > 0] = np.nan  # No label.
    ends = 0, train_rows, train_rows + 400, len(x)
    return [
        (x[i:j], {task: labels[i:j] for task, labels in y.items()})
        for i, j in itertools.pairwise(ends)
    ]


def builder(steps):
    """Returns the function that builds a network for some tasks."""

    def build(tasks, width=1.0):
        inputs = h = keras.Input((64,))
        for name in ("lower", "upper"):
            h = keras.layers.Dense(round(128 * width), "relu", name=name)(h)
            h = keras.layers.Dropout(0.3)(h)
        outputs = {
            task: keras.layers.Dense(CLASSES[task], "softmax", name=f"{task}_head")(h)
            for task in tasks
        }
        model = keras_mtl.MultiTaskModel(inputs, outputs)
        rate = keras.optimizers.schedules.CosineDecay(0.006, steps)
        model.compile(
            keras.optimizers.Adam(rate),
            loss="sparse_categorical_crossentropy",
            metrics={task: ["accuracy"] for task in tasks},
        )
        return model

    return build


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--train-rows", type=int, default=800)
    parser.add_argument("--directory", default="transfer_digits")
    parser.add_argument("--page", default="transfer.html")
    options = parser.parse_args()

    train, validation, test = load(options.train_rows)
    study = TransferStudy(
        builder(options.epochs * math.ceil(options.train_rows / BATCH)),
        train,
        validation,
        seeds=options.seeds,
        directory=options.directory,
        epochs=options.epochs,
        batch_size=BATCH,
        validation_batch_size=400,
    )
    study.run(fractions=())
    report = study.report(options.page, title="Three questions about a digit")
    for task, advice in report.advice.items():
        print(f"{task}: {advice}")
    metrics = {task: f"{task}_accuracy" for task in study.task_names}
    compare(study, test, report, metrics, True)


if __name__ == "__main__":
    main()
