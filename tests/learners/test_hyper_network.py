import numpy as np
import pytest
from built_learner import (
    adapted,
    answered,
    built,
    dense,
    dense_stack,
    mean_and_scale,
    softmax,
    to_numpy,
)

from keras_mtl.learners import HyperNetwork

SIZES = {"width": 6, "encoder_depth": 2, "hidden": 5, "depth": 2}


def make(scale=0.3, **kwargs):
    return built(HyperNetwork(**{**SIZES, **kwargs}), scale)


def arrays(phi):
    return [{k: to_numpy(v) for k, v in layer.items()} for layer in phi["weights"]]


def of_each_task(layer, x):
    return np.stack(
        [x[i] @ layer["kernel"][i] + layer["bias"][i] for i in range(len(x))]
    )


def read(learner, inputs):
    joined = np.concatenate([inputs["support_x"], inputs["support_y"]], -1)
    return dense_stack(learner.encoder, joined).mean(1)


@pytest.mark.parametrize("answers", [{"output_dim": 2}, {"ways": 3}])
def test_a_network_answers_with_the_weights_in_phi(answers):
    learner, inputs = make(generates="network", **answers)
    weights = arrays(adapted(learner, inputs))
    features, outputs = inputs["query_x"].shape[-1], learner.output_size
    shapes = [layer["kernel"].shape for layer in weights]
    assert shapes == [(3, features, 5), (3, 5, 5), (3, 5, outputs)]
    x = inputs["query_x"]
    for layer in weights[:-1]:
        x = np.maximum(of_each_task(layer, x), 0)
    raw = of_each_task(weights[-1], x)
    expected = softmax(raw) if "ways" in answers else mean_and_scale(raw)
    np.testing.assert_allclose(answered(learner, inputs), expected, atol=1e-5)


def test_weights_are_the_base_and_a_tenth_of_what_is_generated():
    learner, inputs = make(generates="network", output_dim=2)
    pooled = read(learner, inputs)
    for layer, base, generator in zip(
        arrays(adapted(learner, inputs)), learner.base, learner.generators, strict=True
    ):
        hidden = np.maximum(dense(generator.layers[0], pooled), 0)
        made = 0.1 * dense(generator.layers[1], hidden)
        kernel, bias = to_numpy(base["kernel"]), to_numpy(base["bias"])
        made_kernel = made[:, : kernel.size].reshape(3, *kernel.shape)
        np.testing.assert_allclose(layer["kernel"], kernel + made_kernel, atol=1e-5)
        np.testing.assert_allclose(layer["bias"], bias + made[:, kernel.size :], 1e-4)


@pytest.mark.parametrize("generates", ["network", "film"])
def test_at_the_start_tasks_differ_little(generates):
    learner, inputs = make(0.0, generates=generates, output_dim=2)
    for layer, base in zip(arrays(adapted(learner, inputs)), learner.base, strict=True):
        for key in ("kernel", "bias"):
            np.testing.assert_allclose(
                layer[key], to_numpy(base[key])[None].repeat(3, 0), atol=0.1
            )


def test_film_scales_and_shifts_hidden_units():
    learner, inputs = make(generates="film", output_dim=2)
    x = inputs["query_x"]
    for layer, film in zip(
        learner.hidden_layers, arrays(adapted(learner, inputs)), strict=True
    ):
        x = film["kernel"][:, None] * dense(layer, x) + film["bias"][:, None]
        x = np.maximum(x, 0)
    expected = mean_and_scale(dense(learner.head, x))
    np.testing.assert_allclose(answered(learner, inputs), expected, atol=1e-5)


def hidden(learner, x):
    for layer in learner.hidden_layers:
        x = np.maximum(dense(layer, x), 0)
    return x


def test_a_last_layer_for_numbers():
    learner, inputs = make(generates="last_layer", output_dim=2)
    (layer,) = arrays(adapted(learner, inputs))
    raw = of_each_task(layer, hidden(learner, inputs["query_x"]))
    np.testing.assert_allclose(
        answered(learner, inputs), mean_and_scale(raw), atol=1e-5
    )


def test_a_class_has_weights_of_its_own_examples():
    learner, inputs = make(generates="last_layer", ways=3)
    (layer,) = arrays(adapted(learner, inputs))
    labels = inputs["support_y"]
    each = dense_stack(learner.encoder, inputs["support_x"])
    means = np.einsum("bsn,bsd->bnd", labels, each) / labels.sum(1)[..., None]
    made = dense_stack(learner.generators[0], means)
    np.testing.assert_allclose(layer["kernel"], made[..., :-1], atol=1e-5)
    np.testing.assert_allclose(layer["bias"], made[..., -1], atol=1e-5)
    x = hidden(learner, inputs["query_x"])
    logits = x @ layer["kernel"].transpose(0, 2, 1) + layer["bias"][:, None]
    np.testing.assert_allclose(answered(learner, inputs), softmax(logits), atol=1e-5)
    other = {**inputs, "support_x": inputs["support_x"].copy()}
    other["support_x"][labels[..., 0] > 0] += 1
    (changed,) = arrays(adapted(learner, other))
    np.testing.assert_allclose(changed["bias"][:, 1:], layer["bias"][:, 1:], atol=1e-6)
    assert np.abs(changed["bias"][:, 0] - layer["bias"][:, 0]).min() > 1e-5
