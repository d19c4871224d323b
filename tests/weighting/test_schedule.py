import keras
import numpy as np
import pytest
from gradients import differentiate
from keras import ops

from keras_mtl.weighting import Schedule

NAMES = ["a", "b", "c"]


@keras.saving.register_keras_serializable("test_schedule")
def ramp(step):
    return ops.minimum(step / 4.0, 1.0)


@keras.saving.register_keras_serializable("test_schedule")
def fade_by_name(step):
    return {"b": 1.0 / (1.0 + step), "a": 2.0}


def trajectory(weighting, steps=3):
    if weighting.task_names is None:
        weighting.set_task_names(NAMES)
    losses = np.array([1.0, 2.0, 4.0])
    return np.stack(
        [
            differentiate(weighting, losses, training=True)["weights"]
            for _ in range(steps)
        ]
    )


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (ramp, [[0, 0, 0], [0.25, 0.25, 0.25], [0.5, 0.5, 0.5]]),
        (lambda step: [1.0, step, 2 * step], [[1, 0, 0], [1, 1, 2], [1, 2, 4]]),
        (lambda step: step * np.float32([1, 2, 3]), [[0, 0, 0], [1, 2, 3], [2, 4, 6]]),
        (fade_by_name, [[2, 1, 1], [2, 1 / 2, 1], [2, 1 / 3, 1]]),
        ({"b": ramp, "c": 0.5}, [[1, 0, 0.5], [1, 0.25, 0.5], [1, 0.5, 0.5]]),
        ([1, ramp, 3.0], [[1, 0, 3], [1, 0.25, 3], [1, 0.5, 3]]),
    ],
)
def test_weights_are_given_in_every_form(schedule, expected):
    np.testing.assert_allclose(trajectory(Schedule(schedule)), expected, rtol=1e-6)


def test_the_schedules_of_keras_serve_as_they_are():
    decay = keras.optimizers.schedules.PolynomialDecay(1.0, 4, 0.0)
    weights = trajectory(Schedule({"a": decay, "b": 1.0}))
    np.testing.assert_allclose(weights[:, 0], [1.0, 0.75, 0.5])
    np.testing.assert_allclose(trajectory(Schedule(decay))[:, 2], [1.0, 0.75, 0.5])


def test_evaluation_uses_the_current_step_and_does_not_count():
    weighting = Schedule(ramp)
    trajectory(weighting, 2)
    for _ in range(2):
        weights = differentiate(weighting, [1.0, 1.0, 1.0])["weights"]
        np.testing.assert_allclose(weights, 0.5)


@pytest.mark.parametrize(
    "schedule",
    [
        ramp,
        fade_by_name,
        [1.0, ramp, 0.0],
        {"a": ramp, "b": keras.optimizers.schedules.ExponentialDecay(1.0, 2, 0.5)},
        keras.optimizers.schedules.ExponentialDecay(1.0, 2, 0.5),
    ],
)
def test_registered_functions_and_schedules_are_saved(schedule):
    weighting = Schedule(schedule)
    trajectory(weighting, 2)
    config = keras.saving.serialize_keras_object(weighting)
    restored = keras.saving.deserialize_keras_object(config)
    restored.set_weights(weighting.get_weights())
    np.testing.assert_array_equal(trajectory(restored), trajectory(weighting))


def test_the_step_is_counted_beyond_what_float32_holds():
    weighting = Schedule(lambda step: step)
    weighting.build((1,))
    weighting.step.assign(2**24)
    for _ in range(3):
        differentiate(weighting, [1.0], training=True)
    assert int(ops.convert_to_numpy(weighting.step)) == 2**24 + 3


def test_a_result_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\). Received: a result of shape"):
        trajectory(Schedule(lambda step: ops.ones(2)))


def test_a_result_with_unknown_tasks_is_refused():
    with pytest.raises(ValueError, match=r"must be among the tasks \['a', 'b', 'c'\]"):
        trajectory(Schedule(lambda step: {"x": step}))
    with pytest.raises(ValueError, match="must be among the tasks None"):
        differentiate(Schedule(fade_by_name), [1.0, 2.0])


@pytest.mark.parametrize("schedule", [None, [], {}])
def test_a_schedule_of_nothing_is_refused(schedule):
    with pytest.raises(ValueError, match="`schedule` must be a function of the step"):
        Schedule(schedule)


def test_a_weight_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="`schedule` must be a finite number"):
        Schedule({"a": "high"})
