"""Searches with the tuners of Keras Tuner, on a table of three tasks."""

import importlib
import json
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest
from settings import having

from keras_mtl import data, metrics, tuning
from keras_mtl.metrics.metric_direction import is_higher_better
from keras_mtl.tuning.hopeless_trials import StopHopelessTrial
from keras_mtl.tuning.trial_record import (
    FILE,
    TrialRecord,
    read_record,
    write_record,
)

TASKS = ["a", "b", "c"]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype("float32")
Y = {"a": X[:, :1], "b": 2 * X[:, :1] + X[:, 1:2], "c": np.sin(X[:, 2:3])}
OBJECTIVE = tuning.weighted_loss_objective(dict.fromkeys(TASKS, 1.0))


def space(**arguments):
    arguments = {
        "blocks": [lambda hp: keras.layers.Dense(hp.Choice("units", [4, 8]), "relu")]
        * 2,
        "heads": {task: lambda: keras.layers.Dense(1) for task in TASKS},
        "loss": dict.fromkeys(TASKS, "mse"),
        **arguments,
    }
    return tuning.SharingHyperModel(keras.Input((6,)), **arguments)


def searched(hypermodel, folder, tuner="RandomSearch", epochs=1, **arguments):
    if tuner == "Hyperband":
        arguments = {"max_epochs": 3, **arguments}
    else:
        arguments = {"max_trials": 3, **arguments}
    arguments = {"objective": OBJECTIVE, "seed": 1, **arguments}
    made = getattr(keras_tuner, tuner)(
        hypermodel, directory=folder, project_name="search", **arguments
    )
    made.search(X, Y, validation_data=(X, Y), epochs=epochs, verbose=0)
    return made


@pytest.mark.parametrize(
    "tuner, sharing",
    [
        ("RandomSearch", None),
        pytest.param("RandomSearch", "per_block", marks=pytest.mark.slow),
        pytest.param("BayesianOptimization", None, marks=pytest.mark.slow),
        pytest.param("Hyperband", None, marks=pytest.mark.slow),
        pytest.param("GridSearch", None, marks=pytest.mark.slow),
    ],
)
def test_any_tuner(tuner, sharing, tmp_path):
    done = searched(
        space(sharing=sharing, weighting=["equal", "uncertainty"]), tmp_path, tuner
    )
    results = tuning.trial_results(done)
    assert len(results) >= 3
    assert {result.status for result in results} == {"COMPLETED"}
    assert all(r.parameters and r.seconds and r.step_seconds for r in results)
    best = done.get_best_models()[0]
    assert tuning.sharing_tree(best) == results[0].tree
    assert best.count_params() == results[0].parameters
    losses = best.evaluate(X, Y, verbose=0, return_dict=True)
    found = sum(losses[f"{task}_loss"] for task in TASKS)
    assert found == pytest.approx(results[0].score, rel=1e-4)


def test_a_search_goes_on_where_it_ended(tmp_path):
    first = searched(space(), tmp_path, max_trials=2)
    scores = {r.trial_id: r.score for r in tuning.trial_results(first)}
    second = searched(space(), tmp_path, max_trials=3)
    found = {r.trial_id: r.score for r in tuning.trial_results(second)}
    assert len(found) == 3
    assert {trial: found[trial] for trial in scores} == scores


def test_executions_have_a_spread(tmp_path):
    done = searched(space(), tmp_path, max_trials=1, executions_per_trial=2)
    record = read_record(tmp_path / "search" / "trial_0")
    values = [OBJECTIVE.get_value(e["epochs"]["0"]) for e in record["executions"]]
    result = tuning.trial_results(done)[0]
    assert result.score == pytest.approx(np.mean(values))
    assert result.spread == pytest.approx(np.std(values, ddof=1))
    assert result.spread > 0


def test_what_is_too_large_is_rejected_before_training_and_ends_no_search(tmp_path):
    done = searched(space(max_parameters=10), tmp_path, max_trials=5)
    results = tuning.trial_results(done)
    assert len(results) == 5
    for result in results:
        assert result.status == "FAILED" and result.seconds is None
        assert "Rejected before training" in result.message
        assert result.parameters > 10


def test_what_diverges_is_recorded_and_ends_no_search(tmp_path):
    hypermodel = space(optimizer=lambda hp: keras.optimizers.SGD(1e30))
    done = searched(hypermodel, tmp_path, max_trials=4)
    results = tuning.trial_results(done)
    assert len(results) == 4
    assert {result.status for result in results} == {"FAILED"}


def test_an_error_in_the_program_ends_the_search(tmp_path):
    class Fails(tuning.SharingHyperModel):
        def fit(self, hp, model, *args, **kwargs):
            return super().fit(hp, model, X, {"a": Y["a"][:3]}, **kwargs)

    hypermodel = space()
    hypermodel.__class__ = Fails
    with pytest.raises(RuntimeError, match="consecutive failures"):
        searched(hypermodel, tmp_path, max_trials=5)


def test_parameters_and_time_may_cost(tmp_path):
    objective = tuning.mean_metric_objective(
        ["val_a_loss"], "min", cost={"parameters": 0.5, "step_seconds": 0.01}
    )
    done = searched(space(), tmp_path, max_trials=1, objective=objective)
    record = read_record(tmp_path / "search" / "trial_0")
    logs = record["executions"][0]["epochs"]["0"]
    expected = logs["val_a_loss"] + 0.5 * np.log2(logs["parameters"])
    expected += 0.01 * np.log2(logs["step_seconds"])
    assert tuning.trial_results(done)[0].score == pytest.approx(expected)


def test_relative_improvement_over_baselines(tmp_path):
    hypermodel = space(sharing=["hard"])
    arguments = {"validation_data": (X, Y), "epochs": 1, "verbose": 0}
    folder = tmp_path / "baselines"
    baselines = tuning.single_task_baselines(
        hypermodel, X, Y, directory=folder, seeds=2, **arguments
    )
    assert sorted(baselines.values) == ["a_loss", "b_loss", "c_loss"]
    written = json.loads((folder / "b_1" / "baseline.json").read_text())
    assert written["results"] == baselines.results["b"][1]
    # What is done is read.
    (folder / "b_1" / "baseline.json").write_text(
        json.dumps({**written, "results": {"b_loss": 7.0}})
    )
    again = tuning.single_task_baselines(
        hypermodel, X, Y, directory=folder, seeds=2, **arguments
    )
    assert again.results["a"] == baselines.results["a"]
    assert again.results["b"][1] == {"b_loss": 7.0}
    mean = np.mean([again.results["b"][0]["b_loss"], 7.0])
    assert again.values["b_loss"] == pytest.approx(mean)
    objective = tuning.relative_improvement_objective(again)
    done = searched(hypermodel, tmp_path, max_trials=1, objective=objective)
    logs = read_record(tmp_path / "search" / "trial_0")["executions"][0]["epochs"]["0"]
    results = {f"{task}_loss": logs[f"val_{task}_loss"] for task in TASKS}
    expected = metrics.RelativeImprovement(again.values, False)(results)
    assert tuning.trial_results(done)[0].score == pytest.approx(expected)


def test_hopeless_trials_are_stopped(tmp_path):
    """The sixth of six, which learns nothing, after its first epoch."""
    rates = iter([0.1] * 5 + [1e-9])
    current = []

    def optimizer(hp):
        return keras.optimizers.Adam(current[-1] if current else 0.1)

    class InTurn(tuning.SharingHyperModel):
        def fit(self, hp, model, *args, **kwargs):
            model.optimizer.learning_rate = next(rates)
            return super().fit(hp, model, *args, **kwargs)

    hypermodel = InTurn(
        keras.Input((6,)),
        [lambda hp: keras.layers.Dense(hp.Int("units", 8, 100), "relu")],
        {task: lambda: keras.layers.Dense(1) for task in TASKS},
        dict.fromkeys(TASKS, "mse"),
        sharing=["hard"],
        stop_hopeless_after=1,
        optimizer=optimizer,
    )
    done = searched(hypermodel, tmp_path, max_trials=6, epochs=3)
    results = {r.trial_id: r for r in tuning.trial_results(done)}
    assert "median" in results["5"].message
    record = read_record(tmp_path / "search" / "trial_5")
    assert list(record["executions"][0]["epochs"]) == ["0"]
    assert [results[str(i)].message for i in range(5)] == [""] * 5


def test_temperatures_of_a_mixture(tmp_path):
    mixture = data.TaskMixture(
        {"a": (X[:8], Y["a"][:8]), "b": (X, Y["b"])}, 16, layout="multi_label"
    )
    heads = {task: lambda: keras.layers.Dense(1) for task in "ab"}
    hypermodel = space(heads=heads, loss="mse", sampling=["uniform", 1.0])
    seen = []

    class Model:
        sharing_plan = None

        def count_params(self):
            return 1

        def fit(self, x, **kwargs):
            seen.append(x.probabilities)

    for value in ("uniform", "1.0"):
        hypermodel.fit(having({"sampling": value}), Model(), mixture)
    assert seen[0] == {"a": 0.5, "b": 0.5}
    assert seen[1] == pytest.approx({"a": 1 / 9, "b": 8 / 9})
    with pytest.raises(ValueError, match="TaskMixture"):
        hypermodel.fit(having({}), Model(), X, Y)


def test_affinities_put_good_trees_first(tmp_path):
    affinity = [[0, 1, -1], [1, 0, -1], [-1, -1, 0]]
    hypermodel = space(sharing=["branch"], affinity=affinity, num_trees=4)
    tree = hypermodel.plan(having({"tree/rank": 1})).tree
    assert tree == tuning.SharingTree.grouped(["ab", "c"], 2)
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    assert [entry.name for entry in hp.space] == ["sharing", "tree/rank"]


def test_tasks_that_stay_together():
    hypermodel = space(together=[["c", "a"]])
    assert hypermodel.units == [("a", "c"), "b"]
    hp = having({"sharing": "cross_stitch", "cross_stitch/shared_blocks": 0})
    assert hypermodel.plan(hp).tree == tuning.SharingTree.grouped(["ac", "b"], 2)
    model = hypermodel.build(hp)
    assert sorted(model.output) == TASKS


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"blocks": []}, "`blocks` must be"),
        ({"heads": {}}, "`heads` must be"),
        ({"width": [0.0]}, "`width` must be"),
        ({"max_parameters": 0}, "`max_parameters`"),
        ({"sharing": ["all"]}, "`sharing` must be"),
        ({"weighting": ["heavy"]}, "heavy"),
        ({"aggregator": ["sums"]}, "sums"),
        ({"together": [["a", "d"]]}, "`together` must be"),
        ({"affinity": np.zeros((2, 2))}, "3 by 3"),
        (
            {"heads": dict.fromkeys("abcdefghi", 1), "sharing": ["branch"]},
            "8 tasks at most",
        ),
        ({"stop_hopeless_after": 0}, "`stop_hopeless_after`"),
    ],
)
def test_arguments_are_checked_at_once(arguments, said):
    with pytest.raises(ValueError, match=said):
        space(**arguments)


def test_a_stem_is_not_trained_by_the_trial_before():
    stem = keras.layers.Dense(3)
    hypermodel = space(stem=stem)
    models = [hypermodel.build(having({})) for _ in range(2)]
    kernels = [model.layers[1].get_weights()[0] for model in models]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3 and not stem.built


def test_a_trial_that_diverges_spoils_no_table(tmp_path):
    hypermodel = space(optimizer=lambda hp: keras.optimizers.SGD(1e30))
    done = searched(hypermodel, tmp_path, max_trials=1, executions_per_trial=2)
    assert tuning.trial_results(done)[0].spread is None


@pytest.mark.parametrize("name, higher", [("a_auc", True), ("a_mae", False)])
def test_directions_of_metrics(name, higher):
    assert is_higher_better(name, "a") == higher
    with pytest.raises(ValueError, match="a_r2_score"):
        is_higher_better("a_r2_score", "a")
    assert is_higher_better("a_r2_score", "a", {"a_r2_score": True})


def test_the_record_is_beside_that_of_keras_tuner(tmp_path):
    searched(space(), tmp_path, max_trials=1)
    names = {path.name for path in (tmp_path / "search" / "trial_0").iterdir()}
    assert {FILE, "trial.json"} <= names
    assert not list(Path(tmp_path).rglob("*.part"))


@pytest.mark.slow
def test_which_choices_mattered(tmp_path):
    """Of two, that of which the score is made."""
    hypermodel = space(sharing=["hard"], optimizer=lambda hp: "adam")
    objective = tuning.mean_metric_objective(["parameters"], "min")
    done = searched(hypermodel, tmp_path, max_trials=2, objective=objective)
    with pytest.raises(ValueError, match="4 completed"):
        tuning.choice_importance(done)
    wider = space(sharing=["hard"], width=[1, 8])
    done = searched(wider, tmp_path / "more", max_trials=16, objective=objective)
    found = tuning.choice_importance(done)
    names = list(found)
    assert (names[0], names[-1]) == ("width", "learning_rate")
    assert 0.5 < found["width"] <= 1


def test_networks_that_share_nothing_have_no_aggregator():
    """The setting exists, and has a model: there is nothing to aggregate."""
    hypermodel = space(sharing=["branch"], aggregator=["pcgrad"])
    hp = keras_tuner.HyperParameters()
    for tree, name in (
        (tuning.SharingTree.independent(TASKS, 2), "NoneType"),
        (tuning.SharingTree.shared(TASKS, 2), "PCGrad"),
    ):
        model = hypermodel.build_plan(hp, tuning.SharingPlan(tree))
        assert type(model.aggregator).__name__ == name
        model.fit(X, Y, verbose=0)


def test_baselines_of_other_metrics_are_trained_anew(tmp_path):
    hypermodel = space(metrics={task: ["mae"] for task in TASKS})
    arguments = {"validation_data": (X, Y), "epochs": 1, "verbose": 0}
    arguments["directory"] = tmp_path
    tuning.single_task_baselines(hypermodel, X, Y, **arguments)
    names = {task: f"{task}_mae" for task in TASKS}
    found = tuning.single_task_baselines(hypermodel, X, Y, metrics=names, **arguments)
    assert sorted(found.values) == sorted(names.values())
    with pytest.raises(ValueError, match="val_a_accuracy"):
        tuning.single_task_baselines(
            hypermodel, X, Y, metrics={"a": "a_accuracy"}, **arguments
        )


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 2},
        {"blocks": [keras.layers.Dense(5, "relu")] * 2},
        {"optimizer": lambda hp: keras.optimizers.Adam(0.5)},
        {"optimizer": lambda hp: keras.optimizers.Adamax(0.05)},
        {"loss": dict.fromkeys(TASKS, "mae")},
        {"compile_arguments": {"loss_weights": {"a": 0.1, "b": 1.0, "c": 1.0}}},
    ],
)
def test_baselines_of_other_settings_are_trained_anew(change, tmp_path):
    settings = {
        "blocks": [keras.layers.Dense(4, "relu")] * 2,
        "optimizer": lambda hp: keras.optimizers.Adam(0.05),
    }
    arguments = {"validation_data": (X, Y), "epochs": 1, "verbose": 0}
    arguments["directory"] = tmp_path

    def found(**change):
        fit = {k: v for k, v in change.items() if k == "epochs"}
        made = space(**settings | {k: v for k, v in change.items() if k not in fit})
        return tuning.single_task_baselines(made, X, Y, **arguments | fit).results

    first = found()
    keras.layers.Dense(1)  # Names of layers count up.
    assert found() == first
    assert found(**change)["a"] != first["a"]


def test_a_baseline_has_callbacks_and_weights_of_its_own():
    hypermodel = space(compile_arguments={"loss_weights": dict.fromkeys(TASKS, 2.0)})
    seen = []

    class Seen(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.trained = []

        def on_train_begin(self, logs=None):
            self.trained.append(self.model)
            seen.append(len(self.trained))

    tuning.single_task_baselines(
        hypermodel,
        X,
        Y,
        validation_data=(X, Y),
        epochs=1,
        verbose=0,
        callbacks=[Seen()],
        sample_weight={task: np.ones(64) for task in TASKS},
    )
    assert seen == [1, 1, 1]


def test_the_reason_of_a_failure_is_in_the_record(tmp_path):
    """Where a chief that is not told finds it."""

    class Fails(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            raise ValueError("no such thing\nand more")

    done = keras_tuner.RandomSearch(
        space(), OBJECTIVE, max_trials=1, seed=1, directory=tmp_path
    )
    done.search(X, Y, validation_data=(X, Y), verbose=0, callbacks=[Fails()])
    (result,) = tuning.trial_results(done)
    assert result.status == "FAILED"
    assert result.message == "ValueError: no such thing"
    done.oracle.trials[result.trial_id].message = None
    assert tuning.trial_results(done)[0].message == "ValueError: no such thing"


def test_a_promoted_trial_is_compared_from_where_it_goes_on(tmp_path):
    """Epochs that Hyperband has spent on another trial are not its own."""
    tuner = keras_tuner.RandomSearch(space(), "val_loss", 9, directory=tmp_path)

    class Model:
        stop_training = False

    def stopped(losses, first):
        about = Path(tuner.get_trial_dir("new"))
        record = TrialRecord(about, {})
        record.execution = {"began": 0.0, "stopped": None, "epochs": {}}
        callback = StopHopelessTrial(record, tuner, after=2)
        callback.set_model(Model())
        ends = []
        for epoch, loss in enumerate(losses, first):
            record.execution["epochs"][str(epoch)] = {"val_loss": loss}
            callback.on_epoch_end(epoch, {"val_loss": loss})
            ends.append(callback.model.stop_training)
        return ends

    for number in range(5):
        for first, loss in ((0, 5.0), (3, 1.0)):
            epochs = {str(first + e): {"val_loss": loss} for e in range(3)}
            folder = Path(tuner.get_trial_dir(f"{first}_{number}"))
            write_record(folder, {"executions": [{"began": 1.0, "epochs": epochs}]})
    # After two epochs of its own, and worse than the others that began there.
    assert stopped([2.0, 2.0], 3) == [False, True]
    assert stopped([0.5, 0.5], 3) == [False, False]
    # Of those that began with the first epoch it is one of the best.
    assert stopped([2.0, 2.0], 0) == [False, False]


def test_more_tasks_than_trees_are_for_have_all_that_fits():
    names = [f"t{i}" for i in range(9)]
    many = {
        "heads": {name: lambda: keras.layers.Dense(1) for name in names},
        "loss": dict.fromkeys(names, "mse"),
    }
    assert "branch" not in space(**many).sharing
    assert {"hard", "cross_stitch"} <= set(space(**many).sharing)
    assert "branch" in space(**many, affinity=np.ones((9, 9))).sharing
    assert "branch" in space(**many, together=[names[:2]]).sharing
    with pytest.raises(ValueError, match="8"):
        space(**many, sharing=["branch"])


@pytest.mark.parametrize("width, units", [(2.0, [6, 12, 12]), (1.0, [6, 6, 6])])
def test_wider_blocks_that_know_their_inputs(width, units):
    def block():
        return keras.Sequential(
            [keras.Input((6,)), keras.layers.Dense(6), keras.layers.Dense(6)]
        )

    model = space(blocks=[block] * 2, width=[width], sharing=["hard"]).build(having({}))
    wide = [x for x in model.layers if isinstance(x, keras.Sequential)][:2]
    found = [[w.shape[0] for w in x.weights[::2]] for x in wide]
    assert found == [units[:2], units[1:]]
    experts = {
        "sharing": "mixture_of_experts",
        "mixture_of_experts/shared_blocks": 1,
        "mixture_of_experts/width": 0.5,
    }
    made = space(blocks=[block] * 2, width=[width], sharing=["mixture_of_experts"])
    assert made.build(having(experts))(X)["a"].shape == (64, 1)


def test_what_is_infinite_is_no_result(tmp_path):
    done = searched(
        space(optimizer=lambda hp: keras.optimizers.SGD(1e18)), tmp_path, epochs=2
    )
    for result in tuning.trial_results(done):
        assert (result.status, result.score) == ("FAILED", None)
        assert "weighted_loss is not finite in any epoch" in result.message


def test_without_keras_tuner_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"keras_mtl\[tuner\]"):
        importlib.reload(tuning)
