import numpy as np
import pytest
from gradients import differentiate

from keras_mtl.weighting import Static


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (None, [1.0, 1.0, 1.0]),
        (0.5, [0.5, 0.5, 0.5]),
        ([2.0, 0.0, 0.1], [2.0, 0.0, 0.1]),
        (np.array([2.0, 0.0, 0.1]), [2.0, 0.0, 0.1]),
        ({"c": 0.1, "a": 2}, [2.0, 1.0, 0.1]),
    ],
)
def test_weights_are_given_in_every_form(weights, expected):
    weighting = Static(weights)
    weighting.set_task_names(["a", "b", "c"])
    result = differentiate(weighting, [0.5, -1.0, 20.0])
    np.testing.assert_allclose(result["weights"], expected)
    np.testing.assert_allclose(result["weighted"], np.multiply(expected, [0.5, -1, 20]))
    assert weighting.get_config()["weights"] == (
        weights.tolist() if isinstance(weights, np.ndarray) else weights
    )


def test_the_weights_are_a_variable_that_is_not_trained():
    weighting = Static([2.0, 1.0])
    differentiate(weighting, [1.0, 1.0])
    assert weighting.trainable_variables == []
    weighting.task_weight.assign([3.0, 4.0])
    np.testing.assert_allclose(differentiate(weighting, [1.0, 1.0])["weights"], [3, 4])


@pytest.mark.parametrize("weights", [[1.0, -1.0], {"a": float("nan")}, ["1"], True])
def test_weights_out_of_range_are_refused(weights):
    with pytest.raises(ValueError, match=r"`weights` must be a finite number at leas"):
        Static(weights)


def test_weights_of_another_number_of_tasks_are_refused():
    with pytest.raises(ValueError, match=r"each of the 3 tasks. Received: weights=\["):
        Static([1.0, 2.0])(np.ones(3, "float32"))
