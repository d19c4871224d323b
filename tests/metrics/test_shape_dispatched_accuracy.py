import keras
import numpy as np
import pytest

from keras_mtl.metrics import ShapeDispatchedAccuracy

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.2, 0.3, 0.5]], "float32")
CLASSES = np.array([0, 2, 2])


def by_keras(y_true, y_pred, weight):
    """What the string means in a model of Keras."""
    model = keras.Sequential([keras.Input(y_pred.shape[1:]), keras.layers.Identity()])
    model.compile(loss="mse", weighted_metrics=["accuracy"])
    shape = y_true.shape if y_true.ndim > 1 else (*y_true.shape, 1)
    logs = model.evaluate(
        y_pred, y_true.reshape(shape), sample_weight=weight, verbose=0, return_dict=True
    )
    return logs["accuracy"]


@pytest.mark.parametrize(
    ("y_true", "y_pred"),
    [
        (np.array([[1], [0], [1]]), np.array([[0.9], [0.6], [0.3]], "float32")),
        (CLASSES, PROBABILITIES),
        (CLASSES[:, None], PROBABILITIES),
        (np.eye(3, dtype="float32")[CLASSES], PROBABILITIES),
    ],
    ids=["binary", "sparse", "sparse column", "one-hot"],
)
def test_means_what_keras_means(y_true, y_pred):
    weight = np.array([1.0, 2.0, 0.5], "float32")
    metric = ShapeDispatchedAccuracy()
    metric.update_state(y_true, y_pred, sample_weight=weight)
    expected = by_keras(y_true, y_pred, weight)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


def test_config():
    metric = ShapeDispatchedAccuracy(name="acc")
    config = keras.saving.serialize_keras_object(metric)
    assert keras.saving.deserialize_keras_object(config).name == "acc"
