import numpy as np
import pytest
from gradients import differentiate
from keras import ops

from keras_mtl.weighting import SmoothTchebycheff

NADIR = np.array([2.0, 50.0, 1.0])
LOSSES = np.array([1.0, 30.0, 0.9])


def warmed_up(nadir=NADIR, present=None, **arguments):
    weighting = SmoothTchebycheff(warmup_steps=1, **arguments)
    differentiate(weighting, nadir, present, training=True)
    return weighting


def test_the_warm_up_trains_the_sum_of_the_logarithms():
    weighting = SmoothTchebycheff(warmup_steps=2)
    for _ in range(2):
        result = differentiate(weighting, LOSSES, training=True)
        np.testing.assert_allclose(result["weighted"], np.log(LOSSES), atol=1e-6)
        np.testing.assert_allclose(result["by_losses"], 1 / LOSSES, rtol=1e-5)
    assert not np.allclose(differentiate(weighting, LOSSES)["weighted"], np.log(LOSSES))


@pytest.mark.parametrize("mu", [0.1, 1.0, 10.0])
def test_the_objective_is_the_smooth_maximum(mu):
    result = differentiate(warmed_up(mu=mu), LOSSES)
    relative = LOSSES / NADIR
    expected = 3 * mu * np.log(np.sum(relative ** (1 / mu)))
    np.testing.assert_allclose(result["weighted"].sum(), expected, rtol=1e-5)
    shares = relative ** (1 / mu) / np.sum(relative ** (1 / mu))
    np.testing.assert_allclose(result["by_losses"], 3 * shares / LOSSES, rtol=1e-4)


def test_preferences_stretch_the_relative_losses():
    preferences = np.array([1.0, 3.0, 0.5])
    result = differentiate(warmed_up(preferences=preferences), LOSSES)
    stretched = (LOSSES / NADIR) ** preferences
    np.testing.assert_allclose(
        result["weighted"].sum(), 3 * np.log(stretched.sum()), rtol=1e-5
    )
    expected = 3 * stretched / stretched.sum() * preferences / LOSSES
    np.testing.assert_allclose(result["by_losses"], expected, rtol=1e-4)


def test_it_goes_to_the_maximum_as_mu_goes_to_zero():
    worst = 3 * np.log(LOSSES / NADIR).max()
    errors = []
    for mu in (1.0, 0.1, 0.01, 1e-4):
        result = differentiate(warmed_up(mu=mu), LOSSES)
        errors.append(result["weighted"].sum() - worst)
    assert all(error > -1e-5 for error in errors)
    assert (np.diff(errors) < 1e-6).all() and errors[-1] < 1e-3
    np.testing.assert_allclose(result["by_losses"], [0, 0, 3 / 0.9], rtol=1e-4)


def test_a_large_mu_nears_scale_invariance():
    result = differentiate(warmed_up(mu=1e4), LOSSES)
    np.testing.assert_allclose(result["by_losses"], 1 / LOSSES, rtol=1e-3)


def test_the_nadir_is_the_mean_over_the_present_batches_of_the_warm_up():
    weighting = SmoothTchebycheff(warmup_epochs=2)
    batches = [([1.0, 4.0], [1, 1]), ([3.0, 0.0], [1, 0]), ([5.0, 8.0], [1, 1])]
    for epoch, (losses, present) in enumerate(batches[:2]):
        differentiate(weighting, losses, present, training=True)
        weighting.on_epoch_end(epoch, {})
    differentiate(weighting, *batches[2], training=True)
    np.testing.assert_allclose(ops.convert_to_numpy(weighting.nadir), [2.0, 4.0])


def test_a_task_unseen_in_the_warm_up_has_its_first_loss_as_nadir():
    weighting = warmed_up([2.0, 0.0], [1, 0])
    result = differentiate(weighting, [2.0, 7.0], training=True)
    np.testing.assert_allclose(result["weighted"].sum(), 2 * np.log(2), rtol=1e-5)
    differentiate(weighting, [2.0, 1.0], training=True)
    np.testing.assert_allclose(ops.convert_to_numpy(weighting.nadir), [2.0, 7.0])


def test_no_warm_up_takes_the_first_losses():
    weighting = SmoothTchebycheff(warmup_epochs=0)
    result = differentiate(weighting, NADIR, training=True)
    np.testing.assert_allclose(result["weighted"].sum(), 3 * np.log(3), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mu": 0.0}, "`mu` must be a finite number"),
        ({"epsilon": 0.0}, "`epsilon` must be a finite number"),
        ({"preferences": [1.0, 0.0]}, "`preferences` must be a finite number"),
        ({"warmup_epochs": -1}, "`warmup_epochs` must be a whole number"),
        ({"warmup_steps": 1.5}, "`warmup_steps` must be a whole number"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SmoothTchebycheff(**arguments)
