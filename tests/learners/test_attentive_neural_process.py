import numpy as np
from built_learner import (
    adapted,
    answered,
    built,
    decoded,
    dense,
    dense_stack,
    mean_and_scale,
    softmax,
    to_numpy,
)

from keras_mtl.learners import AttentiveNeuralProcess

SIZES = {"width": 6, "heads": 2, "encoder_depth": 2, "decoder_depth": 2}


def make(**kwargs):
    return built(AttentiveNeuralProcess(output_dim=2, **SIZES, **kwargs))


def attended(query, key, value, mask):
    """Returns what each of two heads reads, side by side."""
    reads = []
    for head in (slice(0, 3), slice(3, 6)):
        scores = query[..., head] @ key[..., head].transpose(0, 2, 1) / np.sqrt(3)
        scores = np.where(mask[:, None], scores, -np.inf)
        reads.append(softmax(scores) @ value[..., head])
    return np.concatenate(reads, -1)


def values(learner, inputs):
    joined = np.concatenate([inputs["support_x"], inputs["support_y"]], -1)
    value = dense_stack(learner.value, joined)
    if learner.self_attention:
        parts = (dense(layer, value) for layer in learner.among_support)
        value = value + attended(*parts, inputs["support_mask"])
    return dense(learner.project[2], value)


def reference(learner, inputs):
    query, key = (
        dense(layer, dense_stack(learner.key, inputs[name]))
        for layer, name in zip(learner.project, ("query_x", "support_x"), strict=False)
    )
    read = attended(query, key, values(learner, inputs), inputs["support_mask"])
    context = dense(learner.merge, read)[:, :, None]
    return mean_and_scale(decoded(learner.decoder, inputs["query_x"], context)[:, :, 0])


def test_attention_against_numpy():
    learner, inputs = make()
    inputs["support_mask"][1, 2:4] = False
    expected = reference(learner, inputs)
    np.testing.assert_allclose(answered(learner, inputs), expected, atol=1e-5)


def test_self_attention_against_numpy():
    learner, inputs = make(self_attention=True)
    inputs["support_mask"][1, 2:4] = False
    expected = reference(learner, inputs)
    np.testing.assert_allclose(answered(learner, inputs), expected, atol=1e-5)


def test_one_example_is_copied_to_every_query():
    learner, inputs = make()
    one = {key: v[:, :1] if key != "query_x" else v for key, v in inputs.items()}
    value = values(learner, one)
    context = dense(learner.merge, value)[:, :, None]
    raw = decoded(learner.decoder, inputs["query_x"], context)[:, :, 0]
    np.testing.assert_allclose(answered(learner, one), mean_and_scale(raw), atol=1e-5)
    phi = adapted(learner, one)
    phi["key"] = 9.0 * phi["key"] + 1.0
    np.testing.assert_allclose(
        to_numpy(learner.predict(phi, inputs["query_x"])),
        answered(learner, one),
        atol=1e-5,
    )


def test_sharp_attention_copies_the_example_at_the_query():
    learner, inputs = make()
    phi = adapted(learner, inputs)
    inputs["query_x"] = inputs["support_x"][:, 2:3]
    # Keys far apart: that of the query's own example is the most alike.
    query = to_numpy(learner.project[0](learner.key(inputs["query_x"])))
    key = np.zeros((3, 6, 2, 3), "float32")
    key[:, 2] = 1e3 * query.reshape(3, 2, 3)
    sharp = to_numpy(learner.predict({**phi, "key": key}, inputs["query_x"]))
    only = {k: v[:, 2:3] if k != "query_x" else v for k, v in inputs.items()}
    np.testing.assert_allclose(sharp, answered(learner, only), atol=1e-3)


def test_of_no_support_nothing_is_read():
    learner, inputs = make()
    inputs["support_mask"][:] = False
    context = dense(learner.merge, np.zeros((3, 1, 6)))[:, :, None]
    raw = decoded(learner.decoder, inputs["query_x"], context)[:, :, 0]
    np.testing.assert_allclose(
        answered(learner, inputs), mean_and_scale(raw), atol=1e-5
    )
