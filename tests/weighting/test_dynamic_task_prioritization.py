import numpy as np
import pytest
from gradients import differentiate

from keras_mtl.weighting import DynamicTaskPrioritization


def focal(indicator, gamma=1.0):
    indicator = np.asarray(indicator)
    return -((1 - indicator) ** gamma) * np.log(indicator)


def feed(weighting, losses, present=None):
    return differentiate(weighting, losses, present, training=True)["weights"]


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.5])
def test_weights_are_the_focal_function_of_the_running_indicator(gamma):
    weighting = DynamicTaskPrioritization(gamma=gamma, alpha=0.3)
    running = None
    for losses in np.exp(np.random.default_rng(0).normal(size=(6, 2))):
        new = np.exp(-losses)
        running = new if running is None else 0.3 * new + 0.7 * running
        np.testing.assert_allclose(
            feed(weighting, losses), focal(running, gamma), rtol=1e-4
        )
    np.testing.assert_allclose(
        differentiate(weighting, [9.0, 9.0])["weights"], focal(running, gamma), 1e-4
    )


def test_the_harder_task_weighs_more():
    weights = feed(DynamicTaskPrioritization(), [0.01, 0.5, 3.0])
    assert weights[0] < weights[1] < weights[2]


def test_a_task_starts_from_its_first_loss_whenever_that_comes():
    weighting = DynamicTaskPrioritization()
    feed(weighting, [1.0, 0.0], [1, 0])
    np.testing.assert_allclose(feed(weighting, [1.0, 2.0])[1], focal(np.exp(-2.0)))


def test_weights_are_bounded_by_the_floor():
    weights = feed(DynamicTaskPrioritization(floor=1e-3), [1e10, 1e-10, -1.0])
    np.testing.assert_allclose(weights, [focal(1e-3), 0.0, 0.0], rtol=1e-5)


def test_an_indicator_from_the_logs_is_read_after_each_epoch():
    weighting = DynamicTaskPrioritization({"b": "val_b_auc"}, alpha=0.5)
    weighting.set_task_names(["a", "b"])
    running = [np.exp(-1.0), None]
    np.testing.assert_allclose(feed(weighting, [1.0, 7.0]), [focal(running[0]), 1.0])
    weighting.on_epoch_end(0, {"val_b_auc": 0.6, "loss": 2.0})
    weights = feed(weighting, [1.0, 7.0])
    np.testing.assert_allclose(weights, [focal(running[0]), focal(0.6)], rtol=1e-5)
    weighting.on_epoch_end(1, {"val_b_auc": 0.8})
    np.testing.assert_allclose(feed(weighting, [1.0, 7.0])[1], focal(0.7), rtol=1e-5)
    weighting.on_epoch_end(2, {"val_b_auc": float("nan")})
    np.testing.assert_allclose(feed(weighting, [1.0, 7.0])[1], focal(0.7), rtol=1e-5)


def test_a_metric_that_is_not_there_or_no_indicator_is_refused():
    weighting = DynamicTaskPrioritization({"a": "a_auc"})
    weighting.set_task_names(["a"])
    weighting.build((1,))
    with pytest.raises(ValueError, match="'a_auc', which is not in the logs"):
        weighting.on_epoch_end(0, {"loss": 1.0})
    with pytest.raises(ValueError, match=r"'a_auc' .* must be between 0 and 1\. Rec"):
        weighting.on_epoch_end(0, {"a_auc": 1.5})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kpi": "auc"}, "`kpi` must be a dict from task name"),
        ({"gamma": -1.0}, "`gamma` must be a finite number"),
        ({"alpha": 0.0}, "`alpha` must be a finite number"),
        ({"floor": 0.0}, "`floor` must be a finite number"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DynamicTaskPrioritization(**arguments)
