"""Does a mixture of experts gain where tasks are less related? Synthetic data of MMoE.

    python recipes/mmoe_synthetic.py

Two regression tasks on rows of 100 normal features, of a relatedness that is set:

    w1 = c u1,   w2 = c (rho u1 + sqrt(1 - rho^2) u2),   u1, u2 orthonormal
    y_k = w_k x + sum_i sin(alpha_i w_k x + beta_i) + noise of 0.01

with c = 0.3 and m = 5 sines, alpha_i = i and beta_i = i^2, and rho 0.5, 0.9 and 1. A
shared bottom is compared with MMoE (8 experts of 16 units) of as many parameters. Both
train with Adam at a rate that falls from 0.01 to 0, the best of 0.003, 0.01 and 0.03
for the one, and as good as any for the other; a seed stands for other data and another
start. Printed are the mean squared errors of
both tasks on test rows, as mean and standard deviation over seeds, and by how much
MMoE is better than the shared bottom of the same seed, in percent.

Source: Ma et al., KDD 2018, https://doi.org/10.1145/3219819.3220007, section 3.
"""

import argparse

import keras
import numpy as np
from training_progress import TrainingProgress

import keras_mtl
from keras_mtl.metrics import ResultsTable

FEATURES = 100
TASKS = ("first", "second")


def make_data(rows, correlation, seed):
    """Returns rows of normal features, and the labels of both tasks."""
    generator = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(generator.normal(size=(FEATURES, 2)))
    first = basis[:, 0]
    second = correlation * first + np.sqrt(1 - correlation**2) * basis[:, 1]
    x = generator.normal(size=(rows, FEATURES))
    y = {}
    for name, direction in zip(TASKS, (first, second), strict=True):
        z = x @ (0.3 * direction)
        waves = [np.sin(i * z + i**2) for i in range(1, 6)]
        noise = 0.01 * generator.normal(size=rows)
        y[name] = (z + np.sum(waves, axis=0) + noise)[:, None].astype("float32")
    return x.astype("float32"), y


def heads():
    return {
        name: [keras.layers.Dense(8, "relu"), keras.layers.Dense(1)] for name in TASKS
    }


def mixture():
    return keras_mtl.models.mixture_of_experts(
        keras.Input((FEATURES,)), heads(), experts=8, units=16
    )


def shared_bottom():
    """One layer, as large as makes the parameters those of the mixture."""
    wanted = mixture().count_params()

    def build(units):
        trunk = keras.Sequential(
            [keras.Input((FEATURES,)), keras.layers.Dense(units, "relu")]
        )
        return keras_mtl.models.hard_sharing(trunk, heads())

    one, two = build(1).count_params(), build(2).count_params()
    return build(1 + round((wanted - one) / (two - one)))


MODELS = {"shared bottom": shared_bottom, "MMoE": mixture}


def train(name, data, options, seed, callback):
    """Returns the errors of both tasks on the test rows, and the parameters."""
    (x, y), (test_x, test_y) = data
    keras.utils.set_random_seed(seed)
    model = MODELS[name]()
    steps = options.epochs * -(-len(x) // options.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)
    model.compile(keras.optimizers.Adam(rate), loss="mse")
    model.fit(
        x,
        y,
        batch_size=options.batch_size,
        epochs=options.epochs,
        verbose=0,
        callbacks=[callback],
    )
    predicted = model.predict(test_x, batch_size=2000, verbose=0)
    errors = {
        name: float(np.mean((predicted[name] - test_y[name]) ** 2)) for name in TASKS
    }
    return errors, model.count_params()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--correlation", type=float, nargs="+", default=[0.5, 0.9, 1.0])
    parser.add_argument("--rows", type=int, default=12_000, help="a sixth is for test")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--markdown", help="file to write the table to")
    options = parser.parse_args()

    table = ResultsTable(
        digits={"parameters": 0, "gain %": 1},
        title=f"MMoE's synthetic data, {options.seeds} seeds, "
        f"{keras.backend.backend()}",
    )
    total = len(options.correlation) * len(MODELS) * options.seeds * options.epochs
    with TrainingProgress(total) as progress:
        for correlation in options.correlation:
            for seed in range(options.seeds):
                x, y = make_data(options.rows, correlation, seed)
                cut = options.rows * 5 // 6
                data = [
                    (x[rows], {name: label[rows] for name, label in y.items()})
                    for rows in (slice(cut), slice(cut, None))
                ]
                found = {}
                for name in MODELS:
                    callback = progress.callback(
                        f"rho {correlation}, seed {seed}: {name}", options.epochs
                    )
                    errors, size = train(name, data, options, seed, callback)
                    found[name] = np.mean(list(errors.values()))
                    row = {f"MSE of {task}": error for task, error in errors.items()}
                    if name == "MMoE":
                        row["gain %"] = 100 * (1 - found[name] / found["shared bottom"])
                    row["parameters"] = size
                    table.add(f"rho = {correlation}: {name}", row)
    table.print()
    if options.markdown:
        with open(options.markdown, "w") as file:
            file.write(table.to_markdown() + "\n")


if __name__ == "__main__":
    main()
