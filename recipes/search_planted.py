"""Does a search find which tasks belong together? A family of tasks with the answer.

    python recipes/search_planted.py

Six regression tasks on rows of 16 normal numbers, in two groups of three. The tasks of
a group read 4 features of two layers, which those of the other group do not have, and
read them nearly alike:

    h_g = tanh(V_g tanh(W_g x)),   y_t = u_t h_g / std + noise of 0.3,
    u_t = sqrt(0.97) u_g + sqrt(0.03) u'_t,   |u_g| = |u'_t| = 1

Each task has 120 rows of its own. The network is a block of two dense layers, which
ends in 4 units, and a linear head for each task. It has room for one group, not for
two, and the rows are few for a task alone: tasks help each other within a group, and
are in each other's way across. So the planted tree has a network for each group, of the
203 ways to part six tasks.

For each seed (other data, another start) as many trials are given to a search among the
16 trees that come first by the affinities of the tasks, the cosines of their gradients
in 20 passes of one joint run, and to a random search among all trees. What counts is
the mean loss on 2,000 validation rows without noise. As one training is as good as its
start, the best `--finalists` trees of a search are trained `--repeats` times more, and
the answer is the best of them by the mean.

Printed is in how many seeds the planted tree was tried, and in how many it is the
answer; beside it, the losses of the planted tree, hard sharing and single tasks.
"""

import argparse
import statistics
import tempfile

import keras
import keras_tuner
import numpy as np

from keras_mtl import tuning

GROUPS = (("a1", "a2", "a3"), ("b1", "b2", "b3"))
# In this order a tree of the groups is none that comes first by chance.
TASKS = ("a1", "b1", "a2", "b2", "a3", "b3")
INPUTS, FEATURES, HIDDEN, UNITS = 16, 4, 32, 4
ALIKE, NOISE = 0.97, 0.3
PASSES, BATCH = 5, 240
PLANTED = tuning.SharingTree.grouped(GROUPS, blocks=1)


def make_data(rows, seed):
    """Returns rows for each task, with noise, and 2,000 validation rows without.

    Training rows are there several times: an epoch is as many passes.
    """
    generator = np.random.default_rng(seed)

    def weights(*shape):
        return 1.5 * generator.normal(size=shape) / np.sqrt(shape[0])

    networks = []
    for tasks in GROUPS:
        layers = weights(INPUTS, FEATURES), weights(FEATURES, FEATURES)
        alike, own = weights(FEATURES, 1), weights(FEATURES, len(tasks))
        # Of random lengths, some task would be less of its group than others are.
        alike, own = (each / np.linalg.norm(each, axis=0) for each in (alike, own))
        readouts = np.sqrt(ALIKE) * alike + np.sqrt(1 - ALIKE) * own
        networks.append((tasks, *layers, readouts))

    def labels(x):
        for tasks, first, second, readouts in networks:
            features = np.tanh(np.tanh(x @ first) @ second)
            yield from zip(tasks, (features @ readouts).T, strict=True)

    scales = {t: y.std() for t, y in labels(generator.normal(size=(4000, INPUTS)))}

    def draw(rows, noise):
        x = generator.normal(size=(rows, INPUTS))
        y = {
            task: (values / scales[task] + noise * generator.normal(size=rows))[:, None]
            for task, values in labels(x)
        }
        return x, y

    x, y = draw(rows * len(TASKS), NOISE)
    for number, task in enumerate(TASKS):  # Each has rows of its own.
        y[task][np.arange(len(x)) % len(TASKS) != number] = np.nan
    x, y = keras.tree.map_structure(lambda a: np.tile(a, (PASSES, 1)), (x, y))
    return (x, y), draw(2000, 0)


def make_space(affinity=None):
    def block():
        return keras.Sequential(
            [keras.layers.Dense(HIDDEN, "tanh"), keras.layers.Dense(UNITS, "tanh")]
        )

    def head():
        # From 0, so that gradients of the trunk say what a task asks for, and not where
        # its head began.
        return keras.layers.Dense(1, kernel_initializer="zeros")

    return tuning.SharingHyperModel(
        keras.Input((INPUTS,)),
        [block],
        dict.fromkeys(TASKS, head),
        loss=dict.fromkeys(TASKS, "mse"),
        sharing=["branch"],
        optimizer=lambda hp: keras.optimizers.Adam(0.01),
        affinity=affinity,
    )


def find_affinity(train):
    """Returns the affinities of the tasks, of one joint run with hard sharing."""
    space = make_space()
    model = space.build(keras_tuner.HyperParameters())
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=space.loss,
        aggregator="sum",
        gradient_logs=["norms", "cosines"],
    )
    logs = model.fit(*train, batch_size=BATCH, epochs=20 // PASSES, verbose=0).history
    return tuning.affinity_of_logs(logs, TASKS, "cosine")


def search(space, train, validation, options, seed):
    """Returns the results of a search, the best first."""
    objective = tuning.weighted_loss_objective(dict.fromkeys(TASKS, 1 / len(TASKS)))
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.RandomSearch(
            space,
            objective,
            max_trials=options.trials,
            seed=seed,
            directory=folder,
        )
        tuner.search(
            *train,
            validation_data=validation,
            batch_size=BATCH,
            validation_batch_size=2000,
            epochs=options.epochs,
            verbose=0,
        )
        return tuning.trial_results(tuner)


def answer(results, train, validation, options):
    """Returns the tree that a search comes to, the best finalist by the mean.

    Or `None`, if the planted tree is no finalist: then it is another one.
    """
    trees = list(dict.fromkeys(result.tree for result in results))[: options.finalists]
    if PLANTED not in trees:
        return None

    def mean_loss(tree):
        return statistics.mean(
            least_loss(tree, train, validation, options.epochs)
            for _ in range(options.repeats)
        )

    return min(trees, key=mean_loss)


def least_loss(tree, train, validation, epochs):
    """Returns the mean loss of a tree at its best epoch."""
    hp = keras_tuner.HyperParameters()
    model = make_space().build_plan(hp, tuning.SharingPlan(tree))
    logs = model.fit(
        *train,
        validation_data=validation,
        batch_size=BATCH,
        validation_batch_size=2000,
        epochs=epochs,
        verbose=0,
    ).history
    losses = np.mean([logs[f"val_{task}_loss"] for task in TASKS], axis=0)
    return float(losses.min())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--finalists", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=20, help=f"of {PASSES} passes")
    options = parser.parse_args()

    references = {
        "planted": PLANTED,
        "hard sharing": tuning.SharingTree.shared(TASKS, 1),
        "single-task": tuning.SharingTree.independent(TASKS, 1),
    }
    tried = {"affinity": 0, "random": 0}
    found, losses = dict(tried), {name: [] for name in references}
    for seed in range(options.seeds):
        keras.utils.set_random_seed(seed)
        train, validation = make_data(options.rows, seed)
        spaces = {"affinity": make_space(find_affinity(train)), "random": make_space()}
        trees = spaces["affinity"].trees
        rank = trees.index(PLANTED) + 1 if PLANTED in trees else "not one"
        print(f"seed {seed}: by affinity the planted tree is {rank} of {len(trees)}")
        for name, space in spaces.items():
            results = search(space, train, validation, options, seed)
            tried[name] += any(result.tree == PLANTED for result in results)
            tree = answer(results, train, validation, options)
            found[name] += tree == PLANTED
            said = "another than the planted one, which is no finalist"
            print(f"  {name}, {len(results)} trials: {tree or said}", flush=True)
        for name, tree in references.items():
            losses[name].append(least_loss(tree, train, validation, options.epochs))
    for name in tried:
        print(
            f"{name}: tried in {tried[name]}, the answer in {found[name]} of "
            f"{options.seeds} seeds, {options.trials} trials each at most"
        )
    for name, values in losses.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"loss, {name}: {statistics.mean(values):.3f} ± {spread:.3f}")


if __name__ == "__main__":
    main()
