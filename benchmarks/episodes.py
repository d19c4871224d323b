"""Times the drawing of episodes.

    python benchmarks/episodes.py

Episodes a second in one process, of batches of 32, from 1623 classes of 20 images of
28x28 (the sizes of Omniglot; what the images show does not matter): the median over
rounds, and the slowest and the fastest of them. Goal: 10,000 a second for 5 ways, 1
shot and 15 queries.
"""

import argparse
import statistics
import time

import numpy as np

from keras_mtl.data import Episodes, GaussianProcesses, RegressionEpisodes, Sinusoids

BATCH = 32


def rows(images, labels):
    """Returns by name what is timed."""

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


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--batches", type=int, default=30, help="batches of a round")
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    images = generator.integers(0, 2, size=(32_460, 28, 28), dtype="uint8")
    labels = np.repeat(np.arange(1623), 20)
    print(f"{'episodes a second':<36}{'median':>10}{'least':>10}{'most':>10}")
    for name, episodes in rows(images, labels).items():
        rates = []
        for start in range(arguments.rounds + 1):
            first = start * arguments.batches
            began = time.perf_counter()
            for index in range(first, first + arguments.batches):
                episodes[index]
            seconds = time.perf_counter() - began
            rates.append(arguments.batches * BATCH / seconds)
        rates = rates[1:]
        figures = (statistics.median(rates), min(rates), max(rates))
        print(f"{name:<36}" + "".join(f"{rate:10,.0f}" for rate in figures), flush=True)


if __name__ == "__main__":
    main()
