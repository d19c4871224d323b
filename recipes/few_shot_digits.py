"""Learn to learn handwritten digits: new classes from one or five examples of each.

    python recipes/few_shot_digits.py

The digits 0 to 5 of scikit-learn's 8x8 images are there to learn from, each turned by
90, 180 and 270 degrees as a class of its own; 6 to 9 are there to test on, and are not
seen before. Every episode is a task of 3 classes. Two learners on the same encoder:
prototypes (the mean of each class), and a transformer that reads the support as its
context. Printed are the accuracy over test episodes with its 95 % interval, for one and
for five examples of each class, that on the training classes, and what becomes of it
with the support of another task; drawn is one episode with its predictions.

It takes a little over a minute on two CPU cores; of `--seeds` the table has means and
standard deviations.
"""

import argparse
import time

import keras
import numpy as np
from training_progress import TrainingProgress

import keras_mtl
from keras_mtl.data import ClassSplit, Episodes
from keras_mtl.metrics import ResultsTable

WAYS = 3
LEARNERS = {
    "prototypes": lambda: keras_mtl.learners.PrototypicalNetwork(ways=WAYS),
    "transformer": lambda: keras_mtl.learners.InContextTransformer(
        ways=WAYS, depth=2, dropout=0.3
    ),
}
EPOCHS = {"prototypes": 10, "transformer": 20}


def load():
    """Returns images `(n, 8, 8)` of 0 to 16, their digits, and the two parts."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    split = ClassSplit(train=range(6), test=range(6, 10))
    return digits.images.astype("uint8"), digits.target, split


def build(name, options):
    """Returns the learner behind an encoder of two convolutions, compiled."""
    encoder = keras_mtl.learners.ConvolutionalEncoder(
        options.filters, blocks=2, pool="stride", rescale=1 / 16
    )
    model = keras_mtl.MetaModel(LEARNERS[name](), encoder)
    steps = EPOCHS[name] * options.steps
    schedule = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)
    model.compile(
        keras.optimizers.Adam(schedule),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def draw(models, test, path):
    """Draws the first test episode: its support, and queries with what was said."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    inputs, labels = test[0]
    support, query = inputs["support_x"][0], inputs["query_x"][0]
    support_y, right = (y[0].argmax(-1) for y in (inputs["support_y"], labels))
    said = {}
    for name, model in models.items():
        phi = model.adapt(support, support_y)
        said[name] = model.predict_query(phi, query).argmax(-1)
    columns = 9
    figure, axes = plt.subplots(
        2, columns, figsize=(10, 3.4), layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for place, index in zip(range(1, columns, 3), np.argsort(support_y), strict=True):
        axes[0, place].imshow(support[index], cmap="gray_r")
        axes[0, place].set_title(f"class {support_y[index]}", fontsize=9)
    for place in range(columns):
        axes[1, place].imshow(query[place], cmap="gray_r")
        answers = [answer[place] for answer in said.values()]
        wrong = any(answer != right[place] for answer in answers)
        axes[1, place].set_title(
            " | ".join(map(str, answers)),
            fontsize=9,
            color="#d55e00" if wrong else "#009e73",
        )
    figure.suptitle(
        f"above: the support, one of each class; below: queries, and what "
        f"{' | '.join(said)} say (red: one is wrong)",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--learner", choices=LEARNERS, nargs="*", default=[*LEARNERS])
    parser.add_argument("--steps", type=int, default=25, help="steps of each epoch")
    parser.add_argument("--episodes-per-batch", type=int, default=32)
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--test-episodes", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--picture", default="few_shot_digits.png")
    options = parser.parse_args()

    images, labels, split = load()
    batch = min(40, options.test_episodes)
    fixed = {
        "ways": WAYS,
        "queries": 10,
        "episodes_per_batch": batch,
        "num_batches": options.test_episodes // batch,
    }
    tests = {
        f"{shots}-shot": Episodes(images, labels, split.test, shots=shots, **fixed)
        for shots in (1, 5)
    }
    seen = Episodes(images, labels, split.train, shots=1, rotations=True, **fixed)
    table = ResultsTable(
        {
            "1-shot": True,
            "5-shot": True,
            "seen classes": True,
            "other support": True,
        },
        digits={"seconds": 0},
        title=f"3 of 4 new digits, accuracy, backend {keras.backend.backend()}",
    )
    models = {}
    total = options.seeds * sum(EPOCHS[name] for name in options.learner)
    with TrainingProgress(total) as progress:
        for name in options.learner:
            for seed in range(options.seeds):
                keras.utils.set_random_seed(seed)
                train = Episodes(
                    images,
                    labels,
                    split.train,
                    ways=WAYS,
                    shots=(1, 5),
                    queries=10,
                    rotations=True,
                    episodes_per_batch=options.episodes_per_batch,
                    seed=seed,
                )
                model = build(name, options)
                start = time.perf_counter()
                model.fit(
                    train,
                    steps_per_epoch=options.steps,
                    epochs=EPOCHS[name],
                    verbose=0,
                    callbacks=[progress.callback(name, EPOCHS[name])],
                )
                results = {"seconds": time.perf_counter() - start}
                for key, test in {**tests, "seen classes": seen}.items():
                    found = model.evaluate(test, verbose=0)
                    results[key] = found["accuracy"]
                    if key != "seen classes":
                        results[f"{key} +-"] = found["accuracy_ci95"]
                memory = keras_mtl.analysis.memorisation(model, tests["1-shot"])
                results["other support"] = memory.other_support.mean
                table.add(name, results)
                models[name] = model
    table.print()
    draw(models, tests["1-shot"], options.picture)
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    main()
