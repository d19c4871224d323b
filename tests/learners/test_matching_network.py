import math

import numpy as np
import pytest
from built_learner import adapted, answered, built, sigmoid, softmax, to_numpy

from keras_mtl.learners import MatchingNetwork


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def by_class(queries, keys, inputs, scale):
    """Returns the attention to the support, summed by class."""
    scores = scale * np.einsum("bqd,bsd->bqs", unit(queries), unit(keys))
    scores = np.where(inputs["support_mask"][:, None], scores, -np.inf)
    return softmax(scores) @ inputs["support_y"]


@pytest.mark.parametrize("learned", [True, False])
def test_answers_are_the_attention_summed_by_class(learned):
    learner, inputs = built(MatchingNetwork(ways=3, learned_scale=learned), support=7)
    inputs["support_mask"][:, 3] = False
    scale = math.exp(to_numpy(learner.log_scale)) if learned else 1.0
    expected = by_class(inputs["query_x"], inputs["support_x"], inputs, scale)
    np.testing.assert_allclose(answered(learner, inputs), expected, atol=1e-5)


def test_the_scale_starts_at_ten():
    learner = MatchingNetwork(ways=3)
    np.testing.assert_allclose(np.exp(to_numpy(learner.log_scale)), 10, rtol=1e-5)


@pytest.mark.parametrize("shots", [1, 3])
def test_without_a_scale_no_class_of_five_is_above_065(shots):
    learner = MatchingNetwork(ways=5, learned_scale=False)
    # The best case: all other examples are opposite to the query.
    x = np.array([[[1.0]], [[-1.0]], [[-1.0]], [[-1.0]], [[-1.0]]], "float32")
    x = np.repeat(x, shots, axis=0)[:, 0][None]
    labels = np.repeat(np.arange(5), shots)[None]
    phi = learner.adapt(x, labels, np.ones((1, 5 * shots)))
    best = to_numpy(learner.predict(phi, np.ones((1, 1, 1), "float32")))[0, 0, 0]
    np.testing.assert_allclose(best, math.e / (math.e + 4 / math.e), rtol=1e-5)
    assert best < 0.65
    scaled = MatchingNetwork(ways=5)
    phi = scaled.adapt(x, labels, np.ones((1, 5 * shots)))
    assert to_numpy(scaled.predict(phi, np.ones((1, 1, 1), "float32"))).max() > 0.99


def test_lengths_of_features_do_not_matter():
    learner, inputs = built(MatchingNetwork(ways=3))
    longer = {**inputs, "support_x": 7 * inputs["support_x"]}
    longer["query_x"] = 0.1 * inputs["query_x"]
    np.testing.assert_allclose(
        answered(learner, longer), answered(learner, inputs), atol=1e-5
    )


def lstm_step(cell, x, hidden, carry):
    """Returns one step of Keras's LSTM: gates are input, forget, candidate, output."""
    kernel, recurrent, bias = (
        to_numpy(v) for v in (cell.kernel, cell.recurrent_kernel, cell.bias)
    )
    i, f, c, o = np.split(x @ kernel + hidden @ recurrent + bias, 4, axis=-1)
    carry = sigmoid(f) * carry + sigmoid(i) * np.tanh(c)
    return sigmoid(o) * np.tanh(carry), carry


def run_lstm(layer, x):
    hidden = carry = np.zeros_like(x[:, 0])
    outputs = []
    for token in x.transpose(1, 0, 2):
        hidden, carry = lstm_step(layer.cell, token, hidden, carry)
        outputs.append(hidden)
    return np.stack(outputs, 1)


def test_full_context_against_numpy():
    learner, inputs = built(MatchingNetwork(ways=3, full_context=True, steps=2))
    x = inputs["support_x"]
    forwards, backwards = learner.support_cells
    keys = x + run_lstm(forwards, x) + run_lstm(backwards, x[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(
        to_numpy(adapted(learner, inputs)["keys"]), keys, atol=1e-5
    )
    queries = hidden = inputs["query_x"]
    carry = np.zeros_like(queries)
    for _ in range(2):
        read = softmax(np.einsum("bqd,bsd->bqs", hidden, keys)) @ keys
        joined = np.concatenate([queries, read], -1)
        output, carry = lstm_step(learner.query_cell, joined, hidden, carry)
        hidden = output + queries
    scale = math.exp(to_numpy(learner.log_scale))
    np.testing.assert_allclose(
        answered(learner, inputs), by_class(hidden, keys, inputs, scale), atol=1e-4
    )
