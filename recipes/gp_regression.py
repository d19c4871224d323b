"""Functions drawn from Gaussian processes: neural processes against the best there is.

    KERAS_BACKEND=jax python recipes/gp_regression.py

The one-dimensional benchmark of bootstrapping and transformer neural processes. A task
is a function with a length of [0.1, 0.6] and a scale of [0.1, 1], points of [-2, 2],
noise of 0.02, and 3 to 46 points as its context. Printed is the log-likelihood of a
point outside of the context, its mean over test tasks with the 95 % interval, and what
is lacking to the Bayes-optimal prediction on the same tasks: that of the Gaussian
process itself, its length and scale integrated out. No learner can be better.

Each learner is trained for some minutes; published numbers are of 100,000 steps with
100 tasks each. Drawn are predictions for one task of each kernel: the mean, and the
95 % interval.
"""

import argparse

import keras
import numpy as np
from allocation import reuse_memory
from until_time import fit_until

import keras_mtl
from keras_mtl import learners
from keras_mtl.data import GaussianProcesses, RegressionEpisodes
from keras_mtl.metrics import ResultsTable

LEARNERS = {
    "cnp": lambda: learners.ConditionalNeuralProcess(output_dim=1),
    "anp": lambda: learners.AttentiveNeuralProcess(output_dim=1),
    "np": lambda: learners.NeuralProcess(output_dim=1),
    "convcnp": lambda: learners.ConvolutionalNeuralProcess(output_dim=1),
    "transformer": lambda: learners.InContextTransformer(output_dim=1, depth=4),
}
CONTEXT = (3, 46)
TARGETS = 24
OPTIMUM = "Bayes-optimal"


def build(name, options):
    """Returns the learner, compiled; the latent one has an objective of its own."""
    model = keras_mtl.MetaModel(LEARNERS[name]())
    model.compile(
        keras.optimizers.Adam(options.learning_rate, global_clipnorm=10.0),
        loss=keras_mtl.losses.GaussianNegativeLogLikelihood(),
        metrics=[
            keras_mtl.metrics.LogLikelihood(),
            keras_mtl.metrics.IntervalCoverage(name="coverage"),
        ],
    )
    return model


def optimum(tasks, test, grid):
    """Returns the results of the Bayes-optimal prediction."""
    likelihoods, covered = [], []
    for batch in range(test.num_batches):
        inputs, y = test[batch][:2]
        arrays = (inputs[key] for key in ("support_x", "support_y", "query_x"))
        best = tasks.posterior(*arrays, inputs["support_mask"], grid=grid)
        likelihoods.extend(best.log_likelihood(y).mean(axis=1))
        covered.append(np.abs(y[..., 0] - best.mean()) < 1.96 * best.scale())
    half = 1.96 * np.std(likelihoods) / np.sqrt(len(likelihoods))
    return {
        "log-likelihood": np.mean(likelihoods),
        "+-": half,
        "gap": 0.0,
        "in 95 % interval": np.mean(covered),
    }


def draw(trained, options):
    """Draws what each learner, and the best there is, make of one task of a kernel."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    line = np.linspace(-2, 2, 200)[:, None]
    columns = [*options.learner, OPTIMUM]
    figure, axes = plt.subplots(
        len(trained),
        len(columns),
        figsize=(2.2 * len(columns), 2.2 * len(trained)),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for row, (kernel, models) in zip(axes, trained.items(), strict=True):
        tasks = GaussianProcesses(kernel, length=0.3, scale=1.0)
        x, y = tasks.draw(np.random.default_rng(3), 1, 8)
        best = GaussianProcesses(kernel).posterior(x, y, line[None])
        curves = {OPTIMUM: (best.mean()[0], best.scale()[0])}
        for name, model in models.items():
            said = model.predict_query(model.adapt(x[0], y[0]), line)
            curves[name] = said[:, 0, 0], said[:, 0, 1]
        for axis, name in zip(row, columns, strict=True):
            mean, scale = curves[name]
            low, high = mean - 1.96 * scale, mean + 1.96 * scale
            axis.fill_between(line[:, 0], low, high, color="#0072b2", alpha=0.25)
            axis.plot(line[:, 0], mean, color="#0072b2")
            axis.plot(x[0, :, 0], y[0, :, 0], "k.", markersize=7)
            axis.set_title(f"{kernel}: {name}", fontsize=9)
    figure.savefig(options.picture, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--learner", choices=LEARNERS, nargs="*", default=[*LEARNERS])
    parser.add_argument("--kernel", nargs="+", default=["rbf", "matern52"])
    parser.add_argument("--minutes", type=float, default=4.0, help="of each learner")
    parser.add_argument("--episodes-per-batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=200, help="of an epoch")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--test-tasks", type=int, default=3000)
    parser.add_argument("--grid", type=int, default=20, help="of length and of scale")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", default="gp_regression.png")
    options = parser.parse_args()
    reuse_memory()

    trained = {}
    for kernel in options.kernel:
        tasks = GaussianProcesses(kernel)
        batch = min(50, options.test_tasks)
        test = RegressionEpisodes(
            tasks,
            shots=CONTEXT,
            queries=TARGETS,
            episodes_per_batch=batch,
            num_batches=options.test_tasks // batch,
            shapes=1,
            seed=42,
        )
        table = ResultsTable(
            {"log-likelihood": True, "gap": False},
            digits={"steps": 0},
            title=f"{kernel}, of a target point, backend {keras.backend.backend()}",
        )
        best = optimum(tasks, test, options.grid)
        trained[kernel] = {}
        for name in options.learner:
            print(f"{kernel}: {name}")
            keras.utils.set_random_seed(options.seed)
            train = RegressionEpisodes(
                tasks,
                shots=CONTEXT,
                queries=TARGETS,
                queries_with_support=True,
                episodes_per_batch=options.episodes_per_batch,
                seed=options.seed,
            )
            model = trained[kernel][name] = build(name, options)
            steps = fit_until(
                model, train, options.minutes, options.learning_rate, options.steps
            )
            found = model.evaluate(test, verbose=0)
            table.add(
                name,
                {
                    "log-likelihood": found["log_likelihood"],
                    "+-": found["log_likelihood_ci95"],
                    "gap": best["log-likelihood"] - found["log_likelihood"],
                    "in 95 % interval": found["coverage"],
                    "steps": steps,
                },
            )
        table.add(OPTIMUM, best)
        table.print()
    draw(trained, options)
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    main()
