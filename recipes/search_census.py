"""Searches for what two tasks of Census-Income should share, within 15 CPU minutes.

    python recipes/search_census.py --data-dir data
    python recipes/search_census.py --data-dir data --distributed --workers 2

UCI Census-Income: income over 50K and never married, from 40 facts on a person. The
network is a trunk of three dense layers, and a head for each task. Searched are: what
is shared (a tree, cross-stitch units, a mixture of experts, soft sharing), how wide
layers are, dropout, the learning rate and the weighting of the losses, with no more
than `--max-parameters`. The objective is the mean improvement of the validation AUC
over single-task networks, in percent.

1. Single-task networks of the default size are trained, for the objective.
2. The search: `--trials` of Bayesian optimisation on `--rows` training rows. Trials
   that are worse than the median are stopped.
3. The winner is trained on all training rows with `--seeds` seeds, and so are
   single-task networks (in one model that shares nothing), hard sharing and MMoE, of as
   many parameters together, at most, as the winner has: the widest of each kind that
   the budget allows, with the winner's dropout and learning rate. Printed is the exact
   AUC on the test rows, mean and standard deviation.

Drawn are the winning tree (`search_census_tree.png`) and the report of the search with
the importance of each choice (`search_census.html`, `search_census.png`).

With `--distributed` the search is one of several processes on this machine: this
program is started again as a chief, which hands out trials, and as `--workers` workers,
which train them; a worker that dies is started again and goes on with its trial. The
same processes, each on a machine of its own with a common `--directory`, are a search
by several machines: the guide "Search for what to share" says how.

A search that was ended goes on where it was, as long as its `--directory` is there.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import keras
import keras_tuner
from sklearn.metrics import roc_auc_score

import keras_mtl
from keras_mtl import tuning
from keras_mtl.metrics import RelativeImprovement, ResultsTable

SHORT = {"income_over_50k": "income", "never_married": "married"}
TASKS = list(SHORT.values())
UNITS = (128, 64, 64)
BATCH = 512


def load(options):
    """Returns training, validation and test rows, with short names of tasks."""
    data = keras_mtl.datasets.load_census_income(options.data_dir)
    return [
        (split.x, {short: split.y[task] for task, short in SHORT.items()})
        for split in (data.train, data.validation, data.test)
    ]


def block(units):
    """Returns a function that makes a layer, with the rate of dropout searched."""

    def make(hp):
        rate = hp.Choice("dropout", [0.1, 0.0, 0.2, 0.4])
        return keras.Sequential(
            [keras.layers.Dense(units, "relu"), keras.layers.Dropout(rate)]
        )

    return make


def head():
    return keras.Sequential(
        [keras.layers.Dense(32, "relu"), keras.layers.Dense(1, "sigmoid")]
    )


def make_space(columns, width=(1.0, 0.25, 0.5, 1.5, 2.0), **arguments):
    return tuning.SharingHyperModel(
        keras.Input((columns,)),
        [block(units) for units in UNITS],
        dict.fromkeys(TASKS, head),
        loss=dict.fromkeys(TASKS, "binary_crossentropy"),
        metrics={task: [keras.metrics.AUC(name="auc")] for task in TASKS},
        weighting=["equal", "uncertainty"],
        width=width,
        **arguments,
    )


def make_tuner(space, train, validation, options):
    """Returns a tuner with the improvement over single-task networks as objective."""
    baselines = tuning.single_task_baselines(
        space,
        *train,
        validation_data=validation,
        metrics={task: f"{task}_auc" for task in TASKS},
        batch_size=BATCH,
        epochs=options.search_epochs,
        verbose=0,
        directory=Path(options.directory, "baselines"),
    )
    return keras_tuner.BayesianOptimization(
        space,
        tuning.relative_improvement_objective(baselines),
        max_trials=options.trials,
        num_initial_points=max(2, options.trials // 3),
        seed=0,
        directory=options.directory,
        project_name="search",
    )


def search(tuner, train, validation, options):
    tuning.search(
        tuner,
        *train,
        validation_data=validation,
        batch_size=BATCH,
        epochs=options.search_epochs,
        verbose=0,
    )


def search_by_processes(options):
    """Starts this program as a chief and as workers."""
    print(
        f"Starting a chief and {options.workers} workers on this machine. Keras Tuner "
        "tells them apart by the variables KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP "
        "and KERASTUNER_ORACLE_PORT; to go on several machines, set these by hand and "
        "start this program without --distributed on each."
    )
    command = [arg for arg in sys.argv if arg != "--distributed"]
    restarts = tuning.run_workers([sys.executable, *command], options.workers)
    print(f"The search is done. Workers that were started again: {restarts}")


class MeanAUC(keras.callbacks.Callback):
    """Puts the mean of the tasks' validation AUC into the logs."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_mean_auc"] = sum(logs[f"val_{task}_auc"] for task in TASKS) / 2


def test_scores(model, train, validation, test, epochs):
    """Trains a model and returns the exact AUC of each task on the test rows."""
    model.fit(
        *train,
        validation_data=validation,
        batch_size=BATCH,
        epochs=epochs,
        verbose=0,
        callbacks=[
            MeanAUC(),
            keras.callbacks.EarlyStopping(
                "val_mean_auc", mode="max", patience=3, restore_best_weights=True
            ),
        ],
    )
    predicted = model.predict(test[0], batch_size=4096, verbose=0)
    return {f"{t} AUC": roc_auc_score(test[1][t], predicted[t]) for t in TASKS}


def contestants(columns, hp, budget):
    """Yields by name functions that make compiled models of one budget."""

    def of_tree(tree):
        def make(width):
            space = make_space(columns, width=[width])
            return space.build_plan(hp, tuning.SharingPlan(tree))

        return make

    def mixture(width):
        space = make_space(columns, width=[width])
        experts = [
            keras.Sequential(
                [block(max(1, round(width * units)))(hp) for units in UNITS]
            )
            for _ in range(4)
        ]
        model = keras_mtl.models.mixture_of_experts(
            keras.Input((columns,)), {task: head() for task in TASKS}, experts
        )
        model.compile(space.make_optimizer(hp), loss=space.loss, metrics=space.metrics)
        return model

    yield "winner of the search", lambda: make_space(columns).build(hp)
    for name, make in {
        "single-task": of_tree(tuning.SharingTree.independent(TASKS, len(UNITS))),
        "hard sharing": of_tree(tuning.SharingTree.shared(TASKS, len(UNITS))),
        "MMoE of 4 experts": mixture,
    }.items():
        width = widest(make, budget)
        yield name, lambda make=make, width=width: make(width)


def widest(make, budget, low=0.02, high=16.0):
    """Returns the greatest factor for which a model has no more parameters."""
    for _ in range(12):
        middle = (low * high) ** 0.5
        fits = make(middle).count_params() <= budget
        low, high = (middle, high) if fits else (low, middle)
    return low


def compare(tuner, splits, options):
    """Trains the winner and its rivals on all rows, and prints their table."""
    train, validation, test = splits
    columns = train[0].shape[1]
    hp = tuner.get_best_hyperparameters()[0]
    budget = tuning.trial_results(tuner)[0].parameters
    scores = [f"{task} AUC" for task in TASKS]
    table = ResultsTable(
        {**dict.fromkeys(scores, True), "delta-m %": True},
        digits={**dict.fromkeys(scores, 4), "delta-m %": 2, "parameters": 0},
        title=f"Census-Income, test rows, {options.seeds} seeds",
    )
    made = dict(contestants(columns, hp, budget))
    for seed in range(options.seeds):
        results = {}
        for name, make in made.items():
            keras.utils.set_random_seed(seed)
            model = make()
            parameters = model.count_params()
            found = test_scores(model, train, validation, test, options.epochs)
            results[name] = {**found, "parameters": parameters}
            print(f"seed {seed}, {name}: {found}", flush=True)
        alone = {score: results["single-task"][score] for score in scores}
        improvement = RelativeImprovement(alone, True)
        for name, row in results.items():
            delta = improvement({score: row[score] for score in scores})
            table.add(name, {**row, "delta-m %": delta})
    table.print()


def leaderboard(tuner, top=8):
    """Prints the best trials."""
    results = tuning.trial_results(tuner)
    done = [result for result in results if result.score is not None]
    print(f"{len(results)} trials, {len(done)} completed. The best:")
    for result in done[:top]:
        sharing = " / ".join(result.sharing.splitlines())
        print(
            f"  {result.score:6.3f} %  {result.parameters:8,} parameters  "
            f"{1000 * result.step_seconds:5.1f} ms  {sharing}"
        )
    if len(done) >= 4:
        print("What mattered (part of the variance of the score):")
        for name, importance in list(tuning.choice_importance(tuner).items())[:8]:
            print(f"  {importance:6.2f}  {name}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--data-dir")
    parser.add_argument(
        "--directory", help="of the search; default: search_census_<rows>"
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--search-epochs", type=int, default=6)
    parser.add_argument("--max-parameters", type=int, default=200_000)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--distributed", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.directory = options.directory or f"search_census_{options.rows}"

    keras.utils.set_random_seed(0)
    train, validation, test = load(options)
    some = train[0][: options.rows], {t: y[: options.rows] for t, y in train[1].items()}
    space = make_space(
        train[0].shape[1],
        max_parameters=options.max_parameters,
        stop_hopeless_after=3,
    )
    began = time.perf_counter(), sum(os.times()[:4])
    tuner = make_tuner(space, some, validation, options)
    several = "KERASTUNER_ORACLE_IP" in os.environ
    if options.distributed and not several:
        search_by_processes(options)
        tuner.oracle.reload()
    else:
        search(tuner, some, validation, options)
    if several:
        return  # One of several processes; the rest is for the one that started them.
    # Of this process, and of those that it has started.
    wall, cpu = time.perf_counter() - began[0], sum(os.times()[:4]) - began[1]
    print(f"baselines and search: {wall / 60:.1f} minutes, CPU {cpu / 60:.1f}")
    leaderboard(tuner)
    tuning.search_report(tuner, "search_census.html", "Census-Income")
    tuning.search_report(tuner, "search_census.png", "Census-Income")
    tree = tuning.trial_results(tuner)[0].tree
    tree.plot("search_census_tree.png")
    print(tree)
    compare(tuner, (train, validation, test), options)


if __name__ == "__main__":
    main()
