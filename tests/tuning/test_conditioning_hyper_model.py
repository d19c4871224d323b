"""Searches for where and how a network with one output is told the task."""

import keras
import keras_tuner
import numpy as np
import pytest
from settings import having

from keras_mtl import data, layers, tuning

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(90, 4)).astype("float32")
TASK = np.arange(90) % 3
X = {"x": ROWS, "task": TASK}
Y = (ROWS[:, :1] * (TASK[:, None] - 1)).astype("float32")
KINDS = {
    "concatenate": layers.ConcatConditioning,
    "add": layers.AdditiveConditioning,
    "film": layers.FiLM,
}


def inputs():
    return {"x": keras.Input((4,)), "task": keras.Input((), dtype="int32")}


def space(**arguments):
    arguments = {
        "inputs": inputs(),
        "blocks": [lambda hp: keras.layers.Dense(hp.Choice("units", [8, 16]), "relu")]
        * 2,
        "head": lambda: keras.layers.Dense(1),
        "loss": "mse",
        "num_tasks": 3,
        **arguments,
    }
    return tuning.ConditioningHyperModel(**arguments)


def searched(hypermodel, folder, max_trials=4, x=X, y=Y, **arguments):
    tuner = keras_tuner.RandomSearch(
        hypermodel, "val_loss", max_trials=max_trials, seed=1, directory=folder
    )
    tuner.search(x, y, validation_data=(X, Y), verbose=0, **arguments)
    return tuner


def test_any_subset_of_places_and_any_way():
    for at in range(3):
        for way, kind in KINDS.items():
            values = {f"conditioning_{place}": "none" for place in range(3)}
            values[f"conditioning_{at}"] = way
            model = space().build(having(values))
            found = [x for x in model.layers if isinstance(x, tuple(KINDS.values()))]
            assert [type(x) for x in found] == [kind]
            assert (
                model.conditioning
                == f"before {['block 0', 'block 1', 'head'][at]}: {way}"
            )
            names = [x.name for x in model.layers]
            after = ["block_0", "block_1", model.layers[-1].name][at]
            assert names.index(found[0].name) < names.index(after)


def test_conditioned_nowhere_tasks_get_the_same_answer():
    nowhere = {f"conditioning_{place}": "none" for place in range(3)}
    for values, differ in (
        (nowhere, False),
        ({**nowhere, "conditioning_1": "film"}, True),
    ):
        model = space().build(having(values))
        for variable in model.trainable_variables:
            variable.assign(RNG.normal(size=variable.shape))
        rows = np.repeat(ROWS[:1], 3, axis=0)
        y = model.predict({"x": rows, "task": np.arange(3)}, verbose=0)
        assert (np.ptp(y) > 1e-4) == differ


def test_a_search_finds_that_tasks_differ(tmp_path):
    tuner = searched(
        space(
            how=["film"], places=[0], optimizer=lambda hp: keras.optimizers.Adam(0.03)
        ),
        tmp_path,
        epochs=15,
    )
    results = tuning.trial_results(tuner)
    assert {r.hyperparameters["conditioning_0"] for r in results} == {"film", "none"}
    assert results[0].sharing == "before block 0: film"
    assert results[0].hyperparameters["conditioning_0"] == "film"
    assert "conditioning_1" not in results[0].hyperparameters
    assert all(result.parameters and result.step_seconds for result in results)
    assert tuner.get_best_models()[0].predict(X, verbose=0).shape == (90, 1)
    page = tuning.search_report(tuner, tmp_path / "report.html").read_text()
    assert "before block 0: film" in page


def test_embeddings_raw_descriptors_width_and_budget(tmp_path):
    hypermodel = space(embedding_dim=["one_hot", 5], width=[1, 2])
    values = {"embedding_dim": "5", "width": 2.0, "conditioning_0": "concatenate"}
    model = hypermodel.build(having(values))
    assert model.get_layer("block_0").units == 16
    assert model.get_layer("block_0").kernel.shape[0] == 4 + 5
    raw = {"x": keras.Input((4,)), "task": keras.Input((7,))}
    model = space(inputs=raw, num_tasks=None).build(having(values))
    assert model.get_layer("block_0").kernel.shape[0] == 4 + 7
    tuner = searched(space(max_parameters=1), tmp_path, max_trials=1)
    (result,) = tuning.trial_results(tuner)
    assert "Rejected before training" in result.message


def test_blocks_that_know_their_inputs():
    """A descriptor that is put beside the features makes them more."""

    def block():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])

    model = space(blocks=[block] * 2).build(having({"conditioning_0": "concatenate"}))
    assert model.get_layer("block_0").weights[0].shape[0] == 4 + 3


def test_several_inputs_need_a_stem():
    more = {**inputs(), "other": keras.Input((2,))}
    with pytest.raises(ValueError, match="give a `stem`"):
        space(inputs=more)
    model = space(
        inputs=more, stem=lambda x: keras.layers.Concatenate()([x["x"], x["other"]])
    ).build(having({"conditioning_0": "none"}))
    assert model.get_layer("block_0").kernel.shape[0] == 6


def test_batches_of_a_mixture(tmp_path):
    tasks = {f"t{t}": (ROWS[TASK == t], Y[TASK == t]) for t in range(3)}
    mixture = data.TaskMixture(tasks, batch_size=9, layout="task_index")
    tuner = searched(space(sampling=["uniform", 2.0]), tmp_path, 1, mixture, None)
    assert tuning.trial_results(tuner)[0].status == "COMPLETED"


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"inputs": {"x": keras.Input((4,))}}, "must be a dict with the task's input"),
        ({"task": "language"}, "'language'"),
        ({"blocks": []}, "`blocks`"),
        ({"how": ["gates"]}, "`how`"),
        ({"places": [3]}, r"some of \[0, 1, 2\].*Received: places=\[3\]"),
        ({"places": []}, "`places`"),
        ({"num_tasks": None, "embedding_dim": [4]}, "needs `num_tasks`"),
        ({"embedding_dim": []}, "`embedding_dim`"),
        ({"embedding_dim": ["onehot"]}, "embedding_dim"),
        ({"embedding_dim": [0]}, "embedding_dim"),
        ({"num_tasks": 0}, "num_tasks"),
        ({"width": [0]}, "`width`"),
    ],
)
def test_arguments_are_checked_at_once(arguments, said):
    with pytest.raises(ValueError, match=said):
        space(**arguments)
