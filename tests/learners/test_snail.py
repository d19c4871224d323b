import numpy as np
import pytest
from built_learner import answered, built, dense, sigmoid, softmax, to_numpy

from keras_mtl.learners import SNAIL
from keras_mtl.learners.causal_blocks import CausalAttentionBlock, CausalDenseBlock


def make(**kwargs):
    return built(
        SNAIL(ways=3, **{"filters": 3, "width": 1 / 32, "max_support": 3, **kwargs})
    )


def read_as_one(learner, support_x, support_y, query_x):
    """Returns the answer to one query, read as the end of the sequence."""
    count = np.array([support_x.shape[1] + 1] * len(support_x), "int32")
    x = np.concatenate([support_x, query_x[:, None]], 1)
    y = np.concatenate([support_y, np.zeros_like(support_y[:, :1])], 1)
    sequence = np.concatenate([x, y], -1)
    for index, block in enumerate(learner.attentions):
        sequence, _ = block.read(sequence)
        if index < len(learner.convolutions):
            for layer in learner.convolutions[index]:
                sequence, _ = layer.read(sequence, count)
    return softmax(to_numpy(learner.head(sequence))[:, -1])


@pytest.mark.parametrize("paper_dilation", [False, True])
def test_asking_equals_reading_support_and_query(paper_dilation):
    learner, inputs = make(paper_dilation=paper_dilation)
    given = answered(learner, inputs)
    support = inputs["support_x"], inputs["support_y"]
    for index in (0, 3):
        expected = read_as_one(learner, *support, inputs["query_x"][:, index])
        np.testing.assert_allclose(given[:, index], expected, atol=1e-5)


def test_asking_equals_reading_those_that_are_there():
    learner, inputs = make()
    there = np.array([0, 1, 1, 0, 1, 1], bool)
    inputs["support_mask"][:] = there
    expected = read_as_one(
        learner,
        inputs["support_x"][:, there],
        inputs["support_y"][:, there],
        inputs["query_x"][:, 0],
    )
    given = answered(learner, inputs)[:, 0]
    seen = inputs["support_y"][:, there].any(1)
    expected = expected * seen / (expected * seen).sum(-1, keepdims=True)
    np.testing.assert_allclose(given, expected, atol=1e-5)


def test_attention_is_a_causal_softmax_over_keys():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    block = CausalAttentionBlock(4, 6)
    joined, _ = block.read(x)
    query, key, value = (dense(f, x) for f in (block.query, block.key, block.value))
    scores = np.einsum("bqd,bkd->bqk", query, key) / 2
    scores = np.where(np.tri(5, dtype=bool), scores, -np.inf)
    expected = np.concatenate([x, softmax(scores) @ value], -1)
    np.testing.assert_allclose(to_numpy(joined), expected, atol=1e-5)


def test_a_convolution_is_gated_and_joins_its_input():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    block = CausalDenseBlock(4, 2)
    joined, before = block.read(x, np.array([5, 1], "int32"))
    past = np.concatenate([np.zeros((2, 2, 3)), x[:, :3]], 1)
    both = dense(block.now, x) + dense(block.past, past)
    gated = np.tanh(both[..., :4]) * sigmoid(both[..., 4:])
    expected = np.concatenate([x, gated], -1)
    np.testing.assert_allclose(to_numpy(joined), expected, atol=1e-5)
    # What the next token needs: two before it, or nothing.
    expected = dense(block.past, np.stack([x[0, 3], np.zeros(3)]))
    np.testing.assert_allclose(to_numpy(before), expected, atol=1e-5)


def reached(learner, length=18):
    """Returns at which distances a token is seen through one temporal convolution."""
    sizes = learner.convolutions[0][0].now.kernel.shape[0]
    x = np.random.default_rng(0).normal(size=(1, length, sizes)).astype("float32")
    other = x.copy()
    other[:, 0] += 1
    ends = []
    for sequence in (x, other):
        for layer in learner.convolutions[0]:
            sequence, _ = layer.read(sequence, np.array([length], "int32"))
        ends.append(to_numpy(sequence))
    return np.nonzero(np.abs(ends[0] - ends[1]).max((0, 2)) > 1e-7)[0].tolist()


def test_convolutions_reach_back_over_the_support():
    learner, _ = make(max_support=6)
    assert reached(learner) == list(range(8))


def test_dilations_of_the_paper_reach_no_odd_distance():
    learner, _ = make(max_support=6, paper_dilation=True)
    assert reached(learner) == list(range(0, 15, 2))


def test_what_is_read_is_causal():
    learner, inputs = make()
    x = np.concatenate([inputs["support_x"], inputs["support_y"]], -1)
    other = x.copy()
    other[:, 4] += 1
    ends = []
    for sequence in (x, other):
        sequence, _ = learner.attentions[0].read(sequence)
        for layer in learner.convolutions[0]:
            sequence, _ = layer.read(sequence, np.array([6] * 3, "int32"))
        ends.append(to_numpy(sequence))
    change = np.abs(ends[0] - ends[1]).max((0, 2))
    assert (change[:4] == 0).all() and (change[4:] > 0).all()
