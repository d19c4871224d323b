import keras
import numpy as np
import pytest
from keras import ops

from keras_mtl.weighting import Static
from keras_mtl.weighting.per_task_weighting import constant, plain, values_of


def test_a_dict_needs_the_names_of_the_tasks():
    with pytest.raises(ValueError, match="`set_task_names` before the first use"):
        Static({"a": 2.0})(np.ones(2, "float32"))


def test_a_dict_with_an_unknown_task_is_refused_as_soon_as_the_names_are_known():
    weighting = Static({"a": 2.0, "incme": 1.0})
    with pytest.raises(ValueError, match=r"does not have: \['incme'\]. The tasks are"):
        weighting.set_task_names(["a", "income"])


def test_the_names_of_the_tasks_are_saved_with_the_layer():
    weighting = Static({"b": 2.0})
    weighting.set_task_names(["a", "b"])
    weighting(np.ones(2, "float32"))
    config = keras.saving.serialize_keras_object(weighting)
    restored = keras.saving.deserialize_keras_object(config)
    assert restored.task_names == ["a", "b"]
    np.testing.assert_array_equal(ops.convert_to_numpy(restored.task_weight), [1, 2])


def test_a_layer_that_is_not_built_has_no_build_config():
    assert Static([1.0, 2.0]).get_build_config() is None


def test_arrays_become_plain_values():
    given = {"a": np.float32(0.5), "b": (1, np.arange(2))}
    assert plain(given) == {"a": 0.5, "b": [1, [0, 1]]}
    assert values_of(np.array([1.0, 2.0])) == [1.0, 2.0]
    assert values_of({"a": 3}) == [3]
    assert values_of(None) == []
    assert values_of("regression") == ["regression"]


def test_equal_constants_are_one_float():
    assert constant([0.5, 0.5]) == 0.5 and isinstance(constant([0.5, 0.5]), float)
    np.testing.assert_array_equal(constant([0.5, 1.0]), [0.5, 1.0])
