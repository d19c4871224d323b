import keras
import numpy as np
import pytest
from keras import ops

from keras_mtl.data import ScaledLoss

SCALES = [1e-10, 1e-4, 1.0, 1e4, 1e10]


@keras.saving.register_keras_serializable("keras_mtl_tests")
def quartic(y_true, y_pred):
    return ops.mean((y_true - y_pred) ** 4, axis=-1)


@keras.saving.register_keras_serializable("keras_mtl_tests")
class Power(keras.losses.Loss):
    def __init__(self, power, **arguments):
        super().__init__(**arguments)
        self.power = power

    def call(self, y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred) ** self.power, axis=-1)

    def get_config(self):
        return {**super().get_config(), "power": self.power}


def labels(scale=1.0, mean=0.0, shape=(8, 2)):
    rng = np.random.default_rng(0)
    unit_true, unit_pred = rng.normal(size=(2, *shape)).astype("float32")
    return unit_true, unit_pred, mean + scale * unit_true, mean + scale * unit_pred


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ["mse", "mae", "huber", "log_cosh"])
def test_is_the_loss_on_the_unit_scale(scale, name):
    unit_true, unit_pred, y_true, y_pred = labels(scale, mean=3 * scale)
    loss = ScaledLoss(name, mean=3 * scale, scale=scale)
    expected = ops.mean(keras.losses.get(name)(unit_true, unit_pred))
    np.testing.assert_allclose(loss(y_true, y_pred), expected, rtol=1e-4)


@pytest.mark.parametrize("scale", SCALES)
def test_gradient_is_that_of_the_unit_scale_over_the_scale(scale):
    _, _, y_true, y_pred = labels(scale)
    loss = ScaledLoss("mse", mean=0.0, scale=scale)
    step = 0.5 * scale
    change = float(loss(y_true, y_pred + step)) - float(loss(y_true, y_pred - step))
    expected = 2 * np.mean((y_pred - y_true) / scale)
    np.testing.assert_allclose(change, expected, rtol=1e-3, atol=1e-5)


def test_columns_have_scales_of_their_own():
    y_true = np.zeros((3, 2))
    y_pred = np.tile([10.0, 0.2], (3, 1))
    loss = ScaledLoss("mse", mean=[0.0, 0.0], scale=[10.0, 0.1])
    np.testing.assert_allclose(loss(y_true, y_pred), (1 + 4) / 2, rtol=1e-6)


def test_weights_and_reduction():
    y_true, y_pred = np.zeros((2, 1)), np.array([[2.0], [4.0]])
    loss = ScaledLoss("mse", 0.0, 2.0, reduction="sum")
    np.testing.assert_allclose(loss(y_true, y_pred), 5.0)
    weighted = loss(y_true, y_pred, sample_weight=np.array([1.0, 0.5]))
    np.testing.assert_allclose(weighted, 3.0)


def test_reduction_and_delta_of_a_loss_object_are_kept():
    huber = keras.losses.Huber(delta=0.1, reduction="sum")
    loss = ScaledLoss(huber, 0.0, 10.0)
    assert loss.reduction == "sum"
    y_true, y_pred = np.zeros((2, 1)), np.full((2, 1), 10.0)
    expected = keras.losses.Huber(delta=0.1, reduction="sum")(y_true, y_pred / 10)
    np.testing.assert_allclose(loss(y_true, y_pred), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "inner", ["mse", quartic, Power(1.5)], ids=["name", "function", "object"]
)
def test_goes_through_serialization(inner):
    loss = ScaledLoss(inner, [1.0, 2.0], [3.0, 4.0], reduction="sum", name="hours")
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(restored, ScaledLoss)
    assert restored.get_config() == loss.get_config()
    y_true, y_pred = labels()[2:]
    np.testing.assert_array_equal(restored(y_true, y_pred), loss(y_true, y_pred))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32"])
def test_computes_in_float32(dtype):
    y_true = ops.cast(ops.convert_to_tensor([[300.0]]), dtype)
    y_pred = ops.cast(ops.convert_to_tensor([[0.0]]), dtype)
    loss = ScaledLoss("mse", 0.0, 0.5)
    np.testing.assert_allclose(loss.call(y_true, y_pred), [360000.0], rtol=1e-2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 0.0}, "`scale` must be positive.*Received: scale=0.0"),
        ({"scale": [1.0, -1.0]}, r"`scale`.*Received: scale=\[1.0, -1.0\]"),
        ({"scale": float("inf")}, "`scale`.*Received: scale=inf"),
        ({"mean": float("nan")}, "`mean` must be finite. Received: mean=nan"),
        ({"loss": None}, "`loss` must be.*Received: loss=None"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScaledLoss(**{"loss": "mse", "mean": 0.0, "scale": 1.0, **arguments})
