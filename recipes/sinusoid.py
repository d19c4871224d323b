"""Sine waves from five or ten points: learners on the task of the MAML paper.

    KERAS_BACKEND=jax python recipes/sinusoid.py

A task is `y = A sin(x - p)`: the amplitude A is of [0.1, 5], the phase p of [0, pi],
points of [-5, 5], without noise. Each learner is trained for some minutes on supports
of 5 to 10 points and then meets 1000 fixed tasks. Printed is the mean squared error
after it has read 5 points and 10, with its 95 % interval over tasks: who ignores the
support and always answers the mean has 3.0, MAML in its paper 0.67, 0.38 and 0.35 after
1, 5 and 10 steps on 5 points. Drawn are their fits to one task.

The backend matters here: these networks are small, and what a step costs is what the
backend asks for each operation. JAX is the fastest of the three on a CPU.
"""

import argparse

import keras
import numpy as np
from allocation import reuse_memory
from until_time import fit_until

import keras_mtl
from keras_mtl import learners
from keras_mtl.data import RegressionEpisodes, Sinusoids
from keras_mtl.metrics import ResultsTable

NUMBERS = {"output_dim": 1, "distribution": None}
LEARNERS = {
    "transformer": lambda: learners.InContextTransformer(**NUMBERS),
    "anp": lambda: learners.AttentiveNeuralProcess(**NUMBERS),
    "cnp": lambda: learners.ConditionalNeuralProcess(**NUMBERS),
    "np": lambda: learners.NeuralProcess(output_dim=1),
    "convcnp": lambda: learners.ConvolutionalNeuralProcess(
        domain=(-5.0, 5.0), points_per_unit=8, margin=2.0, depth=4, **NUMBERS
    ),
    "deep-set": lambda: learners.DeepSet(**NUMBERS),
    "hypernetwork": lambda: learners.HyperNetwork(**NUMBERS),
    "snail": lambda: learners.SNAIL(max_support=10, filters=32, width=0.25, **NUMBERS),
    "lstm": lambda: learners.Recurrent(**NUMBERS),
    "mann": lambda: learners.MemoryAugmented(slots=16, units=128, **NUMBERS),
    "meta-network": lambda: learners.MetaNetwork(
        hidden=20, num_gradients=10, **NUMBERS
    ),
    "maml": lambda: learners.MAML(**NUMBERS),
    "maml-5": lambda: learners.MAML(inner_steps=5, **NUMBERS),
    "anil": lambda: learners.ANIL(**NUMBERS),
    "cavia": lambda: learners.CAVIA(**NUMBERS),
}
DEFAULTS = {"encoder": None, "episodes_per_batch": 50, "learning_rate": 1e-3}
SETTINGS = {
    # Keys of one number would be told apart by its sign alone.
    "meta-network": {
        "encoder": (40, 20),
        "episodes_per_batch": 16,
        "learning_rate": 3e-3,
    }
}
STEPS_OF_DESCENT = {"maml": (1, 5, 10), "maml-5": (5, 10)}
"""How many steps MAML is tested with, that is trained with one or with five.

With more steps than it was trained with, the longer it was trained, the sooner a task
is among 1000 on which they lead away.
"""


def build(name, settings):
    """Returns the learner, compiled."""
    encoder = settings["encoder"] and keras.Sequential(
        [keras.layers.Dense(units, activation="relu") for units in settings["encoder"]]
    )
    model = keras_mtl.MetaModel(LEARNERS[name](), encoder)
    loss, metric = "mse", "mse"
    if model.learner.distribution is not None:
        loss = keras_mtl.losses.NegativeLogLikelihood()
        metric = keras_mtl.metrics.SquaredErrorOfMean()
    model.compile(
        keras.optimizers.Adam(settings["learning_rate"], global_clipnorm=10.0),
        loss=loss,
        metrics=[metric],
    )
    return model


def with_steps(model, steps, inputs):
    """Returns a model with the weights of another, that takes more steps of descent."""
    config = {**model.learner.get_config(), "inner_steps": steps}
    other = keras_mtl.MetaModel(learners.MAML.from_config(config))
    other(inputs)
    other.set_weights(model.get_weights())
    other.compile(loss="mse", metrics=["mse"])
    return other


def mean_of(model, phi, x):
    """Returns what the model says at points `(n, 1)` of one task."""
    said = model.predict_query(phi, x)
    if model.learner.distribution is not None:
        said = model.learner.distribution.mean(said)
    return np.asarray(said)[:, 0]


def draw(models, test, path):
    """Draws what each learner makes of one task."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    inputs, _ = test[0]
    task = int(np.abs(inputs["support_y"][:20]).max(axis=(1, 2)).argmax())
    x, y = inputs["support_x"][task], inputs["support_y"][task]
    line = np.linspace(-5, 5, 200)[:, None]
    # The two numbers of the task, of its points: y = a sin x + b cos x.
    sides = np.linalg.lstsq(np.concatenate([np.sin(x), np.cos(x)], 1), y, rcond=None)[0]
    truth = np.concatenate([np.sin(line), np.cos(line)], 1) @ sides
    columns = 5
    rows = -(-len(models) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(11, 2 * rows + 0.4),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(models) :]:
        axis.axis("off")
    for axis, (name, model) in zip(axes.flat, models.items(), strict=False):
        axis.plot(line, truth, color="0.7", label="truth")
        axis.plot(line, mean_of(model, model.adapt(x, y), line), color="#0072b2")
        axis.plot(x, y, "k.", markersize=7)
        axis.set_title(name, fontsize=9)
        axis.set_ylim(-6, 6)
    figure.suptitle(f"{len(x)} points (black), the truth (grey), what is said (blue)")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--learner", choices=LEARNERS, nargs="*", default=[*LEARNERS])
    parser.add_argument("--shots", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--minutes", type=float, default=4.0, help="of each learner")
    parser.add_argument("--episodes-per-batch", type=int)
    parser.add_argument("--queries", type=int, default=20, help="of a training task")
    parser.add_argument("--steps", type=int, default=200, help="of an epoch")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--test-tasks", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--picture", default="sinusoid.png")
    options = parser.parse_args()
    reuse_memory()

    batch = min(100, options.test_tasks)
    tests = {
        f"{shots}-shot": RegressionEpisodes(
            Sinusoids(),
            shots=shots,
            queries=100,
            episodes_per_batch=batch,
            num_batches=options.test_tasks // batch,
            seed=1000,
        )
        for shots in options.shots
    }
    table = ResultsTable(
        {name: False for name in tests},
        digits={"steps": 0},
        title=f"squared error on new sine waves, backend {keras.backend.backend()}",
    )
    models = {}
    for name in options.learner:
        settings = {**DEFAULTS, **SETTINGS.get(name, {})}
        for key in ("episodes_per_batch", "learning_rate"):
            settings[key] = getattr(options, key) or settings[key]
        for seed in range(options.seeds):
            print(f"{name}, seed {seed}")
            keras.utils.set_random_seed(seed)
            train = RegressionEpisodes(
                Sinusoids(),
                shots=(min(options.shots), max(options.shots)),
                queries=options.queries,
                episodes_per_batch=settings["episodes_per_batch"],
                seed=seed,
            )
            model = models[name] = build(name, settings)
            steps = fit_until(
                model,
                train,
                options.minutes,
                settings["learning_rate"],
                options.steps,
                metric="mse",
            )
            rows = {name: model}
            if name in STEPS_OF_DESCENT:
                inputs, _ = next(iter(tests.values()))[0]
                rows = {
                    f"{name}, steps: {taken}": with_steps(model, taken, inputs)
                    for taken in STEPS_OF_DESCENT[name]
                }
            for row, tested in rows.items():
                results = {"steps": steps}
                for key, test in tests.items():
                    found = tested.evaluate(test, verbose=0)
                    results[key] = found["mse"]
                    results[f"{key} +-"] = found["mse_ci95"]
                table.add(row, results)
    table.print()
    draw(models, next(iter(tests.values())), options.picture)
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    main()
