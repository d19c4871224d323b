"""Affinities, of logs and of a joint run."""

import keras
import numpy as np
import pytest

import keras_mtl
from keras_mtl.analysis import affinity_of_logs, group_tasks

LOGS = {
    "cosine_a_b": [0.5, -0.5],
    "a_gradient_norm": [2.0, 1.0],
    "b_gradient_norm": [3.0, 1.0],
    "a_loss": [1.0, 0.5],
    "b_loss": [2.0, 0.1],
}


def test_by_hand():
    found = affinity_of_logs(LOGS, ["a", "b"])
    expected = [[0, (3 / 2 - 0.5 / 0.1) / 2], [(3 - 0.5 / 0.5) / 2, 0]]
    np.testing.assert_allclose(found, expected)
    found = affinity_of_logs({"cosine_a_b": [0.5, 0.1]}, ["a", "b"], kind="cosine")
    np.testing.assert_allclose(found, [[0, 0.3], [0.3, 0]])


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="b_loss"):
        affinity_of_logs({k: LOGS[k] for k in LOGS if k != "b_loss"}, ["a", "b"])
    with pytest.raises(ValueError, match="`kind` must be"):
        affinity_of_logs(LOGS, ["a", "b"], "tag")


@pytest.mark.parametrize("kind", ["look_ahead", "cosine"])
def test_opposed_tasks_are_told_from_like_ones(kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 6)).astype("float32")
    signal = x[:, :1]
    labels = {"a": signal, "b": signal + 0.1, "c": -signal}
    inputs = keras.Input((6,))
    h = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs)
    outputs = {
        task: keras.layers.Dense(1, kernel_initializer="ones", trainable=False)(h)
        for task in labels
    }
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    model.compile(
        "sgd", loss="mse", aggregator="sum", gradient_logs=["norms", "cosines"]
    )
    logs = model.fit(x, labels, verbose=0, epochs=2).history
    affinity = affinity_of_logs(logs, list(labels), kind)
    assert affinity[0, 1] > 0 > affinity[0, 2]
    assert group_tasks(affinity, 2, list(labels)) == [["a", "b"], ["c"]]
