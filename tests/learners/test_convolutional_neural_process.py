import keras
import numpy as np
from built_learner import (
    adapted,
    answered,
    built,
    dense,
    mean_and_scale,
    to_numpy,
)

from keras_mtl.learners import ConvolutionalNeuralProcess


def make(domain=(-8, 8), **kwargs):
    sizes = {"points_per_unit": 4, "channels": 4, "depth": 2, "kernel_size": 3}
    learner = ConvolutionalNeuralProcess(output_dim=2, domain=domain, **sizes, **kwargs)
    return built(learner)


def kernel(x, grid, log_length):
    return np.exp(-0.5 * ((x - grid) / np.exp(to_numpy(log_length))) ** 2)


def convolved(layer, x):
    weight, size = to_numpy(layer.kernel), layer.kernel.shape[0]
    padded = np.pad(x, [(0, 0), (size // 2, size // 2), (0, 0)])
    parts = [padded[:, i : i + x.shape[1]] @ weight[i] for i in range(size)]
    return sum(parts) + to_numpy(layer.bias)


def reference(learner, inputs):
    """Returns predictions, on a grid of four points a unit from -9 to 9."""
    grid = np.arange(-9, 9.125, 0.25)
    weight = kernel(inputs["support_x"], grid, learner.log_length_in)
    weight = weight * inputs["support_mask"][..., None]
    density = weight.sum(1)[..., None]
    signal = weight.transpose(0, 2, 1) @ inputs["support_y"] / (density + 1e-8)
    features = dense(learner.first, np.concatenate([density, signal], -1))
    features = np.maximum(features, 0)
    for layer in learner.convolutions:
        features = features + convolved(layer, np.maximum(features, 0))
    weight = kernel(inputs["query_x"], grid, learner.log_length_out)
    read = weight / weight.sum(-1, keepdims=True) @ features
    return mean_and_scale(dense(learner.head, np.maximum(read, 0)))


def test_predictions_against_numpy():
    learner, inputs = make()
    inputs["support_mask"][1, 2:4] = False
    expected = reference(learner, inputs)
    np.testing.assert_allclose(answered(learner, inputs), expected, atol=1e-3)


def shifted(inputs, shift):
    moved = {key: inputs[key] + np.float32(shift) for key in ("support_x", "query_x")}
    return {**inputs, **moved}


def test_predictions_move_with_the_support_and_queries():
    learner, inputs = make()
    before = answered(learner, inputs)
    for points in (5, -7):
        moved = answered(learner, shifted(inputs, points / 4))
        np.testing.assert_allclose(moved, before, atol=1e-4)


def test_predictions_do_not_move_with_the_support_alone():
    learner, inputs = make()
    moved = {**inputs, "support_x": inputs["support_x"] + 1}
    assert np.abs(answered(learner, moved) - answered(learner, inputs)).max() > 1e-2


def test_far_from_the_support_predictions_are_alike():
    learner, inputs = make(domain=(-20, 20))
    inputs["query_x"] = np.full_like(inputs["query_x"], 12.0)
    inputs["query_x"][:, 1:] = [[-12.0], [14.0], [10.0]]
    far = answered(learner, inputs)
    np.testing.assert_allclose(far, np.broadcast_to(far[:1, :1], far.shape), atol=1e-4)


def test_the_grid_has_its_margin_and_points():
    learner, inputs = make(domain=(-1, 2), margin=0.5)
    # From -1.5 to 2.5, both included.
    assert tuple(adapted(learner, inputs)["features"].shape) == (3, 17, 4)


def test_channels_are_last_whatever_the_default():
    default = keras.config.image_data_format()
    learner, inputs = make()
    try:
        keras.config.set_image_data_format("channels_first")
        other, _ = make()
    finally:
        keras.config.set_image_data_format(default)
    other.set_weights(learner.get_weights())
    np.testing.assert_allclose(
        answered(other, inputs), answered(learner, inputs), atol=1e-6
    )
