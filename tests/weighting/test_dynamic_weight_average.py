import numpy as np
import pytest
from gradients import differentiate
from keras import ops

from keras_mtl.weighting import DynamicWeightAverage


def softmax_weights(ratios, temperature):
    scores = np.exp(np.asarray(ratios) / temperature)
    return len(scores) * scores / scores.sum()


def feed(weighting, losses, present=None):
    return differentiate(weighting, losses, present, training=True)["weights"]


@pytest.mark.parametrize("temperature", [2.0, 0.3])
def test_weights_are_the_softmax_of_the_ratios_of_two_windows(temperature):
    weighting = DynamicWeightAverage(temperature)
    windows = [[[4.0, 2.0], [2.0, 4.0]], [[1.0, 3.0], [2.0, 3.0]], [[0.1, 6.0]]]
    means = [np.mean(window, axis=0) for window in windows]
    expected = [
        np.ones(2),
        np.ones(2),
        softmax_weights(means[1] / means[0], temperature),
        softmax_weights(means[2] / means[1], temperature),
    ]
    for epoch, window in enumerate([*windows, [[1.0, 1.0]]]):
        for losses in window:
            weights = feed(weighting, losses)
            np.testing.assert_allclose(weights, expected[epoch], rtol=1e-5)
        weighting.on_epoch_end(epoch, {})


def test_windows_of_steps_close_as_epochs_do():
    by_epoch, by_step = DynamicWeightAverage(), DynamicWeightAverage(window=3)
    generator = np.random.default_rng(0)
    for epoch in range(4):
        for _ in range(3):
            losses = np.exp(generator.normal(size=2))
            np.testing.assert_allclose(
                feed(by_step, losses), feed(by_epoch, losses), rtol=1e-5
            )
            by_step.on_epoch_end(epoch, {})
        by_epoch.on_epoch_end(epoch, {})


def test_means_are_taken_over_the_batches_that_hold_the_task():
    weighting = DynamicWeightAverage(temperature=1.0, window=2)
    feed(weighting, [2.0, 8.0])
    feed(weighting, [0.0, 8.0], [0, 1])
    feed(weighting, [1.0, 0.0], [1, 0])
    feed(weighting, [1.0, 6.0])
    weights = differentiate(weighting, [1.0, 1.0])["weights"]
    np.testing.assert_allclose(weights, softmax_weights([0.5, 0.75], 1.0), rtol=1e-5)


def test_a_task_without_a_batch_in_a_window_keeps_its_ratio():
    weighting = DynamicWeightAverage(temperature=1.0, window=1)
    feed(weighting, [2.0, 8.0])
    feed(weighting, [1.0, 6.0])
    feed(weighting, [0.25, 0.0], [1, 0])
    weights = differentiate(weighting, [1.0, 1.0])["weights"]
    np.testing.assert_allclose(weights, softmax_weights([0.25, 0.75], 1.0), rtol=1e-5)
    feed(weighting, [0.25, 3.0])
    weights = differentiate(weighting, [1.0, 1.0])["weights"]
    np.testing.assert_allclose(weights, softmax_weights([1.0, 0.5], 1.0), rtol=1e-5)


def test_a_batch_that_lacks_a_task_leaves_the_weights_of_the_others():
    weighting = DynamicWeightAverage(temperature=1.0, window=1)
    feed(weighting, [2.0, 8.0])
    feed(weighting, [1.0, 6.0])
    full = differentiate(weighting, [1.0, 1.0])["weights"]
    part = differentiate(weighting, [1.0, 0.0], [1, 0])["weights"]
    np.testing.assert_allclose(part, [full[0], 0.0])


def test_rescaling_a_loss_changes_no_weight():
    plain, scaled = DynamicWeightAverage(window=1), DynamicWeightAverage(window=1)
    scales = np.array([1e-9, 1e9])
    for losses in np.exp(np.random.default_rng(0).normal(size=(4, 2))):
        np.testing.assert_allclose(
            feed(scaled, scales * losses), feed(plain, losses), rtol=1e-4
        )


def test_a_loss_that_was_zero_has_the_ratio_one():
    weighting = DynamicWeightAverage(window=1)
    for _ in range(3):
        weights = feed(weighting, [0.0, 1.0])
        np.testing.assert_allclose(weights, [1.0, 1.0])


def test_an_epoch_that_ends_before_the_first_step_does_nothing():
    weighting = DynamicWeightAverage()
    weighting.on_epoch_end(0, {})
    np.testing.assert_allclose(feed(weighting, [1.0, 2.0]), [1.0, 1.0])
    assert ops.convert_to_numpy(weighting.count).sum() == 2


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`temperature` must be a finite number"):
        DynamicWeightAverage(0.0)
    with pytest.raises(ValueError, match="`window` must be a whole number of at least"):
        DynamicWeightAverage(window=0)
