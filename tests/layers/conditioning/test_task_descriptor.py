import numpy as np
import pytest
from keras import ops

from keras_mtl.layers.conditioning.task_descriptor import (
    align_descriptor,
    check_descriptor,
    check_index_range,
    task_indicator,
)


def test_the_indicator_of_an_index_is_one_hot_in_every_form():
    for task in (np.array([0, 2, 1]), np.array([[0], [2], [1]])):
        indicator = task_indicator(ops.convert_to_tensor(task), 3, "float32")
        expected = np.eye(3)[[0, 2, 1]]
        np.testing.assert_array_equal(ops.convert_to_numpy(indicator), expected)


def test_the_indicator_of_no_task_is_zero():
    task = ops.convert_to_tensor(np.array([-1, 3, 1]))
    indicator = ops.convert_to_numpy(task_indicator(task, 3, "float32"))
    np.testing.assert_array_equal(indicator, [[0, 0, 0], [0, 0, 0], [0, 1, 0]])


def test_a_descriptor_is_its_own_indicator():
    soft = np.array([[0.2, 0.8], [1.0, 0.0]], "float32")
    indicator = task_indicator(ops.convert_to_tensor(soft), 2, "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(indicator), soft)


def test_boolean_one_hot_is_a_descriptor():
    one_hot = ops.convert_to_tensor(np.eye(3, dtype=bool))
    indicator = task_indicator(one_hot, 3, "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(indicator), np.eye(3))


def test_a_descriptor_is_aligned_with_the_last_axis():
    assert align_descriptor(np.zeros((4, 2)), 4).shape == (4, 1, 1, 2)
    assert align_descriptor(np.zeros((4, 7, 2)), 4).shape == (4, 7, 1, 2)
    assert align_descriptor(np.zeros((4, 2)), 2).shape == (4, 2)


def test_values_of_a_tensor_are_not_looked_at():
    check_index_range(ops.convert_to_tensor(np.array([99])), 3)
    check_index_range(np.array([99.0]), 3)
    check_index_range([], 3)


@pytest.mark.parametrize(
    "x_shape, z_shape, message",
    [
        ((4,), (4, 2), "`x` must have a batch axis and at least one more"),
        ((4, 5), (4,), "`z` must be of shape .batch, dim.: a task index"),
        ((4, 5), (4, 1, 2), "must not have more axes than"),
        ((4, 5), (3, 2), "must be the first axes of the features `x`, or 1"),
        ((4, 7, 5), (4, 6, 2), "must be the first axes of the features `x`, or 1"),
    ],
)
def test_refuses_shapes_that_do_not_fit(x_shape, z_shape, message):
    with pytest.raises(ValueError, match=f"{message}.*Received: "):
        check_descriptor(np.zeros(x_shape, "float32"), np.zeros(z_shape, "float32"))


def test_refuses_an_integer_descriptor():
    with pytest.raises(ValueError, match=r"TaskEmbedding first.*Received: z of dtype"):
        check_descriptor(np.zeros((4, 5), "float32"), np.zeros((4, 2), "int32"))
