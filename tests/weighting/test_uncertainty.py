import keras
import numpy as np
import pytest
from gradients import differentiate
from keras import ops

from keras_mtl.weighting import Uncertainty

S = np.array([0.5, -1.0, 2.0])
LOSSES = np.array([2.0, 0.3, 40.0])


@pytest.mark.parametrize(
    ("kind", "of_loss", "of_penalty"),
    [
        (None, 0.5, 0.5),
        ("regression", 0.5, 0.5),
        ("classification", 1.0, 0.5),
        ("laplace", 1.0, 1.0),
    ],
)
def test_each_kind_has_its_form(kind, of_loss, of_penalty):
    result = differentiate(Uncertainty(kind, S.tolist()), LOSSES)
    precision = of_loss * np.exp(-S)
    np.testing.assert_allclose(
        result["weighted"], precision * LOSSES + of_penalty * S, rtol=1e-5
    )
    np.testing.assert_allclose(result["by_losses"], precision, rtol=1e-5)
    np.testing.assert_allclose(result["weights"], precision, rtol=1e-5)
    np.testing.assert_allclose(
        result["by_variables"][0], of_penalty - precision * LOSSES, rtol=1e-5, atol=1e-6
    )


def test_kinds_are_given_by_task_name_or_in_order():
    by_name = Uncertainty({"b": "classification"}, {"c": 1.0})
    by_name.set_task_names(["a", "b", "c"])
    in_order = Uncertainty(["regression", "classification", "regression"], [0, 0, 1.0])
    for weighting in (by_name, in_order):
        weights = differentiate(weighting, LOSSES)["weights"]
        np.testing.assert_allclose(weights, [0.5, 1.0, 0.5 / np.e], rtol=1e-6)


def test_an_absent_task_gives_its_log_variance_no_gradient():
    result = differentiate(Uncertainty(), LOSSES, [1, 0, 1], training=True)
    gradient = result["by_variables"][0]
    assert gradient[1] == 0.0
    assert gradient[0] != 0.0 and gradient[2] != 0.0


def test_a_loss_that_stays_zero_stops_at_the_bound():
    weighting = Uncertainty("laplace", max_log_variance=2.0)
    optimizer = keras.optimizers.SGD(1.0)
    for _ in range(5):
        gradient = differentiate(weighting, [0.0, 1.0])["by_variables"][0]
        optimizer.apply([ops.array(gradient)], weighting.trainable_variables)
    np.testing.assert_allclose(
        ops.convert_to_numpy(weighting.log_variance), [-2.0, 0.0]
    )


class TwoRegressions(keras.Model):
    """A linear model of two tasks, trained by the weighting of its losses."""

    def __init__(self, weighting):
        super().__init__()
        self.dense = keras.layers.Dense(2)
        self.weighting = weighting

    def call(self, x):
        return self.dense(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **kwargs):
        losses = ops.mean(ops.square(ops.subtract(y, y_pred)), axis=0)
        return ops.sum(self.weighting(losses))


@pytest.mark.parametrize("sigma", [(10.0, 1.0), (0.05, 3.0)])
def test_the_noise_of_two_linear_gaussian_tasks_is_recovered(sigma):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(4000, 3))
    noise = generator.normal(size=(4000, 2)) * sigma
    y = x @ generator.normal(size=(3, 2)) + noise
    model = TwoRegressions(Uncertainty("regression"))
    model(x[:1])
    model.weighting.build((2,))
    model.compile(keras.optimizers.Adam(0.05, beta_2=0.99))
    x, y = ops.array(x, "float32"), ops.array(y, "float32")
    for _ in range(700):
        model.train_on_batch(x, y)
    recovered = np.exp(0.5 * ops.convert_to_numpy(model.weighting.log_variance))
    np.testing.assert_allclose(recovered, sigma, rtol=0.05)
    residuals = ops.convert_to_numpy(ops.subtract(y, model(x)))
    np.testing.assert_allclose(recovered, residuals.std(0), rtol=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kinds": "regresion"}, "`kinds` must be one of"),
        ({"kinds": {"a": 1}}, "`kinds` must be one of"),
        ({"initial_log_variance": 31.0}, "`initial_log_variance` must be a finite"),
        ({"max_log_variance": 0.0}, "`max_log_variance` must be a finite number"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Uncertainty(**arguments)
