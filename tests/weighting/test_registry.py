import keras
import pytest

from keras_mtl import weighting as weightings

ALIASES = {
    "dtp": weightings.DynamicTaskPrioritization,
    "dwa": weightings.DynamicWeightAverage,
    "dro": weightings.GroupDRO,
    "famo": weightings.FAMO,
    "gls": weightings.GeometricMean,
    "gradnorm": weightings.GradNorm,
    "imtl_l": weightings.IMTLLoss,
    "IMTL-L": weightings.IMTLLoss,
    "random": weightings.RandomWeighting,
    "rlw": weightings.RandomWeighting,
    "si": weightings.ScaleInvariant,
    "stch": weightings.SmoothTchebycheff,
    "sum": weightings.Equal,
    "uw": weightings.Uncertainty,
}


def test_names_are_sorted_and_each_gives_a_weighting():
    names = weightings.names()
    assert names == sorted(names) and len(names) == 13
    types = {type(weightings.get(name)) for name in names}
    assert len(types) == len(names)
    public = {getattr(weightings, name) for name in weightings.__all__}
    assert types | {weightings.Weighting, weightings.Schedule} == {
        item for item in public if isinstance(item, type)
    }


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases_give_what_they_stand_for(alias):
    assert type(weightings.get(alias)) is ALIASES[alias]


@pytest.mark.parametrize("name", weightings.names())
def test_class_names_are_names(name):
    cls = type(weightings.get(name))
    assert type(weightings.get(cls.__name__)) is cls


def test_none_is_the_sum():
    assert type(weightings.get(None)) is weightings.Equal


def test_an_instance_is_returned_as_it_is():
    weighting = weightings.Static([1.0, 2.0])
    assert weightings.get(weighting) is weighting


def test_a_config_gives_the_weighting_that_it_tells_of():
    weighting = weightings.DynamicWeightAverage(0.5, window=7)
    config = keras.saving.serialize_keras_object(weighting)
    short = {"class_name": "DynamicWeightAverage", "config": weighting.get_config()}
    for identifier in (config, short):
        restored = weightings.get(identifier)
        assert type(restored) is weightings.DynamicWeightAverage
        assert restored.get_config() == weighting.get_config()


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        (
            "uncertain",
            r"one of \['dynamic_task_prioritization', .*Received: weighting=",
        ),
        ("schedule", r"give an instance, `keras_mtl.weighting.Schedule\(...\)`"),
        (weightings.Uncertainty, r"instantiate it, `Uncertainty\(...\)`. Received"),
        (3, "must be a name, a config, an instance of .* Received: weighting=3"),
        (
            keras.saving.serialize_keras_object(keras.layers.Dense(1)),
            "must be the config of a weighting",
        ),
    ],
)
def test_anything_else_is_refused(identifier, message):
    with pytest.raises(ValueError, match=message):
        weightings.get(identifier)
