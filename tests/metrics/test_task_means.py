import keras
import numpy as np

from keras_mtl.metrics import TaskMeans


def test_means_are_weighted_by_the_counts():
    metric = TaskMeans(["a", "b"], "loss")
    metric.update_state([1.0, 10.0], [3.0, 1.0])
    metric.update_state([5.0, 20.0], [1.0, 3.0])
    result = metric.result()
    assert list(result) == ["a_loss", "b_loss"]
    np.testing.assert_allclose([float(v) for v in result.values()], [2.0, 17.5])


def test_a_value_without_weight_does_not_count():
    metric = TaskMeans(["a", "b"], "loss")
    metric.update_state([7.0, 2.0], [0.0, 1.0])
    assert [float(v) for v in metric.result().values()] == [0.0, 2.0]


def test_reset_and_config():
    metric = TaskMeans(["a"], "weight")
    metric.update_state([1.0], [1.0])
    metric.reset_state()
    assert float(metric.result()["a_weight"]) == 0.0
    config = keras.saving.serialize_keras_object(metric)
    again = keras.saving.deserialize_keras_object(config)
    assert again.result_names == ["a_weight"] and again.name == metric.name
