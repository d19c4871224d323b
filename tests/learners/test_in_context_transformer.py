import math

import numpy as np
from built_learner import (
    adapted,
    answered,
    built,
    dense,
    mean_and_scale,
    softmax,
    to_numpy,
)

from keras_mtl.learners import InContextTransformer


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def normalised(layer, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * to_numpy(layer.gamma) + to_numpy(layer.beta)


def block_of(block, tokens, allowed):
    """Returns the next tokens, all at once: `allowed` is `(B, T, T)`."""
    tasks, length, width = tokens.shape
    parts = dense(block.project, normalised(block.norm, tokens))
    parts = parts.reshape(tasks, length, 3, block.heads, -1).transpose(2, 0, 3, 1, 4)
    query, key, value = parts  # B, h, T, d
    scores = query @ key.transpose(0, 1, 3, 2) / math.sqrt(query.shape[-1])
    scores = np.where(allowed[:, None], scores, -np.inf)
    read = (softmax(scores) @ value).transpose(0, 2, 1, 3).reshape(tasks, length, width)
    tokens = tokens + dense(block.merge, read)
    hidden = gelu(dense(block.hidden, normalised(block.norm_dense, tokens)))
    return tokens + dense(block.output_dense, hidden)


def in_one_pass(learner, inputs):
    """Returns raw outputs of a masked attention over support and queries."""
    x = np.concatenate([inputs["support_x"], inputs["query_x"]], 1)
    examples, length = inputs["support_x"].shape[1], x.shape[1]
    first, second = learner.embed_x.layers
    tokens = dense(second, gelu(dense(first, x)))
    labels = inputs["support_y"] * inputs["support_mask"][..., None]
    tokens[:, :examples] += dense(learner.embed_y, labels)
    there = np.zeros((len(x), length), bool)
    there[:, :examples] = inputs["support_mask"]
    # Of the support by all; and each by itself.
    allowed = there[:, None, :] | np.eye(length, dtype=bool)
    for block in learner.blocks:
        tokens = block_of(block, tokens, allowed)
    return dense(learner.head, normalised(learner.norm, tokens[:, examples:]))


def make(**kwargs):
    return built(InContextTransformer(width=8, depth=3, heads=2, **kwargs), support=5)


def test_classes_equal_a_masked_attention_in_one_pass():
    learner, inputs = make(ways=3)
    inputs["support_mask"][1, 3:] = False
    inputs["support_y"][1, :3] = np.eye(3)  # all classes are there
    expected = softmax(in_one_pass(learner, inputs))
    np.testing.assert_allclose(answered(learner, inputs), expected, atol=1e-4)


def test_numbers_equal_a_masked_attention_in_one_pass():
    learner, inputs = make(output_dim=2)
    inputs["support_mask"][0, 1] = False
    expected = mean_and_scale(in_one_pass(learner, inputs))
    np.testing.assert_allclose(answered(learner, inputs), expected, atol=1e-4)


def test_a_query_does_not_see_queries_or_change_the_support():
    learner, inputs = make(output_dim=2)
    other = {**inputs, "query_x": inputs["query_x"].copy()}
    other["query_x"][:, 1:] = 5.0
    np.testing.assert_allclose(
        answered(learner, inputs)[:, :1], answered(learner, other)[:, :1], atol=1e-6
    )


def test_of_an_empty_support_a_query_sees_itself_alone():
    learner, inputs = make(output_dim=2)
    inputs["support_mask"][:] = False
    given = answered(learner, inputs)
    assert np.isfinite(given).all()
    other = {**inputs, "support_x": 3 + inputs["support_x"]}
    np.testing.assert_allclose(given, answered(learner, other), atol=1e-6)
    expected = mean_and_scale(in_one_pass(learner, inputs))
    np.testing.assert_allclose(given, expected, atol=1e-4)


def test_phi_is_keys_and_values_of_each_block():
    learner, inputs = make(output_dim=2)
    blocks = adapted(learner, inputs)["blocks"]
    assert len(blocks) == 3
    for memory in blocks:
        assert tuple(memory["key"].shape) == (3, 5, 2, 4)
        assert tuple(memory["value"].shape) == (3, 5, 2, 4)


def test_queries_and_keys_start_equal_and_values_do_not():
    learner = InContextTransformer(ways=3, width=8, depth=2, heads=2)
    x = np.zeros((1, 3, 4), "float32")
    learner.adapt(x, np.eye(3, dtype="float32")[None], np.ones((1, 3), bool))
    for block in learner.blocks:
        query, key, value = np.split(to_numpy(block.project.kernel), 3, axis=1)
        np.testing.assert_array_equal(query, key)
        assert np.abs(key - value).min() > 0
