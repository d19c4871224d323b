"""Omniglot: characters never seen before, from one or five examples of each.

    python recipes/omniglot.py --learner prototypes --ways 5 --shots 1 5 --split vinyals

Trains one learner for a number of minutes on characters of the training part, each also
turned by 90, 180 and 270 degrees, as classes of their own. Printed is its accuracy over
1000 fixed test episodes with the 95 % interval, for each number of shots; beside it
that on training characters, and what becomes of it with the support of another task
(chance, where nothing is known by heart). `--learner mann` prints the table of its
paper as well: accuracy by how many examples of its class a character was preceded by.

With `--encoder-minutes`, the default of `mann`, the encoder is trained as one of
prototypes for a part of the time and then kept; the learner reads the vectors of 64
numbers that it makes of all images, once.

The data are the prepared file of a data directory (`--data-dir`, or the environment
variable KERAS_MTL_DATA), else Omniglot as TFDS has prepared it.

Splits: `vinyals` (1028 characters to train on, 172 to validate, 423 to test), `lake`
(30 alphabets against 20 others), `random`. Test characters are turned too, as published
numbers have it; with `--within-alphabet` they are not, and the classes of an episode
are of one alphabet, which is a good deal harder. See docs/recipes.md before comparing.
"""

import argparse
from typing import NamedTuple

import keras
import numpy as np
from allocation import reuse_memory
from until_time import fit_until

import keras_mtl
from keras_mtl import learners
from keras_mtl.data import Episodes
from keras_mtl.datasets import load_omniglot
from keras_mtl.metrics import ResultsTable

LEARNERS = {
    "prototypes": learners.PrototypicalNetwork,
    "matching": learners.MatchingNetwork,
    "relation": learners.RelationNetwork,
    "deep-set": learners.DeepSet,
    "cnp": learners.ConditionalNeuralProcess,
    "hypernetwork": learners.HyperNetwork,
    "transformer": learners.InContextTransformer,
    "snail": learners.SNAIL,
    "lstm": learners.Recurrent,
    "mann": learners.MemoryAugmented,
}
DEFAULTS = {
    "train_ways": None,
    "train_shots": None,
    "episodes_per_batch": 16,
    "encoder_minutes": 0.0,
    "arguments": {},
}
MANY_WAYS = {"train_ways": 20, "episodes_per_batch": 4}
SETTINGS = {
    "prototypes": {**MANY_WAYS, "train_shots": (1, 1)},
    "matching": {**MANY_WAYS, "train_shots": (1, 1)},
    "cnp": MANY_WAYS,
    "hypernetwork": MANY_WAYS,
    "mann": {
        "episodes_per_batch": 32,
        "encoder_minutes": 4.0,
        "arguments": {
            "protocol": "every_step",
            "slots": 64,
            "reads": 2,
            "separate_write": True,
        },
    },
}
INSTANCES, TRAINED_INSTANCES = 10, 5
TURNS, VECTOR = 4, 64


class Characters(NamedTuple):
    """Examples, their classes and alphabets, and the classes of each part."""

    examples: np.ndarray
    labels: np.ndarray
    alphabets: np.ndarray
    train: object
    test: object
    turn: bool
    """Whether episodes are to turn images."""


def as_vectors(characters, encoder, test_turns):
    """Returns vectors of all images in all turns, which are classes.

    The numbers of a vector have mean 0 and variance 1 over training images.

    Args:
        characters: Images.
        encoder: The encoder.
        test_turns: In how many turns test characters are classes.
    """
    alone = keras.Sequential([encoder])
    count = characters.labels.max() + 1
    turned = [
        alone.predict(
            np.rot90(characters.examples, turn, axes=(1, 2)),
            batch_size=1024,
            verbose=0,
        )
        for turn in range(TURNS)
    ]
    known = turned[0][np.isin(characters.labels, characters.train.classes)]
    center, scale = known.mean(axis=0), known.std(axis=0) + 1e-6
    shifts = count * np.arange(TURNS)[:, None]
    split = keras_mtl.data.ClassSplit(
        train=(shifts + characters.train.classes).ravel(),
        test=(shifts[:test_turns] + characters.test.classes).ravel(),
    )
    return Characters(
        (np.concatenate(turned) - center) / scale,
        (shifts + characters.labels).ravel(),
        np.tile(characters.alphabets, TURNS),
        split.train,
        split.test,
        turn=False,
    )


def train_encoder(encoder, characters, options):
    """Trains an encoder as one of prototypes."""
    settings = SETTINGS["prototypes"]
    episodes = Episodes(
        characters.examples,
        characters.labels,
        characters.train,
        ways=settings["train_ways"],
        shots=settings["train_shots"],
        queries=options.queries,
        rotations=True,
        episodes_per_batch=settings["episodes_per_batch"],
        seed=options.seed,
    )
    model = keras_mtl.MetaModel(
        learners.PrototypicalNetwork(ways=settings["train_ways"]), encoder
    )
    fit(model, episodes, options.encoder_minutes, options)


def fit(model, episodes, minutes, options):
    """Compiles and trains a model; returns the number of steps."""
    model.compile(
        keras.optimizers.Adam(options.learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    return fit_until(
        model,
        episodes,
        minutes,
        options.learning_rate,
        options.steps,
        metric="accuracy",
    )


def by_instance(model, sequences):
    """Returns the accuracy at the first, second, ... example of its class.

    Args:
        model: A trained model of `MemoryAugmented` with protocol="every_step".
        sequences: Episodes whose supports are the sequences.
    """
    right = [[] for _ in range(INSTANCES)]
    for batch in range(sequences.num_batches):
        inputs, _ = sequences[batch]
        images, labels = inputs["support_x"], inputs["support_y"]
        episodes, length = labels.shape[:2]
        features = images.reshape(episodes * length, *images.shape[2:])
        if model.encoder is not None:
            features = keras.ops.convert_to_numpy(model.encoder(features))
        said = model.learner.predict_steps(
            features.reshape(episodes, length, -1), labels
        )
        hit = keras.ops.convert_to_numpy(said).argmax(-1) == labels.argmax(-1)
        # The place of an example among those of its class.
        place = (labels.cumsum(axis=1) * labels).sum(axis=-1).astype(int)
        for instance in range(INSTANCES):
            right[instance].append(hit[place == instance + 1].mean())
    return [float(np.mean(values)) for values in right]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--learner", choices=LEARNERS, default="prototypes")
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument(
        "--split", choices=("vinyals", "lake", "random"), default="vinyals"
    )
    parser.add_argument("--within-alphabet", action="store_true")
    parser.add_argument("--train-ways", type=int, help="defaults to the ways, or 20")
    parser.add_argument("--train-shots", type=int, nargs=2, help="least and most")
    parser.add_argument("--queries", type=int, default=5, help="of a class, to train")
    parser.add_argument("--episodes-per-batch", type=int)
    parser.add_argument("--minutes", type=float, default=13.0)
    parser.add_argument(
        "--encoder-minutes",
        type=float,
        help="of these, for prototypes; defaults to 4 for mann, else 0",
    )
    parser.add_argument("--steps", type=int, default=50, help="of an epoch")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--filters", type=int, nargs=4, default=[16, 32, 64, 128])
    parser.add_argument("--norm", default="layer")
    parser.add_argument("--pool", default="stride")
    parser.add_argument("--test-episodes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir")
    options = parser.parse_args()
    settings = {**DEFAULTS, **SETTINGS.get(options.learner, {})}
    train_ways = options.train_ways or settings["train_ways"] or options.ways
    by_steps = options.learner == "mann"

    if options.encoder_minutes is None:
        options.encoder_minutes = settings["encoder_minutes"]

    reuse_memory()
    keras.utils.set_random_seed(options.seed)
    data = load_omniglot(options.data_dir, split=options.split, seed=options.seed)
    characters = Characters(
        data.images,
        data.labels,
        data.alphabets,
        data.classes.train,
        data.classes.test,
        turn=True,
    )
    encoder = learners.conv4(
        options.filters,
        norm=options.norm,
        pool=options.pool,
        embedding_dim=VECTOR if options.encoder_minutes else None,
    )
    if options.encoder_minutes:
        train_encoder(encoder, characters, options)
        test_turns = 1 if options.within_alphabet else TURNS
        characters, encoder = as_vectors(characters, encoder, test_turns), None
    arrays = characters.examples, characters.labels
    least = min(options.shots)
    train_shots = options.train_shots or settings["train_shots"]
    train_shots = train_shots or (least, max(options.shots))
    train = Episodes(
        *arrays,
        characters.train,
        ways=train_ways,
        shots=TRAINED_INSTANCES if by_steps else tuple(train_shots),
        queries=1 if by_steps else options.queries,
        rotations=characters.turn,
        episodes_per_batch=options.episodes_per_batch or settings["episodes_per_batch"],
        seed=options.seed,
    )
    batch = min(20, options.test_episodes)
    fixed = {
        "ways": options.ways,
        "queries": 15,
        "episodes_per_batch": batch,
        "num_batches": options.test_episodes // batch,
    }
    if options.within_alphabet:
        held_out = {**fixed, "groups": characters.alphabets}
    else:
        held_out = {**fixed, "rotations": characters.turn}
    tests = {
        f"{shots}-shot": Episodes(*arrays, characters.test, shots=shots, **held_out)
        for shots in options.shots
    }
    seen = Episodes(
        *arrays, characters.train, shots=least, rotations=characters.turn, **fixed
    )

    learner = LEARNERS[options.learner](
        ways=max(train_ways, options.ways), **settings["arguments"]
    )
    model = keras_mtl.MetaModel(learner, encoder)
    steps = fit(model, train, options.minutes - options.encoder_minutes, options)
    results = {"steps": steps}
    for name, test in {**tests, "training characters": seen}.items():
        found = model.evaluate(test, verbose=0)
        results[name] = found["accuracy"]
        if name in tests:
            results[f"{name} +-"] = found["accuracy_ci95"]
    memory = keras_mtl.analysis.memorisation(model, tests[f"{least}-shot"], steps=5)
    results["other support"] = memory.other_support.mean
    protocol = "one alphabet" if options.within_alphabet else "all alphabets"
    table = ResultsTable(
        digits={"steps": 0, **{f"{name} +-": 4 for name in tests}},
        title=f"{options.ways} ways of {protocol}, split {options.split}, accuracy, "
        f"backend {keras.backend.backend()}",
    )
    table.add(options.learner, results)
    table.print()
    if by_steps:
        held_out = {**held_out, "queries": 1}
        sequences = Episodes(*arrays, characters.test, shots=INSTANCES, **held_out)
        table = ResultsTable(title="accuracy by instance of a class")
        accuracies = by_instance(model, sequences)
        table.add(
            options.learner,
            {f"{i}.": accuracy for i, accuracy in enumerate(accuracies, start=1)},
        )
        table.print()


if __name__ == "__main__":
    main()
