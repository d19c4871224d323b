"""Studies of transfer: what is trained, and what is not trained again."""

import keras
import numpy as np
import pytest

import keras_mtl
from keras_mtl.analysis import TransferStudy
from keras_mtl.analysis.study_plan import StudyPlan

TASKS = ["a", "b", "c"]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 4)).astype("float32")
Y = {t: (X @ RNG.normal(size=(4, 1))).astype("float32") for t in TASKS}
# Labels of task c are missing in a third of the rows.
Y["c"][::3] = np.nan


def build(tasks, width=1.0, learning_rate=0.01):
    built.append(tuple(tasks))
    x = keras.Input((4,))
    h = keras.layers.Dense(round(6 * width), "tanh", name="trunk")(x)
    model = keras_mtl.MultiTaskModel(x, {t: keras.layers.Dense(1)(h) for t in tasks})
    model.compile(keras.optimizers.Adam(learning_rate), loss="mse")
    return model


built = []


class Fits(keras.callbacks.Callback):
    """Counts trainings, also those of its copies."""

    count = 0

    def on_train_begin(self, logs=None):
        Fits.count += 1


def study(folder, data=(X, Y), tasks=TASKS, seeds=2, make=build, **arguments):
    x, y = data
    data = x, {t: y[t] for t in tasks}
    arguments = {"epochs": 2, "batch_size": 16, "callbacks": [Fits()], **arguments}
    return TransferStudy(make, data, data, seeds=seeds, directory=folder, **arguments)


def fits(made, **arguments):
    """Returns how many trainings a run needs."""
    before = Fits.count
    made.run(verbose=0, **arguments)
    return Fits.count - before


SHORT = {"tasks": TASKS[:2]}
FEW = {"remedies": None, "fractions": (), "pairs": False, "leave_one_out": False}


def test_what_is_done_is_not_done_again(tmp_path):
    """More seeds and more kinds take their own trainings alone, other settings all."""
    assert fits(study(tmp_path, **SHORT), **FEW) == 2 * 4  # Two alone, joint, wide.
    first = study(tmp_path, **SHORT).measures()
    assert fits(study(tmp_path, **SHORT), **FEW) == 0
    assert fits(study(tmp_path, **SHORT, seeds=3), **FEW) == 4
    more = {**FEW, "remedies": {"pcgrad": {"aggregator": "pcgrad"}}}
    assert fits(study(tmp_path, **SHORT, seeds=3), **more) == 3
    assert fits(study(tmp_path, **SHORT, seeds=3, epochs=1), **FEW) == 3 * 4
    assert fits(study(tmp_path, **SHORT, seeds=3), **FEW) == 3 * 4
    again = study(tmp_path, **SHORT).run(verbose=0, **FEW).measures()
    assert again.tasks["a"].gain == first.tasks["a"].gain
    other = X + 1, Y
    assert fits(study(tmp_path, other, **SHORT), **FEW) == 2 * 4


@pytest.mark.slow
def test_all_that_there_is(tmp_path):
    made = study(tmp_path)
    made.run(verbose=0)
    found = made.measures()
    assert found.task_names == tuple(TASKS)
    a = found.tasks["a"]
    assert set(a.pairs) == set(a.without) == {"b", "c"}
    assert set(a.remedies) == {"scale_invariant", "upgrad"}
    assert list(a.curve) == [0.25, 0.5, 1.0]
    assert a.wide is not None and found.width == 3.0
    assert np.isfinite(found.transfer[~np.eye(3, dtype=bool)]).all()
    assert list(found.conflict.layers) == ["trunk", "all shared"]
    assert np.isfinite(found.conflict.cosines).all()
    assert np.isfinite(found.affinity).all()
    assert found.look_ahead.shape == (3, 3)
    assert found.similarity[0].shape == (3, 3)
    report = made.report(tmp_path / "page.html", max_networks=2)
    assert set(report.advice) == set(TASKS)
    for groups in (report.groups, report.groups_of_pairs):
        assert sorted(task for group in groups for task in group) == TASKS
    assert 1 <= len(report.groups) <= 2
    assert "epochs" in report.commands


@pytest.mark.slow
def test_part_of_the_rows_takes_as_many_steps(tmp_path):
    steps = []

    def count(model):
        return int(keras.ops.convert_to_numpy(model.optimizer.iterations))

    class Steps(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            steps.append(count(self.model))

    made = study(tmp_path, **SHORT, callbacks=[Steps()], seeds=1)
    made.run(verbose=0, **{**FEW, "fractions": (1 / 3,)})
    assert set(steps) == {6}


@pytest.mark.slow
def test_all_companies_have_the_same_budget_of_tuning(tmp_path):
    """Each is tried with all settings on the first seed, and keeps the best."""
    settings = [{"learning_rate": 1e-6}, {"learning_rate": 0.05}]
    made = study(tmp_path, **SHORT, settings=settings)
    assert fits(made, **FEW) == 4 * 3
    assert set(StudyPlan.read(tmp_path).settings) == {1}


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        return X[rows], {t: Y[t][rows] for t in TASKS[:2]}


@pytest.mark.slow
def test_datasets(tmp_path):
    made = TransferStudy(
        build, Batches(), Batches(), seeds=1, directory=tmp_path, epochs=1
    )
    assert made.task_names == ["a", "b"]
    made.run(verbose=0, remedies=None)
    assert np.isfinite(made.measures().tasks["a"].gain.mean)
    with pytest.raises(ValueError, match="`fractions` are parts of arrays"):
        made.run(fractions=(0.5,))


def test_lists_are_tuples(tmp_path):
    x, y = X, {t: Y[t] for t in TASKS[:2]}
    made = TransferStudy(build, [x, y], [x, y], seeds=1, directory=tmp_path)
    assert fits(made, **FEW) == 0  # It has no callback that counts.
    assert np.isfinite(made.measures().tasks["b"].gain.mean)


def test_lines_say_how_far_it_is(tmp_path, capsys):
    study(tmp_path, **SHORT, seeds=1).run(**FEW)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1/4 a, seed 0: ")
    assert "minutes left" in lines[0]
    assert lines[-1].startswith("4/4 a + b, wide, seed 0: ")
    study(tmp_path, **SHORT, seeds=1).run(**FEW)
    assert "on record" in capsys.readouterr().out


def no_width(tasks):
    return build(tasks)


def other_tasks(tasks):
    return build(TASKS)


def test_errors(tmp_path):
    def made(**arguments):
        return study(tmp_path, **{**SHORT, **arguments})

    with pytest.raises(ValueError, match="two tasks or more"):
        made(tasks=["a"])
    with pytest.raises(ValueError, match=r"`metrics`.*Received: \['z'\]"):
        made(metrics={"z": "z_loss"})
    with pytest.raises(ValueError, match="`sample_weight` is given by"):
        made(sample_weight=1)
    with pytest.raises(ValueError, match="labels in a dict"):
        TransferStudy(build, (X, Y["a"]), (X, Y["a"]))
    with pytest.raises(ValueError, match="`run` must be called first"):
        made().measures()
    with pytest.raises(ValueError, match="argument `width`"):
        made(make=no_width).run(width=2.0, verbose=0)
    with pytest.raises(ValueError, match="`fractions` must be less than 1"):
        made().run(fractions=(1.0,), verbose=0)
    with pytest.raises(ValueError, match=r"other names.*\['wide'\]"):
        made().run(remedies={"wide": {}}, verbose=0)
    with pytest.raises(ValueError, match=r"compiled model of the tasks \['a'\]"):
        made(make=other_tasks).run(verbose=0)
    with pytest.raises(ValueError, match="`MultiTaskModel`"):
        made(make=lambda tasks: keras.Sequential()).run(verbose=0)
    with pytest.raises(ValueError, match=r"names of logs.*'a_auc'"):
        made(metrics={"a": "a_auc"}).run(verbose=0)


def test_a_training_that_diverges_is_named(tmp_path):
    made = study(tmp_path, **SHORT, settings=[{"learning_rate": 1e30}])
    with pytest.raises(ValueError, match="training of a, seed 0 has diverged"):
        made.run(verbose=0)
