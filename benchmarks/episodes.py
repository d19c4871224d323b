"""Times episodes: drawing them, training on them, and answering queries.

    python benchmarks/episodes.py --learn2learn learn2learn-0.2.0
    python benchmarks/episodes.py --part sampler

Parts, all by default; printed are medians over rounds.

- `sampler`: episodes a second in one process, of batches of 32, from 1623 classes of 20
  images of 28x28 (the sizes of Omniglot; what the images show does not matter). Goal:
  10,000 a second for 5 ways, 1 shot and 15 queries.
- `protonet`: prototypical networks with Conv4-64 and batch normalisation, halving by a
  stride or by max-pooling; 16 episodes a step of 5 ways, 1 shot and 15 queries. Beside
  learn2learn and easyfsl. Goal: on the best backend no slower than the fastest of them.
- `maml-conv`: MAML with 1 and 5 inner steps, the same convolutions with stride and
  without normalisation, ours as `PatchConv2D`. Beside learn2learn; goal: no slower on
  the best backend.
- `maml-sinusoid`: MAML on sinusoids with an MLP of 40-40 units; 25 episodes a step, 10
  shots and 10 queries. Beside learn2learn; goal: 5 times as fast on the best backend.
- `recurrent`: `MemoryAugmented` and `Recurrent` on 5 ways, vectors of 64 numbers and a
  query a class, with supports of 1 shot and of 10. Beside the same in plain PyTorch;
  goal of `MemoryAugmented`: no slower on the best backend.
- `predict-query`: `predict_query` of 10,000 images after one `adapt`, and the encoder's
  `predict` on them, in turns within a process of each backend. Goal: 1.2 times at most.
- `memory`: the first of `protonet`, with freed memory kept by the C library, as in all
  other parts, and with its default, by which much of it goes back to the system.

A step of training is the forward pass, the backward pass and Adam, from arrays that
were drawn before, the same for all contestants. Ours is `fit` over a `PyDataset` of
these batches, as with `Episodes`; peers loop over the episodes of a batch, as their
examples do. Each contestant has a process of its own. They stay alive and take turns,
one at a time, so that what else the machine does falls on all alike. In all of them the
C library keeps freed memory, where `memory` does not say otherwise
(`recipes/allocation.py` says why).

The last column of a table is the ratio to the fastest peer in the same round, or where
there is none, to the first row.
`torch.func`, vmap over the tasks of MAML, is written by hand and not one of the peers.

Measure on a machine that does nothing else. Otherwise the threads of PyTorch's OpenMP
spin for a core that they do not get, and small steps take many times as long;
`--passive` lets them sleep, in all contestants.

Peers run with the Python of `--peers`, or this one, which needs PyTorch. easyfsl:

    peers/bin/pip install --no-deps easyfsl

learn2learn has C extensions that are not timed here. What is timed is plain Python, and
read from its unpacked sources:

    pip download learn2learn==0.2.0 --no-deps --no-binary :all: --no-build-isolation
    tar xzf learn2learn-0.2.0.tar.gz
    python benchmarks/episodes.py --peers peers/bin/python \\
        --learn2learn learn2learn-0.2.0

A peer that is not there is no row.
"""

import argparse
import functools
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field

import numpy as np
import side_by_side
from contestants import race, serve

BATCH = 32
WAYS, FILTERS, FEATURES, HIDDEN = 5, 64, 64, 40
INNER_RATE = 0.01
QUERIES, QUERY_BATCH = 10_000, 1024
PARTS = (
    "sampler",
    "protonet",
    "maml-conv",
    "maml-sinusoid",
    "recurrent",
    "predict-query",
    "memory",
)
KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**28),
    "MALLOC_MMAP_MAX_": "0",
}
"""What `recipes/allocation.py` sets, for glibc in a process that is started."""


@dataclass(frozen=True)
class Case:
    """What contestants do alike, for one table.

    Args:
        title: Of the table.
        job: What workers are told.
        data: What episodes are of: `"images"`, `"vectors"` or `"sinusoids"`.
        sizes: Arguments of the episodes.
        peers: Names of peers.
        beside: Names of those by hand that are not compared with.
        times: Factor of the steps of a round, where steps are short.
        both_memories: Whether ours are also timed as the C library is by default.
    """

    title: str
    job: dict
    data: str
    sizes: dict = field(default_factory=dict)
    peers: tuple[str, ...] = ("learn2learn",)
    beside: tuple[str, ...] = ()
    times: int = 1
    both_memories: bool = False


def cases_of(part):
    """Returns the tables of a part that trains."""
    if part == "protonet":
        return [
            Case(
                f"ProtoNet, Conv4-64, {pool}",
                {"learner": "protonet", "pool": pool},
                data="images",
                peers=("learn2learn", "easyfsl"),
            )
            for pool in ("stride", "max")
        ]
    if part == "memory":
        return [
            Case(
                "ProtoNet, Conv4-64, stride, freed memory",
                {"learner": "protonet", "pool": "stride"},
                data="images",
                peers=(),
                both_memories=True,
            )
        ]
    if part == "maml-conv":
        return [
            Case(
                f"MAML, Conv4-64, inner steps: {steps}",
                {"learner": "maml-conv", "inner_steps": steps},
                data="images",
                beside=("torch.func",),
            )
            for steps in (1, 5)
        ]
    if part == "maml-sinusoid":
        return [
            Case(
                f"MAML, sinusoids, inner steps: {steps}",
                {"learner": "maml-sinusoid", "inner_steps": steps},
                data="sinusoids",
                sizes={"shots": 10, "queries": 10, "episodes_per_batch": 25},
                beside=("torch.func",),
                times=10,
            )
            for steps in (1, 5)
        ]
    return [
        Case(
            f"{title}, {shots * WAYS} examples",
            {"learner": learner},
            data="vectors",
            sizes={"shots": shots, "queries": 1},
            peers=("torch",),
            times=10,
        )
        for learner, title in (("mann", "MemoryAugmented"), ("lstm", "Recurrent"))
        for shots in (1, 10)
    ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--backend", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--jit", choices=["both", "on", "off"], default="both")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument(
        "--steps",
        type=int,
        default=4,
        help="of a round; 10 times as many of short ones",
    )
    parser.add_argument(
        "--batches", type=int, default=30, help="batches of a round of the sampler"
    )
    parser.add_argument(
        "--peers", default=sys.executable, help="Python of an environment with peers"
    )
    parser.add_argument("--learn2learn", help="folder of its unpacked sources")
    parser.add_argument(
        "--passive", action="store_true", help="OpenMP threads wait without spinning"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(json.loads(arguments.worker))
        return
    if arguments.passive:
        os.environ["OMP_WAIT_POLICY"] = "passive"
    settings = side_by_side.settings(arguments.backend, arguments.jit)
    for part in arguments.part:
        if part == "sampler":
            time_sampler(arguments.rounds, arguments.batches)
        elif part == "predict-query":
            time_predict_query(settings, arguments.rounds)
        else:
            for case in cases_of(part):
                time_training(case, settings, arguments)


# Drawing


def rows(images, labels):
    """Returns by name what is timed."""
    from keras_mtl.data import (
        Episodes,
        GaussianProcesses,
        RegressionEpisodes,
        Sinusoids,
    )

    def few_shot(**arguments):
        return Episodes(images, labels, episodes_per_batch=BATCH, **arguments)

    def regression(family, **arguments):
        return RegressionEpisodes(family, episodes_per_batch=BATCH, **arguments)

    return {
        "5 ways, 1 shot": few_shot(),
        "5 ways, 1 shot, rotations": few_shot(rotations=True),
        "5 ways, 1 to 5 shots, rotations": few_shot(shots=(1, 5), rotations=True),
        "5 ways, 5 shots": few_shot(shots=5),
        "20 ways, 1 shot": few_shot(ways=20),
        "sinusoids, 10 shots": regression(Sinusoids()),
        "Gaussian processes, 3 to 46 shots": regression(
            GaussianProcesses(), shots=(3, 46), queries=(3, 46), most_points=49
        ),
    }


def time_sampler(rounds, batches):
    images, labels = make_examples((28, 28))
    print(f"{'episodes a second':<36}{'median':>10}{'least':>10}{'most':>10}")
    for name, episodes in rows(images, labels).items():
        rates = []
        for start in range(rounds + 1):
            first = start * batches
            began = time.perf_counter()
            for index in range(first, first + batches):
                episodes[index]
            seconds = time.perf_counter() - began
            rates.append(batches * BATCH / seconds)
        rates = rates[1:]
        figures = (statistics.median(rates), min(rates), max(rates))
        print(f"{name:<36}" + "".join(f"{rate:10,.0f}" for rate in figures), flush=True)


def make_examples(shape):
    """Returns 20 examples, of zeros and ones, of each of 1623 classes."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 2, size=(32_460, *shape), dtype="uint8")
    return images, np.repeat(np.arange(1623), 20)


# Training


def time_training(case, settings, arguments):
    """Times the contestants of a case and prints its table."""
    with tempfile.TemporaryDirectory() as folder:
        data = str(pathlib.Path(folder, "episodes.npz"))
        episodes = save_episodes(case, arguments.steps * case.times, data)
        job = {**case.job, "data": data, "learn2learn": arguments.learn2learn}
        entries = list(ours(case, settings, job))
        script = str(pathlib.Path(__file__).with_name("episodes_peers.py"))
        for name in (*case.peers, *case.beside):
            told = json.dumps({**job, "peer": name})
            entries.append((name, [arguments.peers, script, told], KEEP_MEMORY))
        race(case.title, entries, arguments.rounds, episodes, case.peers)


def ours(case, settings, job):
    """Yields the name, the command and the environment of each of ours."""
    for backend, jit in settings:
        name = f"Keras {backend}" + (" XLA" if jit and backend == "tensorflow" else "")
        command = [
            sys.executable,
            __file__,
            "--worker",
            json.dumps({**job, "jit": jit}),
        ]
        environment = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        yield name, command, {**environment, **KEEP_MEMORY}
        if case.both_memories:
            yield f"{name}, given back", command, environment


def save_episodes(case, steps, path):
    """Saves batches, each array with a first axis of steps; returns episodes a step."""
    from keras_mtl.data import Episodes, RegressionEpisodes, Sinusoids

    if case.data == "sinusoids":
        episodes = RegressionEpisodes(Sinusoids(), **case.sizes)
    else:
        x, labels = make_examples((28, 28) if case.data == "images" else (FEATURES,))
        if case.data == "vectors":
            x = x.astype("float32")
        episodes = Episodes(x, labels, ways=WAYS, **case.sizes)
    batches = [episodes[step] for step in range(steps)]
    arrays = {
        name: np.stack([inputs[name] for inputs, _ in batches])
        for name in batches[0][0]
    }
    np.savez(path, query_y=np.stack([y for _, y in batches]), **arrays)
    return episodes.episodes_per_batch


# What a worker does. Keras is imported here alone: its backend is that of a process.


def work(job):
    if job.get("part") == "predict-query":
        side_by_side.print_result(measure_predict_query(job))
    else:
        serve(training(job))


def training(job):
    """Returns a function that trains for an epoch and returns seconds a step."""
    import keras
    import workloads

    class Batches(keras.utils.PyDataset):
        """Batches that were drawn before."""

        def __init__(self, path):
            super().__init__()
            self.arrays = dict(np.load(path))
            self.labels = self.arrays.pop("query_y")

        def __len__(self):
            return len(self.labels)

        def __getitem__(self, index):
            inputs = {name: array[index] for name, array in self.arrays.items()}
            return inputs, self.labels[index]

    batches, model = Batches(job["data"]), make_model(job)

    def turn():
        clock = workloads.Clock()
        model.fit(batches, shuffle=False, verbose=0, callbacks=[clock])
        return clock.seconds

    return turn


def make_model(job):
    import keras

    import keras_mtl
    from keras_mtl import learners

    keras.utils.set_random_seed(0)
    learner, encoder, loss = job["learner"], None, "categorical_crossentropy"
    if learner == "protonet":
        made = learners.PrototypicalNetwork(ways=WAYS)
        encoder = learners.conv4(FILTERS, norm="batch", pool=job["pool"])
    elif learner == "maml-conv":
        made = learners.MAML(
            ways=WAYS,
            network=convolutions(),
            inner_steps=job["inner_steps"],
            inner_rate=INNER_RATE,
        )
    elif learner == "maml-sinusoid":
        made, loss = (
            learners.MAML(
                output_dim=1,
                distribution=None,
                hidden=(HIDDEN, HIDDEN),
                inner_steps=job["inner_steps"],
                inner_rate=INNER_RATE,
            ),
            "mse",
        )
    elif learner == "mann":
        made = learners.MemoryAugmented(ways=WAYS)
    else:
        made = learners.Recurrent(ways=WAYS)
    model = keras_mtl.MetaModel(made, encoder)
    model.compile("adam", loss=loss, jit_compile=job["jit"])
    return model


def convolutions():
    """Returns Conv4 with a stride, without normalisation, and a dense layer."""
    import keras

    from keras_mtl.learners import PatchConv2D

    blocks = [PatchConv2D(FILTERS, 3, 2, "same", activation="relu") for _ in range(4)]
    return keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Reshape((28, 28, 1)),
            *blocks,
            keras.layers.Flatten(),
            keras.layers.Dense(WAYS),
        ]
    )


# Answering queries


def time_predict_query(settings, rounds):
    cells = {}
    for setting in settings:
        backend, jit = setting
        name = backend + (" XLA" if jit and backend == "tensorflow" else "")
        job = {"part": "predict-query", "rounds": rounds}
        result = side_by_side.run_backend(
            __file__, setting, job, environment=KEEP_MEMORY
        )
        for row, (ms, ratio) in result.items():
            cells.setdefault(row, {})[name] = side_by_side.cell(ms, ratio, 1.2)
    side_by_side.print_table(
        f"{QUERIES:,} images in batches of {QUERY_BATCH}: ms (ratio to `predict`)",
        cells,
    )


def measure_predict_query(job):
    """Returns by row the medians of ms and of the ratio to the encoder alone."""
    import keras

    import keras_mtl
    from keras_mtl import learners

    keras.utils.set_random_seed(0)
    encoder = learners.conv4(FILTERS, norm="batch", pool="stride")
    model = keras_mtl.MetaModel(learners.PrototypicalNetwork(ways=WAYS), encoder)
    alone = keras.Sequential([keras.Input((28, 28), dtype="uint8"), encoder])
    for compiled in (model, alone):
        compiled.compile(loss="categorical_crossentropy", jit_compile=job["jit"])
    images, _ = make_examples((28, 28))
    phi = model.adapt(images[:WAYS], np.arange(WAYS))
    images = images[:QUERIES]
    calls = {
        "encoder.predict": functools.partial(
            alone.predict, images, batch_size=QUERY_BATCH, verbose=0
        ),
        "predict_query": functools.partial(
            model.predict_query, phi, images, batch_size=QUERY_BATCH
        ),
    }

    def seconds(call):
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    turns = {name: functools.partial(seconds, call) for name, call in calls.items()}
    times = side_by_side.in_turns(turns, job["rounds"])
    return side_by_side.medians(times, "encoder.predict")


if __name__ == "__main__":
    main()
