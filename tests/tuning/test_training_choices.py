"""Weightings, aggregators and conditionings as hyperparameters."""

import keras
import keras_tuner
import numpy as np
import pytest
from settings import having, settings

from keras_mtl import aggregation, layers, tuning, weighting
from keras_mtl.tuning.training_choices import CONDITIONING


def test_a_weighting_is_one_of_its_own():
    given = weighting.Uncertainty()
    found = [
        tuning.choose_weighting(having({"weighting": "uncertainty"}), ["equal", given])
        for _ in range(2)
    ]
    assert all(isinstance(each, weighting.Uncertainty) for each in found)
    assert found[0] is not found[1] and given not in found
    default = tuning.choose_weighting(having({}), ["equal", given])
    assert isinstance(default, weighting.Equal)


def test_names_do_not_depend_on_what_was_made_before():
    """A search that goes on in another program knows its values."""
    for _ in range(2):
        hp = keras_tuner.HyperParameters()
        tuning.choose_weighting(hp, [weighting.Uncertainty(), "equal"])
        assert hp.space[0].values == ["uncertainty", "equal"]
        named = weighting.Uncertainty(name="other_2")  # a name of its own
        tuning.choose_weighting(hp := keras_tuner.HyperParameters(), [named, "equal"])
        assert hp.space[0].values == ["other_2", "equal"]
    with pytest.raises(ValueError, match=r"of its own.*'uncertainty' twice"):
        tuning.choose_weighting(hp, [weighting.Uncertainty() for _ in range(2)])


def test_an_aggregator_and_its_place():
    hp = keras_tuner.HyperParameters()
    given = [None, "pcgrad"]
    places = ["representation", "parameters"]
    assert tuning.choose_aggregator(hp, given, places)["aggregator"] is None
    assert "aggregate_at" not in hp.values
    found = list(settings(hp.space))
    assert len(found) == 3  # none, and two places
    hp = having({"aggregator": "pcgrad"})
    found = tuning.choose_aggregator(hp, given, places)
    assert isinstance(found["aggregator"], aggregation.PCGrad)
    assert found["aggregate_at"] == "representation"


@pytest.mark.parametrize(
    "choose, given, said",
    [
        (tuning.choose_weighting, "equal", "must be a list"),
        (tuning.choose_weighting, ["equal", "equal"], "twice"),
        (tuning.choose_weighting, ["equall"], "equall"),
        (tuning.choose_aggregator, [], "must be a list"),
        (tuning.choose_aggregator, ["pcgrads"], "pcgrads"),
    ],
)
def test_names(choose, given, said):
    with pytest.raises(ValueError, match=said):
        choose(having({}), given)
    with pytest.raises(ValueError, match="`places` must be"):
        tuning.choose_aggregator(having({}), [None], ["trunk"])


@pytest.mark.parametrize("way", CONDITIONING)
@pytest.mark.parametrize("shape", [(6,), (4, 4, 6)])
def test_features_depend_on_the_descriptor(way, shape):
    hp = having({"conditioning_0": "none", "conditioning_1": way})
    condition = tuning.choose_conditioning(hp, 2)
    x, z = keras.Input(shape), keras.Input((3,))
    assert condition(0, x, z) is x
    y = condition(1, x, z)
    model = keras.Model([x, z], y)
    for variable in model.variables:  # FiLM starts as the identity
        variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    data = np.ones((2, *shape), "float32")
    found = model.predict([data, np.eye(3)[:2]], verbose=0)
    assert found.shape[1:-1] == data.shape[1:-1]
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_any_subset_of_places():
    hp = keras_tuner.HyperParameters()
    tuning.choose_conditioning(hp, 2, ["film", "add"])
    assert len(list(settings(hp.space))) == 9
    with pytest.raises(ValueError, match="`how` must be"):
        tuning.choose_conditioning(hp, 2, ["multiply"])


def test_a_conditioned_model_trains():
    x, task = keras.Input((4,), name="x"), keras.Input((), name="task", dtype="int32")
    z = layers.TaskEmbedding(2, 3)(task)
    condition = tuning.choose_conditioning(having({}), 1)
    import keras_mtl

    y = keras.layers.Dense(1)(condition(0, x, z))
    model = keras_mtl.MultiTaskModel(
        {"x": x, "task": task}, y, task_names=["a", "b"], task_input="task"
    )
    model.compile("adam", loss="mse")
    data = {"x": np.ones((4, 4), "float32"), "task": np.array([0, 1, 0, 1])}
    assert np.isfinite(model.fit(data, np.ones((4, 1)), verbose=0).history["loss"][0])


def test_places_that_are_not_there():
    with pytest.raises(ValueError, match=r"There are 2 places, from 0\. .* place=2"):
        tuning.choose_conditioning(having({}), 2)(2, None, None)
    features = keras.Input((3,))
    assert tuning.choose_conditioning(having({}), [1])(0, features, None) is features
