import itertools

import numpy as np
import pytest
from gradients import compiled, differentiate
from keras import ops

from keras_mtl.weighting import FAMO

SLOPES = np.array([0.5, 2.0, 1.0], "float32")
SCALES = np.array([1e-2, 1.0, 1e3], "float32")


def log_decreases(weighting, steps, learning_rate=0.01):
    """How far each log L comes down, for losses `scale * exp(-slope * parameter)`.

    Steps are of one length, as those of an adaptive optimiser are.
    """
    weighting.build((3,))
    present = ops.ones(3)
    step = compiled(
        weighting,
        lambda losses: weighting(losses, present, training=True, return_weights=True),
    )
    after_step = compiled(
        weighting, lambda losses: weighting.update_after_step(losses, present)
    )
    logs, history = np.log(SCALES), []
    for _ in range(steps):
        losses = ops.convert_to_tensor(np.exp(logs))
        weights = ops.convert_to_numpy(step(losses)[1])
        update = weights * SLOPES * np.exp(logs)
        logs = logs - learning_rate * SLOPES * update / np.linalg.norm(update)
        if weighting.needs_losses_after_step:
            after_step(ops.convert_to_tensor(np.exp(logs)))
        history.append(logs)
    return history[steps // 2] - history[-1]


def test_the_weights_are_the_normalised_inverse_losses_at_the_start():
    losses, bounds = np.array([0.5, 20.0, 3.0]), np.array([0.0, 10.0, 1.0])
    result = differentiate(FAMO(lower_bounds=bounds), losses)
    inverse = 1 / (losses - bounds)
    np.testing.assert_allclose(result["weights"], inverse / inverse.sum(), rtol=1e-5)
    np.testing.assert_allclose(result["weighted"], result["weights"] * losses)


def test_the_first_update_has_the_gradient_of_the_paper():
    weighting = FAMO(gamma=0.5)
    before, after = np.array([1.0, 2.0, 4.0]), np.array([0.5, 1.9, 4.1])
    weighting.build((3,))
    weighting.xi.assign([0.3, -0.2, 0.1])
    differentiate(weighting, before, training=True)
    weighting.update_after_step(after.astype("float32"), np.ones(3, "float32"))
    xi = np.array([0.3, -0.2, 0.1])
    z = np.exp(xi) / np.exp(xi).sum()
    gradient = (np.diag(z) - np.outer(z, z)) @ np.log(before / after) + 0.5 * xi
    momentum = ops.convert_to_numpy(weighting.adam.momentum)
    np.testing.assert_allclose(momentum / 0.1, gradient, rtol=1e-4)
    np.testing.assert_allclose(
        ops.convert_to_numpy(weighting.xi), xi - 0.025 * np.sign(gradient), rtol=1e-4
    )


@pytest.mark.parametrize("losses_after", ["same_batch", "next_batch"])
def test_all_log_losses_come_down_at_one_rate(losses_after):
    adaptive = log_decreases(FAMO(gamma=0.0, losses_after=losses_after), steps=400)
    assert adaptive.min() > 0.1
    np.testing.assert_allclose(adaptive, adaptive.mean(), rtol=0.05)


def test_without_the_update_of_xi_they_come_down_by_their_slopes():
    fixed = log_decreases(FAMO(learning_rate=1e-9), steps=20)
    np.testing.assert_allclose(fixed / fixed[2], SLOPES**2, rtol=1e-3)


def test_next_batch_is_an_update_behind_and_needs_no_other_forward_pass():
    assert FAMO().needs_losses_after_step
    same, following = FAMO(), FAMO(losses_after="next_batch")
    assert not following.needs_losses_after_step
    batches = np.exp(np.random.default_rng(0).normal(size=(5, 3))).astype("float32")
    for losses, after in itertools.pairwise(batches):
        expected = differentiate(same, losses, training=True)["weights"]
        result = differentiate(following, losses, training=True)["weights"]
        np.testing.assert_allclose(result, expected, rtol=1e-5)
        same.update_after_step(after, np.ones(3, "float32"))


def test_a_task_absent_from_the_next_batch_is_compared_when_it_is_back():
    weighting = FAMO(gamma=0.0, losses_after="next_batch")
    differentiate(weighting, [1.0, 1.0], training=True)
    differentiate(weighting, [0.0, 0.9], [0, 1], training=True)
    differentiate(weighting, [0.5, 0.8], training=True)
    momentum = ops.convert_to_numpy(weighting.adam.momentum)
    decrease = np.log(2.0) - np.log(0.9 / 0.8)
    np.testing.assert_allclose(momentum[0], 0.1 * 0.25 * decrease, rtol=1e-4)


def test_a_loss_that_is_not_above_its_bound_has_weight_zero():
    result = differentiate(FAMO(), [-1.0, 0.0, 2.0])
    np.testing.assert_allclose(result["weights"], [0.0, 0.0, 1.0])


def test_losses_after_the_step_that_are_not_finite_are_passed_over():
    weighting = FAMO()
    differentiate(weighting, [1.0, 2.0], training=True)
    weighting.update_after_step(
        np.array([np.inf, np.nan], "float32"), np.ones(2, "float32")
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(weighting.xi), [0.0, 0.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": 0.0}, "`learning_rate` must be a finite number"),
        ({"gamma": -1.0}, "`gamma` must be a finite number"),
        ({"losses_after": "batch"}, "`losses_after` must be one of"),
        ({"lower_bounds": [float("-inf")]}, "`lower_bounds` must be a finite number"),
        ({"epsilon": 0.0}, "`epsilon` must be a finite number"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FAMO(**arguments)
