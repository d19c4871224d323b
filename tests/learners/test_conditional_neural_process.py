import numpy as np
from built_learner import (
    adapted,
    answered,
    built,
    decoded,
    dense_stack,
    mean_and_scale,
    softmax,
    to_numpy,
)

from keras_mtl.learners import ConditionalNeuralProcess

SIZES = {"width": 6, "encoder_depth": 3, "decoder_depth": 2}


def test_numbers_against_numpy():
    learner, inputs = built(ConditionalNeuralProcess(output_dim=2, **SIZES))
    mask = inputs["support_mask"]
    mask[1, 2:4] = False
    each = np.concatenate([inputs["support_x"], inputs["support_y"]], -1)
    each = dense_stack(learner.encoder, each) * mask[..., None]
    mean = each.sum(1, keepdims=True) / mask.sum(1)[:, None, None]
    np.testing.assert_allclose(
        to_numpy(adapted(learner, inputs)["context"]), mean, atol=1e-5
    )
    raw = decoded(learner.decoder, inputs["query_x"], mean[:, None])[:, :, 0]
    np.testing.assert_allclose(
        answered(learner, inputs), mean_and_scale(raw), atol=1e-5
    )


def test_classes_against_numpy():
    learner, inputs = built(ConditionalNeuralProcess(ways=3, **SIZES))
    labels = inputs["support_y"]
    each = dense_stack(learner.encoder, inputs["support_x"])
    means = np.einsum("bsn,bsd->bnd", labels, each) / labels.sum(1)[..., None]
    logits = decoded(learner.decoder, inputs["query_x"], means[:, None])[..., 0]
    np.testing.assert_allclose(answered(learner, inputs), softmax(logits), atol=1e-5)


def test_the_whole_support_twice_is_the_support():
    learner, inputs = built(ConditionalNeuralProcess(output_dim=2, **SIZES))
    twice = {
        key: np.concatenate([value, value], 1) if key != "query_x" else value
        for key, value in inputs.items()
    }
    np.testing.assert_allclose(
        answered(learner, twice), answered(learner, inputs), atol=1e-5
    )


def test_of_no_support_the_average_is_zero():
    learner, inputs = built(ConditionalNeuralProcess(output_dim=2, **SIZES))
    inputs["support_mask"][:] = False
    assert not to_numpy(adapted(learner, inputs)["context"]).any()


def test_without_a_distribution_the_numbers_are_raw():
    learner, inputs = built(
        ConditionalNeuralProcess(output_dim=2, distribution=None, **SIZES)
    )
    context = to_numpy(adapted(learner, inputs)["context"])[:, None]
    raw = decoded(learner.decoder, inputs["query_x"], context)[:, :, 0]
    np.testing.assert_allclose(answered(learner, inputs), raw, atol=1e-5)


def test_labels_of_one_number_need_no_axis():
    learner, inputs = built(ConditionalNeuralProcess(output_dim=1, **SIZES))
    flat = {**inputs, "support_y": inputs["support_y"][..., 0]}
    np.testing.assert_array_equal(answered(learner, inputs), answered(learner, flat))
