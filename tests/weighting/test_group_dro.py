import numpy as np
import pytest
from gradients import compiled, differentiate
from keras import ops

from keras_mtl.weighting import GroupDRO


def feed(weighting, losses, present=None):
    return differentiate(weighting, losses, present, training=True)["weights"]


def test_the_weights_are_those_of_exponentiated_gradient_ascent():
    weighting, q = GroupDRO(eta=0.1), np.full(3, 1 / 3)
    for losses in np.random.default_rng(0).normal(size=(20, 3)):
        q = q * np.exp(0.1 * losses)
        q = q / q.sum()
        np.testing.assert_allclose(feed(weighting, losses), q, rtol=1e-4)
    np.testing.assert_allclose(
        differentiate(weighting, np.ones(3))["weights"], q, rtol=1e-4
    )


def test_the_weight_goes_to_the_worst_task():
    weighting = GroupDRO(eta=0.5)
    for _ in range(20):
        weights = feed(weighting, [0.5, 2.0, 1.0])
    np.testing.assert_allclose(weights, [0.0, 1.0, 0.0], atol=1e-3)


def test_gradient_descent_on_it_makes_the_worst_loss_as_small_as_it_can_be():
    # min max of (t - 0)^2 and 4 (t - 3)^2: the two are equal at t = 2.
    weighting, t, visited = GroupDRO(eta=0.05), 0.0, []
    weighting.build((2,))
    step = compiled(
        weighting,
        lambda losses: weighting(losses, training=True, return_weights=True)[1],
    )
    for _ in range(400):
        losses = np.array([t**2, 4 * (t - 3) ** 2])
        weights = ops.convert_to_numpy(step(ops.convert_to_tensor(losses, "float32")))
        t -= 0.01 * (weights * np.array([2 * t, 8 * (t - 3)])).sum()
        visited.append(t)
    np.testing.assert_allclose(np.mean(visited[-200:]), 2.0, rtol=0.02)


def test_relative_losses_are_divided_by_the_first_ones():
    relative, plain = GroupDRO(0.1, relative=True), GroupDRO(0.1)
    first = np.array([1e-6, 1e6])
    for factors in ([1.0, 1.0], [0.5, 0.9], [0.2, 0.8]):
        losses = first * factors
        result = differentiate(relative, losses, training=True)
        expected = feed(plain, factors)
        np.testing.assert_allclose(result["weights"], expected / first, rtol=1e-4)
        np.testing.assert_allclose(result["weighted"], expected * factors, rtol=1e-4)


def test_a_batch_that_lacks_a_task_leaves_the_weights_of_the_others():
    weighting = GroupDRO(eta=0.1)
    feed(weighting, [1.0, 5.0])
    full = differentiate(weighting, [1.0, 1.0])["weights"]
    part = differentiate(weighting, [1.0, 0.0], [1, 0])["weights"]
    np.testing.assert_allclose(part, [full[0], 0.0])


def test_one_task_a_batch_still_finds_the_worst():
    weighting = GroupDRO(eta=0.5)
    for _ in range(20):
        feed(weighting, [0.5, 0.0], [1, 0])
        feed(weighting, [0.0, 1.0], [0, 1])
    weights = differentiate(weighting, [1.0, 1.0])["weights"]
    np.testing.assert_allclose(weights[1] / weights[0], np.exp(0.5 * 10), rtol=1e-2)


def test_a_long_run_loses_no_digits_and_does_not_overflow():
    weighting = GroupDRO(eta=0.01)
    weighting.build((2,))
    weighting.log_weights.assign([1e8, 1e8])  # where float32 has steps of 8
    for _ in range(100):
        weights = feed(weighting, [1.0, 0.5])
    np.testing.assert_allclose(weights[0] / weights[1], np.exp(0.5), rtol=1e-3)


def test_a_step_size_out_of_range_is_refused():
    with pytest.raises(ValueError, match="`eta` must be a finite number greater"):
        GroupDRO(0.0)
