"""Do three questions about a digit help each other? A study, advice, and its test.

    python recipes/transfer_digits.py

The 8x8 digits of scikit-learn: which digit it is, whether it is odd, and whether it has
a hole (0, 6, 8, 9). A network of two dense layers is trained for each question alone,
for all together, for pairs, with a wider trunk, with a weighting and an aggregator,
three seeds each, and the study says what to do: `transfer.html` has the whole of it.
Then the advice is followed, and compared on test rows with single networks and with one
for all.

No network and no file is needed; it takes two to three minutes on one core.
"""

import argparse
import itertools

import keras
import numpy as np
from following_advice import compare
from sklearn.datasets import load_digits

import keras_mtl
from keras_mtl.analysis import REMEDIES, TransferStudy

CLASSES = {"digit": 10, "odd": 2, "hole": 2}


def load(train_rows):
    """Returns training, validation and test rows."""
    images, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x = (images[order] / 16).astype("float32")
    digits = digits[order]
    y = {"digit": digits, "odd": digits % 2, "hole": np.isin(digits, (0, 6, 8, 9)) * 1}
    ends = 0, train_rows, train_rows + 400, len(x)
    return [
        (x[i:j], {task: labels[i:j] for task, labels in y.items()})
        for i, j in itertools.pairwise(ends)
    ]


def build(tasks, width=1.0):
    """Two layers that all tasks share, and a softmax for each."""
    inputs = h = keras.Input((64,))
    for name in ("lower", "upper"):
        h = keras.layers.Dense(round(32 * width), "relu", name=name)(h)
    outputs = {
        task: keras.layers.Dense(CLASSES[task], "softmax", name=f"{task}_head")(h)
        for task in tasks
    }
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    model.compile(
        keras.optimizers.Adam(0.005),
        loss="sparse_categorical_crossentropy",
        metrics={task: ["accuracy"] for task in tasks},
    )
    return model


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--train-rows", type=int, default=600)
    parser.add_argument("--directory", default="transfer_digits")
    parser.add_argument("--page", default="transfer.html")
    options = parser.parse_args()

    train, validation, test = load(options.train_rows)
    study = TransferStudy(
        build,
        train,
        validation,
        seeds=options.seeds,
        directory=options.directory,
        epochs=options.epochs,
        batch_size=64,
        validation_batch_size=400,
    )
    study.run(fractions=())
    report = study.report(options.page, title="Three questions about a digit")
    for task, advice in report.advice.items():
        print(f"{task}: {advice}")
    metrics = {task: f"{task}_accuracy" for task in study.task_names}
    compare(study, test, report.advice, metrics, True, REMEDIES, options.seeds)


if __name__ == "__main__":
    main()
